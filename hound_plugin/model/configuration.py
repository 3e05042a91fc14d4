"""Configurations: one LanguageBind tower, and the composite of two towers, a projector and a language model.

Both checkpoint layouts end in the same :class:`LlavaHoundConfig`: ours (``model_type`` "llava_hound") as it is
saved, and the original one (``model_type`` "llava_llama", towers named by ``mm_image_tower`` / ``mm_video_tower``)
through :func:`composite_from_original`, which also reads the configurations of the two towers.

Source of every field: arXiv 2404.01258 and the configuration files of the released checkpoints.
"""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any, ClassVar

from transformers import AutoConfig, PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import cached_file

from hound_plugin.errors import CheckpointError, damage_named

IMAGE_TOWER = "LanguageBind/LanguageBind_Image"
VIDEO_TOWER = "LanguageBind/LanguageBind_Video_merge"
ORIGINAL_MODEL_TYPE = "llava_llama"
VIDEO_LLAVA_MODEL_TYPE = "llava"  # as LanguageBind/Video-LLaVA-7B has it; `hound convert` reads it
# Keys of an original config that describe the composite and not the language model. The rest is LLaMA's.
ORIGINAL_KEYS = (
    "X",
    "freeze_mm_mlp_adapter",
    "image_aspect_ratio",
    "image_grid_pinpoints",
    "mm_hidden_size",
    "mm_image_tower",
    "mm_projector_type",
    "mm_use_im_patch_token",
    "mm_use_im_start_end",
    "mm_use_x_patch_token",
    "mm_use_x_start_end",
    "mm_video_tower",
    "mm_vision_select_feature",
    "mm_vision_select_layer",
    "tune_mm_mlp_adapter",
    "use_mm_proj",
)
_HUB_KEYS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "proxies")


class LlavaHoundTowerConfig(PreTrainedConfig):
    """One LanguageBind tower: a CLIP ViT, with divided space-time attention if ``add_time_attn``.

    The defaults are those of the released video tower (ViT-L/14). ``num_frames`` is the number of frames that one
    temporal embedding covers; a tower without temporal attention takes any number.
    Source: LanguageBind's ``configuration_video.py`` / ``configuration_image.py``.
    """

    model_type = "llava_hound_tower"

    hidden_size: int = 1024
    intermediate_size: int = 4096
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    num_channels: int = 3
    image_size: int = 224
    patch_size: int = 14
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-5
    attention_dropout: float = 0.0
    initializer_range: float = 0.02
    initializer_factor: float = 1.0
    add_time_attn: bool = False
    num_frames: int = 1

    @property
    def patches_per_frame(self) -> int:
        """Number of patch tokens of one frame, CLS not counted."""
        return (self.image_size // self.patch_size) ** 2

    @classmethod
    def from_languagebind(cls, values: dict[str, Any]) -> LlavaHoundTowerConfig:
        """Read a tower's ``config.json`` as LanguageBind writes it (nested ``vision_config``), or our own.

        Raises:
            CheckpointError: it describes no vision tower.
        """
        vision = values.get("vision_config", values)
        if not isinstance(vision, dict) or "patch_size" not in vision or "hidden_size" not in vision:
            raise CheckpointError(
                "Expected the config.json of a LanguageBind tower with a `vision_config` that has `hidden_size` and "
                f"`patch_size`; found the keys {sorted(values)}. Check `mm_image_tower` / `mm_video_tower`."
            )
        if vision.get("force_patch_dropout"):
            raise CheckpointError(
                f"This tower asks for patch dropout ({vision['force_patch_dropout']}), which a frozen tower must not "
                "have. Set `force_patch_dropout` to 0.0 in its config.json, as the released towers have it."
            )
        known = {name: vision[name] for name in cls.__dataclass_fields__ if name in vision and name in TOWER_FIELDS}
        if not known.get("add_time_attn"):
            known["num_frames"] = 1
        return cls(**known)


_LARGEST = {  # far beyond any model; refused before modules are made
    "num_hidden_layers": 1024, "hidden_size": 1 << 17, "intermediate_size": 1 << 20, "num_attention_heads": 4096,
    "num_key_value_heads": 4096, "vocab_size": 1 << 24, "num_channels": 64, "image_size": 1 << 14,
    "patch_size": 1 << 14, "num_frames": 1 << 12, "max_position_embeddings": 1 << 28,
}  # fmt: skip


def _check_sizes(part: str, config: Any) -> None:
    """Refuse sizes that no model has.

    Raises:
        CheckpointError: a size is not a whole number, below 1 or beyond all reason, or does not fit another one.
    """
    for name, largest in _LARGEST.items():
        value = getattr(config, name, None)
        if value is not None and (type(value) is not int or not 1 <= value <= largest):
            raise CheckpointError(
                f"Expected {name} of the {part} as a whole number from 1 to {largest}, found {value!r}. The "
                "config.json is damaged or of another architecture."
            )
    head = getattr(config, "head_dim", None)
    if head is not None and (type(head) is not int or not 1 <= head <= _LARGEST["hidden_size"]):
        raise CheckpointError(f"Expected head_dim of the {part} as a whole number above 0, found {head!r}.")
    for name in ("rms_norm_eps", "layer_norm_eps", "attention_dropout", "initializer_range"):
        value = getattr(config, name, None)
        if value is not None and (type(value) not in (int, float) or not 0 <= value <= 1):
            raise CheckpointError(
                f"Expected {name} of the {part} as a number from 0 to 1, found {value!r}. The config.json is damaged."
            )
    act = getattr(config, "hidden_act", None)
    if act is not None and act not in ACT2FN:
        raise CheckpointError(f"Expected hidden_act of the {part} to be a function of transformers, found {act!r}.")
    for whole, piece in (("hidden_size", "num_attention_heads"), ("image_size", "patch_size")):
        size, unit = getattr(config, whole, None), getattr(config, piece, None)
        if size and unit and size % unit and not (piece == "num_attention_heads" and getattr(config, "head_dim", None)):
            raise CheckpointError(f"Expected {whole} of the {part} as a multiple of {piece}, found {size} and {unit}.")


def _check_text(config: Any) -> None:
    """Refuse positions that are no numbers, and a padding token outside the vocabulary, which torch stumbles over."""
    rope = getattr(config, "rope_parameters", None) or {}
    kind, theta = rope.get("rope_type", "default"), rope.get("rope_theta", 10000.0)
    if kind != "default" and kind not in ROPE_INIT_FUNCTIONS:
        raise CheckpointError(f"Expected rope_type of the text_config to be one of transformers', found {kind!r}.")
    if type(theta) not in (int, float) or not 0 < theta < float("inf"):
        raise CheckpointError(f"Expected rope_theta of the text_config as a number above 0, found {theta!r}.")
    pad = getattr(config, "pad_token_id", None)
    if pad is not None and not -1 <= pad < config.vocab_size:
        raise CheckpointError(f"Expected pad_token_id of the text_config in its vocabulary, found {pad!r}.")


def _check_composite(config: Any) -> None:
    """Refuse keys of the composite that are of another type."""
    if type(config.mm_vision_select_layer) is not int:
        raise CheckpointError(
            f"Expected mm_vision_select_layer as a whole number, found {config.mm_vision_select_layer!r}."
        )
    ids = (config.image_token_id, config.video_token_id)
    if any(type(item) is not int for item in ids) or (ids[0] == ids[1] and ids[0] >= 0):
        raise CheckpointError(f"Expected image_token_id and video_token_id as two different numbers, found {ids}.")
    for name in ("original_config", "original_towers"):
        if not isinstance(getattr(config, name), dict | None):
            raise CheckpointError(f"Expected {name} as an object, found {getattr(config, name)!r}.")
    dtypes = ("float16", "float32", "float64", "bfloat16", None)
    held = [config.original_towers[tower] for tower in config.original_towers or {}]
    if any(item not in dtypes for item in held):
        raise CheckpointError(f"Expected original_towers to name dtypes of the towers, found {config.original_towers}.")


TOWER_FIELDS = frozenset(LlavaHoundTowerConfig.__annotations__)


class LlavaHoundConfig(PreTrainedConfig):
    """Two towers, one shared projector, one language model.

    ``image_token_id`` and ``video_token_id`` lie above the language model's vocabulary (``vocab_size`` and
    ``vocab_size + 1`` unless given): they mark places in ``input_ids`` and are never looked up in the embedding, so
    that the checkpoint keeps its original rows.

    Args:
        text_config: configuration (or its dict) of the language model; LLaMA-7B's shape if None.
        image_tower_config, video_tower_config: :class:`LlavaHoundTowerConfig` (or dict).
        mm_projector_type: ``linear`` or ``mlp{N}x_gelu``.
        mm_vision_select_layer: which hidden state of a tower is its feature; -2 is the input of the last block.
        image_aspect_ratio: ``pad`` (images are padded to a square with the mean colour) or None.
        freeze_towers: whether the towers' parameters start without gradient.
        original_config: the keys of the original ``config.json`` that have no place here, kept for converting back.
    """

    model_type = "llava_hound"
    keys_to_ignore_at_inference: ClassVar[list[str]] = [  # what the trainer need not gather while it evaluates
        "last_hidden_state",
        "past_key_values",  # and under its newer name
        "cache",
        "hidden_states",
        "attentions",
    ]
    sub_configs: ClassVar[dict[str, Any]] = {
        "text_config": AutoConfig,
        "image_tower_config": LlavaHoundTowerConfig,
        "video_tower_config": LlavaHoundTowerConfig,
    }

    text_config: Any = None
    image_tower_config: Any = None
    video_tower_config: Any = None
    image_token_id: int = -1  # negative: above the vocabulary, see __post_init__
    video_token_id: int = -1
    mm_projector_type: str = "mlp2x_gelu"
    mm_vision_select_layer: int = -2
    image_aspect_ratio: str | None = "pad"
    mm_image_tower: str | None = IMAGE_TOWER
    mm_video_tower: str | None = VIDEO_TOWER
    freeze_towers: bool = True
    tie_word_embeddings: bool = False
    original_config: dict | None = None
    original_towers: dict | None = None  # how the original file held its towers: dtype names, None if it did not

    def __post_init__(self, **kwargs: Any) -> None:
        for part in ("text_config", "image_tower_config", "video_tower_config"):
            if not isinstance(getattr(self, part), dict | PreTrainedConfig | None):
                raise CheckpointError(f"Expected {part} as an object, found {getattr(self, part)!r}.")
        _check_composite(self)
        if self.text_config is None:
            self.text_config = CONFIG_MAPPING["llama"](tie_word_embeddings=False)
        elif isinstance(self.text_config, dict):
            values = dict(self.text_config)
            try:
                self.text_config = CONFIG_MAPPING[values.pop("model_type", "llama")](**values)
            except Exception as error:  # whatever the language model's own checks raise
                raise CheckpointError(
                    f"Expected a text_config that describes a language model ({type(error).__name__}: {error}). The "
                    "config.json is damaged or of another architecture."
                ) from error
        self.image_tower_config = _tower(self.image_tower_config)
        self.video_tower_config = _tower(self.video_tower_config, add_time_attn=True, num_frames=8)
        for part in ("text_config", "image_tower_config", "video_tower_config"):
            _check_sizes(part, getattr(self, part))
        _check_text(self.text_config)
        if self.image_token_id < 0:
            self.image_token_id = self.text_config.vocab_size
        if self.video_token_id < 0:
            self.video_token_id = self.text_config.vocab_size + 1
        super().__post_init__(**kwargs)

    @property
    def default_num_frames(self) -> int:
        """Frames of one clip that the video tower was trained for."""
        return self.video_tower_config.num_frames if self.video_tower_config.add_time_attn else 8

    @property
    def tokens_per_image(self) -> int:
        """Visual tokens that replace one ``<image>``: 256 at full size."""
        return self.image_tower_config.patches_per_frame

    def tokens_per_video(self, num_frames: int | None = None) -> int:
        """Visual tokens that replace one ``<video>``: frames x patches, 2048 at full size."""
        return (num_frames or self.default_num_frames) * self.video_tower_config.patches_per_frame

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As transformers' ``from_dict``; an original config is translated first (it may read the towers' files)."""
        if config_dict.get("model_type") == ORIGINAL_MODEL_TYPE:
            hub = {key: kwargs[key] for key in _HUB_KEYS if key in kwargs}
            name = str(kwargs.get("name_or_path", ""))  # AutoConfig passes it; the file itself does not know its place
            config_dict = composite_from_original(config_dict, folder=name if os.path.isdir(name) else None, **hub)
        return super().from_dict(config_dict, **kwargs)

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> tuple[dict[str, Any], Any]:
        """As transformers', remembering the folder, to which a relative tower path in the file refers."""
        with damage_named(pretrained_model_name_or_path, "config.json"):
            config_dict, unused = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
            if not isinstance(config_dict, dict):
                raise TypeError(f"expected a JSON object, found a {type(config_dict).__name__}")
        if config_dict.get("model_type") in (ORIGINAL_MODEL_TYPE, VIDEO_LLAVA_MODEL_TYPE):
            hub = {key: kwargs[key] for key in _HUB_KEYS if kwargs.get(key) is not None and key != "revision"}
            folder = str(pretrained_model_name_or_path) if os.path.isdir(pretrained_model_name_or_path) else None
            config_dict = composite_from_original(config_dict, folder=folder, **hub)
        return config_dict, unused


class OriginalLlavaConfig(LlavaHoundConfig):
    """What ``AutoConfig`` finds for ``model_type`` "llava_llama"; loading it gives a :class:`LlavaHoundConfig`."""

    model_type = ORIGINAL_MODEL_TYPE

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
        """Load an original ``config.json`` as a :class:`LlavaHoundConfig`."""
        return LlavaHoundConfig.from_pretrained(pretrained_model_name_or_path, **kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Translate an original config; see :func:`composite_from_original`."""
        return LlavaHoundConfig.from_dict(config_dict, **kwargs)


def _tower(value: dict | PreTrainedConfig | None, **defaults: Any) -> LlavaHoundTowerConfig:
    if isinstance(value, LlavaHoundTowerConfig):
        return value
    if value is None:
        return LlavaHoundTowerConfig(**defaults)
    values = value if isinstance(value, dict) else value.to_dict()
    return LlavaHoundTowerConfig(**{k: v for k, v in values.items() if k != "model_type"})


def tower_location(name: str, folder: str | None) -> str:
    """Where a tower is: a path relative to the checkpoint's folder, any other local path, or else a hub id."""
    if folder is not None and (Path(folder) / name).is_dir():
        return str(Path(folder) / name)
    return name


def read_tower_config(name: str, folder: str | None = None, **hub: Any) -> LlavaHoundTowerConfig:
    """Read the configuration of a tower from a folder or the hub.

    Raises:
        CheckpointError: there is no ``config.json`` under that name, or it is not a tower's.
    """
    place = tower_location(name, folder)
    try:
        path = cached_file(place, "config.json", **hub)
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"Expected the tower {name!r} (named in the checkpoint's config.json) as a folder or on the hub, but its "
            f"config.json cannot be read: {error} Download it once (`hf download {name}`), or put the path of a "
            "local copy into the checkpoint's config.json."
        ) from error
    return LlavaHoundTowerConfig.from_languagebind(values)


def composite_from_original(values: dict[str, Any], folder: str | None = None, **hub: Any) -> dict[str, Any]:
    """Translate the ``config.json`` of an original checkpoint into the dict of a :class:`LlavaHoundConfig`.

    Args:
        values: the original config; it must name both towers.
        folder: the checkpoint's folder, to which a relative tower path refers.
        hub: ``cache_dir``, ``token`` ... for reading the towers' configurations.

    Raises:
        CheckpointError: it is a LLaVA checkpoint of another kind, or a tower cannot be read.
    """
    missing = [key for key in ("mm_image_tower", "mm_video_tower") if not values.get(key)]
    if missing:
        raise CheckpointError(
            "Expected an original LLaVA-Hound or Video-LLaVA checkpoint, whose config.json names both towers; "
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing. This looks like an "
            "image-only LLaVA; use the host's own `llava` template and a llava-hf checkpoint for it."
        )
    if values.get("mm_vision_select_feature", "patch") != "patch":
        raise CheckpointError(
            f"Expected mm_vision_select_feature 'patch', found {values['mm_vision_select_feature']!r}; "
            "no released checkpoint of this family keeps the CLS token."
        )
    for flag in ("mm_use_x_start_end", "mm_use_im_start_end"):
        if values.get(flag):
            raise CheckpointError(f"Expected {flag} false, found true; no released checkpoint of this family uses it.")
    return {
        "model_type": LlavaHoundConfig.model_type,
        "architectures": ["LlavaHoundForConditionalGeneration"],
        "text_config": text_from_original(values),
        "image_tower_config": read_tower_config(values["mm_image_tower"], folder, **hub).to_dict(),
        "video_tower_config": read_tower_config(values["mm_video_tower"], folder, **hub).to_dict(),
        "mm_projector_type": values.get("mm_projector_type", "linear"),
        "mm_vision_select_layer": values.get("mm_vision_select_layer", -2),
        "image_aspect_ratio": "pad" if values.get("image_aspect_ratio") == "pad" else None,
        "mm_image_tower": values["mm_image_tower"],
        "mm_video_tower": values["mm_video_tower"],
        "tie_word_embeddings": bool(values.get("tie_word_embeddings", False)),
        "dtype": values.get("torch_dtype") or values.get("dtype"),
        "bos_token_id": values.get("bos_token_id", 1),
        "eos_token_id": values.get("eos_token_id", 2),
        "pad_token_id": values.get("pad_token_id") or 0,
        "original_config": dict(values),
    }


def text_from_original(values: dict[str, Any]) -> dict[str, Any]:
    """The language model's part of an original ``config.json``."""
    skip = {*ORIGINAL_KEYS, "model_type", "architectures", "_name_or_path", "transformers_version"}
    return {**{key: value for key, value in copy.deepcopy(values).items() if key not in skip}, "model_type": "llama"}


for _config in (LlavaHoundConfig, LlavaHoundTowerConfig, OriginalLlavaConfig):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
