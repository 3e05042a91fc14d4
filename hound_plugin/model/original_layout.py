"""What the original layout says of a model besides its weights: ``config.json``, towers and tokenizer.

A model that came from the original layout remembers that ``config.json``. What has changed since (longer positions, a
larger vocabulary, trained towers, new tokens) replaces what is remembered: the weights would be read wrongly otherwise.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from hound_plugin.model.checkpoint import read_tower
from hound_plugin.model.configuration import (
    ORIGINAL_KEYS,
    ORIGINAL_MODEL_TYPE,
    TOWER_FIELDS,
    LlavaHoundConfig,
    LlavaHoundTowerConfig,
    text_from_original,
)
from hound_plugin.processing.prompt import RESERVED
from hound_plugin.records.placeholders import TOKENS

_OF_THE_FILE = {"_name_or_path", "architectures", "dtype", "model_type", "rope_parameters", "transformers_version"}
_OF_A_SESSION = {"use_cache"}
_ENDS = ("bos_token_id", "eos_token_id")
_IN_THE_FIRST_TRANSFORMERS = ("linear", "dynamic")
"""Scalings of positions that the original's transformers knows, under the key ``type``."""


def original_config(config: LlavaHoundConfig) -> dict[str, Any]:
    """The original ``config.json`` of a model: the one that it came with, as far as it is still true, or a new one."""
    new = _new_config(config)
    if config.original_config is None:
        return new
    before, now = _text(config.original_config), config.text_config.to_dict()
    changed = {key for key in before.keys() | now.keys() if before.get(key) != now.get(key)}
    keys = changed - _OF_THE_FILE - _OF_A_SESSION
    if "rope_parameters" in changed:
        keys |= {"rope_scaling", "rope_theta"}
    keys |= {key for key, old in _composite(config.original_config).items() if getattr(config, key) != old}
    values = config.original_config | {key: new.get(key) for key in keys}
    if "rope_parameters" in changed:
        values.pop("rope_parameters", None)
    dtype = config.original_config.get("torch_dtype") or config.original_config.get("dtype")
    if dtype is not None and config.dtype is not None and str(dtype).removeprefix("torch.") != new["torch_dtype"]:
        values["torch_dtype"] = new["torch_dtype"]
        values.pop("dtype", None)
    return values


def _text(values: dict[str, Any]) -> dict[str, Any]:
    text = text_from_original(values)
    return dict(CONFIG_MAPPING[text.pop("model_type")](**text).to_dict())


def _composite(values: dict[str, Any]) -> dict[str, Any]:
    """What the composite reads in an original file besides the text model, as in ``composite_from_original``."""
    return {
        "mm_projector_type": values.get("mm_projector_type", "linear"),
        "mm_vision_select_layer": values.get("mm_vision_select_layer", -2),
        "image_aspect_ratio": (values.get("image_aspect_ratio") == "pad" and "pad") or None,
        "tie_word_embeddings": bool(values.get("tie_word_embeddings", False)),
    }


def _new_config(config: LlavaHoundConfig) -> dict[str, Any]:
    text = config.text_config.to_dict()
    rope = text.pop("rope_parameters", None) or {}
    values = {key: value for key, value in text.items() if key not in ("model_type", "dtype", "transformers_version")}
    dtype = getattr(config, "dtype", None) or config.text_config.dtype or torch.float32
    return {
        **values,
        **dict.fromkeys((key for key in ORIGINAL_KEYS if key.startswith(("mm_use", "tune_"))), False),
        "X": ["Image", "Video"],
        "architectures": ["LlavaLlamaForCausalLM"],
        "freeze_mm_mlp_adapter": False,
        "image_aspect_ratio": config.image_aspect_ratio,
        "image_grid_pinpoints": None,
        "mm_hidden_size": config.video_tower_config.hidden_size,
        "mm_image_tower": config.mm_image_tower,
        "mm_projector_type": config.mm_projector_type,
        "mm_video_tower": config.mm_video_tower,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": config.mm_vision_select_layer,
        "model_type": ORIGINAL_MODEL_TYPE,
        "rope_scaling": _scaling(rope),
        "rope_theta": rope.get("rope_theta", 10000.0),
        "tie_word_embeddings": config.tie_word_embeddings,
        "torch_dtype": str(dtype).removeprefix("torch."),
        "use_mm_proj": True,
    }


def _scaling(rope: dict[str, Any]) -> dict[str, Any] | None:
    """``rope_scaling`` as the original's transformers writes it, where it knows it."""
    kind = rope.get("rope_type", "default")
    rest = {key: value for key, value in rope.items() if key not in ("rope_type", "rope_theta", "type")}
    if kind == "default":
        return None
    return {"type" if kind in _IN_THE_FIRST_TRANSFORMERS else "rope_type": kind, **rest}


def is_repository_tower(file: str, config: Any, tensors: Iterable[tuple[str, torch.Tensor]]) -> bool:
    """Whether a checkpoint's copy of a tower is the repository's, perhaps rounded to the checkpoint's dtype.

    Args:
        file: the repository's weights.
        config: of the tower.
        tensors: the checkpoint's copy, under the names of our tower.
    """
    with contextlib.ExitStack() as stack:
        exact = read_tower(file, config, stack)
        for name, tensor in tensors:
            other = exact.get(name)
            if other is None:
                return False
            other = other if torch.is_tensor(other) else other[...]
            if not torch.equal(other.to(tensor.dtype), tensor):
                return False
    return True


def has_the_shape(repository: LlavaHoundTowerConfig, tower: LlavaHoundTowerConfig) -> bool:
    """Whether a tower computes what the repository's configuration says."""
    return all(getattr(repository, name) == getattr(tower, name) for name in TOWER_FIELDS)


def has_the_tokens(tokenizer: Path, checkpoint: Path) -> bool:
    """Whether a tokenizer gives a checkpoint's texts the same ids: the same vocabulary, beginning and end.

    Args:
        tokenizer: a folder with the original's files.
        checkpoint: a folder in our layout, whose tokenizer also has placeholders, and tokens that fill the vocabulary.
    """
    # given a configuration, `AutoTokenizer` reads no config.json, for which it would ask the hub about towers
    folders = (tokenizer, checkpoint)
    both = [AutoTokenizer.from_pretrained(name, config=LlamaConfig(), trust_remote_code=False) for name in folders]
    theirs, ours = (each.get_vocab() for each in both)
    fillers = {RESERVED.format(number) for number in range(len(ours))}
    ours = {token: i for token, i in ours.items() if token in theirs or token not in fillers.union(TOKENS)}
    return theirs == ours and all(getattr(both[0], end) == getattr(both[1], end) for end in _ENDS)
