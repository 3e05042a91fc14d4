"""The model in vLLM: LLaMA of vLLM's own layers, towers and projector of this package.

Tensor parallelism, prefix caching, LoRA adapters and quantised weights of the language model are vLLM's.
The towers are whole in every process.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import nn
from vllm.config import VllmConfig
from vllm.model_executor.models.interfaces import SupportsLoRA, SupportsMultiModal, SupportsPP
from vllm.model_executor.models.module_mapping import MultiModelKeys
from vllm.model_executor.models.utils import AutoWeightsLoader, WeightsMapper, init_vllm_registered_model, maybe_prefix
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.sequence import IntermediateTensors

from hound_plugin.errors import CheckpointError
from hound_plugin.model.checkpoint import tower_tensors
from hound_plugin.model.checkpoint_files import check_files
from hound_plugin.model.completeness import check_complete, check_finite, tensor_shapes
from hound_plugin.model.configuration import LlavaHoundConfig
from hound_plugin.model.key_mapping import KEY_TABLE
from hound_plugin.model.projector import build_projector
from hound_plugin.model.vision import LlavaHoundTower
from hound_plugin.processing.processor import LlavaHoundProcessor
from hound_plugin.processing.prompt import IMAGE_TOKEN, SYSTEM, VIDEO_TOKEN
from hound_plugin.processing.saved_settings import saved_settings
from hound_plugin.vllm.adapters import WITH_ITS_SYSTEM, refuse_partial_adapters
from hound_plugin.vllm.inputs import DummyInputs, MediaProcessor, ProcessingInfo
from hound_plugin.vllm.weights import TOWERS, CheckedWeights

LANGUAGE_MODELS = {"llama": "LlamaForCausalLM"}
_BY_TOKEN = ("embed_tokens.weight", "lm_head.weight")

refuse_partial_adapters()


def _names_in_vllm() -> dict[str, str]:
    """Prefixes of both checkpoint layouts to those of this class; a longer prefix comes before a shorter one."""

    def here(ours: str) -> str:
        if ours.startswith("lm_head."):
            return f"language_model.{ours}"
        name = ours.removeprefix("model.")
        return name.replace("language_model.", "language_model.model.", 1)

    rows = [tuple(name.removesuffix("{}") for name in row) for row in KEY_TABLE]
    prefixes = {original: here(ours) for original, ours in rows} | {ours: here(ours) for _, ours in rows}
    return dict(sorted(prefixes.items(), key=lambda item: -len(item[0])))


@MULTIMODAL_REGISTRY.register_processor(MediaProcessor, info=ProcessingInfo, dummy_inputs=DummyInputs)
class LlavaHoundForVllm(nn.Module, SupportsMultiModal, SupportsLoRA, SupportsPP):
    """LLaVA-Hound (arXiv 2404.01258) in vLLM.

    Args:
        vllm_config: vLLM's configuration, with a :class:`LlavaHoundConfig` as that of the model.
        prefix: of the names of the parameters.

    Raises:
        CheckpointError: the language model is not a LLaMA.
    """

    packed_modules_mapping: ClassVar[dict[str, list[str]]] = {
        "qkv_proj": ["q_proj", "k_proj", "v_proj"],
        "gate_up_proj": ["gate_proj", "up_proj"],
    }
    image_tower: Any
    video_tower: Any
    multi_modal_projector: Any
    language_model: Any
    configure_mm_token_handling: Any  # methods of vLLM's classes, for a checker that has no vLLM
    _mark_tower_model: Any
    _mark_language_model: Any
    hf_to_vllm_mapper = WeightsMapper(orig_to_new_prefix=_names_in_vllm())

    @classmethod
    def get_placeholder_str(cls, modality: str, i: int) -> str | None:
        """The text that stands for media in prompts."""
        return {"image": IMAGE_TOKEN, "video": VIDEO_TOKEN}[modality]

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__()
        config: LlavaHoundConfig = vllm_config.model_config.hf_config
        kind = config.text_config.model_type
        if kind not in LANGUAGE_MODELS:
            raise CheckpointError(
                f"Expected a language model of type {' or '.join(LANGUAGE_MODELS)} for vLLM, found {kind!r}. Use "
                "`backend: model`, which runs every one."
            )
        self.config = config
        self._name = vllm_config.model_config.model
        if os.path.isdir(self._name):
            check_files(self._name, with_tokenizer=False)
        self._revision = vllm_config.model_config.revision
        media = vllm_config.model_config.multimodal_config
        self._media_settings = dict((media and media.mm_processor_kwargs) or {})
        self._is_quantised = hasattr(vllm_config.model_config.hf_config, "quantization_config")
        self._is_loaded = False
        self._answer_vocab_size: int = config.answer_vocab_size  # set by the plugin
        self.configure_mm_token_handling(self._answer_vocab_size, [config.image_token_id, config.video_token_id])
        with self._mark_tower_model(vllm_config, {"image", "video"}):
            self.image_tower = LlavaHoundTower._from_config(config.image_tower_config)
            self.video_tower = LlavaHoundTower._from_config(config.video_tower_config)
            self.multi_modal_projector = build_projector(
                config.mm_projector_type, config.video_tower_config.hidden_size, config.text_config.hidden_size
            )
        with self._mark_language_model(vllm_config):
            self.language_model = init_vllm_registered_model(
                vllm_config=vllm_config,
                hf_config=config.text_config,
                prefix=maybe_prefix(prefix, "language_model"),
                architectures=[LANGUAGE_MODELS[kind]],
            )
        self.make_empty_intermediate_tensors = self.language_model.make_empty_intermediate_tensors

    def embed_multimodal(self, **kwargs: Any) -> Any:
        """Projected features of media, ``[tokens, hidden]`` for each.

        Args:
            kwargs: ``pixel_values_images`` ``[N, 3, H, W]`` and ``pixel_values_videos`` ``[N, T, 3, H, W]``; a list
                where clips have different numbers of frames.
        """
        features: list[torch.Tensor] = []
        for name, pixels in kwargs.items():
            if pixels is None or not name.startswith("pixel_values_"):
                continue
            tower = self.image_tower if name == "pixel_values_images" else self.video_tower
            for item in pixels:  # one by one: features do not depend on what is asked for at the same time
                features.append(self._features(tower, item.unsqueeze(0))[0])
        return features

    def _features(self, tower: LlavaHoundTower, pixels: torch.Tensor) -> torch.Tensor:
        weight = next(self.multi_modal_projector.parameters())
        encoded = tower.features(pixels.to(weight.dtype), self.config.mm_vision_select_layer)
        projected: torch.Tensor = self.multi_modal_projector(encoded)
        return projected

    def forward(
        self,
        input_ids: torch.Tensor | None,
        positions: torch.Tensor,
        intermediate_tensors: IntermediateTensors | None = None,
        inputs_embeds: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor | IntermediateTensors:
        """Hidden states ``[tokens, hidden]`` of a flat batch."""
        if intermediate_tensors is not None:
            inputs_embeds = None
        return self.language_model.model(input_ids, positions, intermediate_tensors, inputs_embeds=inputs_embeds)

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor | None:
        """Logits ``[tokens, vocabulary]``; a placeholder is never an answer."""
        logits: torch.Tensor | None = self.language_model.compute_logits(hidden_states)
        if logits is not None:
            logits[..., self._answer_vocab_size :] = float("-inf")
        return logits

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> set[str]:
        """Load a checkpoint of either layout; the towers of an original one come from their own files, if there.

        Raises:
            CheckpointError: it lacks something or has something else, the towers are neither in it nor elsewhere, or
                weights are not finite.
        """
        is_first = not self._is_loaded  # later ones may bring a part: trainings send what they changed
        read = CheckedWeights(self.config, self._answer_vocab_size, self._name)
        widened = (
            (name, self._with_placeholders(tensor) if name.endswith(_BY_TOKEN) else tensor)
            for name, tensor in read.checked(weights)
        )
        loaded: set[str] = AutoWeightsLoader(self).load_weights(widened, mapper=self.hf_to_vllm_mapper)
        if is_first:
            read.check_complete()
        if read.is_original and isinstance(self.image_tower, LlavaHoundTower):
            loaded |= self._load_towers(loaded)
        check_finite(self.named_parameters(), f"the checkpoint {self._name}")
        self._is_loaded = True
        return loaded

    def system_of_adapters(self, name: str) -> str | None:
        """The system prompt before questions that are asked of an adapter; None: its own.

        Args:
            name: of the request for the adapter.
        """
        if name == WITH_ITS_SYSTEM:
            return None
        system: str = saved_settings(self._name, revision=self._revision).get("system", SYSTEM)
        return system

    def frames_of_adapters(self, name: str) -> dict[str, Any] | None:
        """Number and choice of the frames that are shown to an adapter; None: its own.

        Args:
            name: of the request for the adapter.
        """
        if name == WITH_ITS_SYSTEM:
            return None
        processor = LlavaHoundProcessor.from_pretrained(self._name, revision=self._revision)
        usual = {"num_frames": processor.num_frames, "frame_sampling": processor.frame_sampling}
        return usual | {key: value for key, value in self._media_settings.items() if key in usual}

    @property
    def base_of_adapters(self) -> str | None:
        """The folder whose weights adapters are compared with; None for a hub id, and for weights of fewer bits.

        Those differ from the ones that an adapter was trained on, and may come from them.
        """
        return self._name if os.path.isdir(self._name) and not self._is_quantised else None

    def _with_placeholders(self, rows: torch.Tensor) -> torch.Tensor:
        """A weight of one row a token, with rows of zeros for the placeholders."""
        missing = self.config.text_config.vocab_size - self._answer_vocab_size
        return nn.functional.pad(rows, (0, 0, 0, missing)) if len(rows) == self._answer_vocab_size else rows

    @torch.no_grad()
    def _load_towers(self, in_checkpoint: set[str]) -> set[str]:
        folder = self._name if os.path.isdir(self._name) else None
        parameters = dict(self.named_parameters())
        loaded = set()
        with contextlib.ExitStack() as stack:
            towers = tower_tensors(self.config, [f"model.{name}" for name in in_checkpoint], folder, {}, stack)
            here = {name.removeprefix("model."): value for name, value in towers.items()}
            present = tuple(tower for tower in TOWERS if any(name.startswith(tower) for name in here))
            expected = {name: tuple(value.shape) for name, value in parameters.items() if name.startswith(present)}
            check_complete(expected, tensor_shapes(here), self._name)
            for name, value in here.items():
                parameters[name].copy_(value if torch.is_tensor(value) else value[...])
                loaded.add(name)
        return loaded

    def get_mm_mapping(self) -> MultiModelKeys:
        """Which part is which; LoRA adapters apply to the language model."""
        return MultiModelKeys.from_string_field(
            language_model="language_model", connector="multi_modal_projector", tower_model=list(TOWERS)
        )
