"""LLaVA-Hound: image tower, video tower, shared projector and a causal language model.

A text holds one ``image_token_id`` / ``video_token_id`` for every visual token; :class:`LlavaHoundModel` puts the
projected features in their places. The ids lie above the vocabulary and never reach the embedding. Positions are a
plain count over all attended tokens, as in the original (``llava_arch.py``, ``prepare_inputs_labels_for_multimodal``).

Shapes: N media items, B rows, S text length with placeholders, T frames, H hidden size.
"""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForImageTextToText,
    Cache,
    GenerationMixin,
    LogitsProcessorList,
    PreTrainedModel,
)
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import is_fsdp_enabled

from hound_plugin.errors import PlaceholderError
from hound_plugin.model.checkpoint import read_as_ours
from hound_plugin.model.checkpoint_files import check_files
from hound_plugin.model.configuration import LlavaHoundConfig, LlavaHoundTowerConfig
from hound_plugin.model.feature_cache import FeatureCache
from hound_plugin.model.projector import build_projector
from hound_plugin.model.releases import CACHE_FIELD, cache_of
from hound_plugin.model.vision import LlavaHoundTower

# The first cosine of a process (the rotary embedding's) was seen to be off by 1.5e-4 in one process of 20, and the
# first loss with it, on CPU with torch 2.11 and several threads; presumably MKL's vector functions, which are set up on
# their first call. One element is computed by one thread, so that the set-up has no rival.
torch.cos(torch.ones(1))


@dataclass
class LlavaHoundOutput(CausalLMOutputWithPast):
    """Output of the composite: that of every causal language model, and its last hidden state.

    Attributes:
        loss: scalar mean cross entropy over labelled tokens, when labels are given.
        logits: ``[B, S, vocab]`` (or fewer positions with ``logits_to_keep``).
        last_hidden_state: ``[B, S, H]``.
    """

    last_hidden_state: torch.Tensor | None = None


class LlavaHoundPreTrainedModel(PreTrainedModel):
    """Loading, saving and initialisation; see :mod:`hound_plugin.model.checkpoint` for the original layout."""

    config_class = LlavaHoundConfig
    config: LlavaHoundConfig
    base_model_prefix = "model"
    input_modalities = ("image", "video", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ("TowerBlock", "LlamaDecoderLayer")
    _skip_keys_device_placement = (CACHE_FIELD,)
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if not isinstance(module, LlavaHoundTower):
            super()._init_weights(module)

    @classmethod
    def from_pretrained(cls, *args: Any, quantization_config: Any = None, **kwargs: Any) -> Any:
        """Load as every transformers model; ``quantization_config`` reaches the language model's blocks alone.

        Towers, projector and head stay as they are unless the configuration names other modules to skip: a tower of
        4 bits changes what the model sees, and saves little beside the language model.
        """
        if quantization_config is not None:
            quantization_config = _spare_towers(quantization_config)
            kwargs["quantization_config"] = quantization_config
        if args and args[0] is not None and os.path.isdir(args[0]):
            check_files(args[0], with_tokenizer=False)
        return super().from_pretrained(*args, **kwargs)

    @staticmethod
    def _load_pretrained_model(
        model: Any, state_dict: Any, checkpoint_files: Any, load_config: Any, expected_keys: Any = None
    ) -> Any:
        """Read an original checkpoint through the key table; leave our own layout to transformers."""
        with read_as_ours(model, state_dict, checkpoint_files, load_config) as renamed:
            loaded = PreTrainedModel._load_pretrained_model(
                model, renamed, checkpoint_files, load_config, expected_keys
            )
        composite = model.model if isinstance(model, LlavaHoundForConditionalGeneration) else model
        composite.set_towers_trainable(not model.config.freeze_towers)  # loading makes new parameters with gradients
        return loaded


# Both with and without the composite's prefix: names are matched from their beginning.
_UNQUANTISED = [
    *(
        f"{prefix}{part}"
        for part in ("image_tower", "video_tower", "multi_modal_projector")
        for prefix in ("", "model.")
    ),
    "lm_head",
]
_SKIP_FIELDS = ("llm_int8_skip_modules", "modules_to_not_convert", "skip_modules")  # bitsandbytes; most others; HQQ


def _spare_towers(config: Any) -> Any:
    """A copy of a quantisation configuration (object or dict) that skips all but the language model's blocks."""
    config = copy.deepcopy(config)
    if isinstance(config, dict):
        if not any(config.get(field) for field in _SKIP_FIELDS):
            bitsandbytes = config.get("quant_method", "bitsandbytes") == "bitsandbytes"
            config[_SKIP_FIELDS[0] if bitsandbytes else _SKIP_FIELDS[1]] = list(_UNQUANTISED)
        return config
    for field in _SKIP_FIELDS:
        if hasattr(config, field) and not getattr(config, field):
            setattr(config, field, list(_UNQUANTISED))
    return config


class LlavaHoundModel(LlavaHoundPreTrainedModel):
    """The composite without the language-modelling head."""

    def __init__(self, config: LlavaHoundConfig) -> None:
        super().__init__(config)
        self.image_tower = LlavaHoundTower._from_config(config.image_tower_config)
        self.video_tower = LlavaHoundTower._from_config(config.video_tower_config)
        self.multi_modal_projector = build_projector(
            config.mm_projector_type, config.video_tower_config.hidden_size, config.text_config.hidden_size
        )
        self.language_model = AutoModel.from_config(config.text_config)
        self.feature_cache: FeatureCache | None = None  # set where questions are answered
        self.set_towers_trainable(not config.freeze_towers)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The language model's embedding."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the language model's embedding."""
        self.language_model.set_input_embeddings(value)

    def set_towers_trainable(self, trainable: bool) -> None:
        """Give the towers' used parameters a gradient or take it; unused blocks never have one."""
        for tower in (self.image_tower, self.video_tower):
            tower.requires_grad_(trainable)
            tower.freeze_unused(self.config.mm_vision_select_layer)

    def get_image_features(self, pixel_values_images: torch.Tensor) -> torch.Tensor:
        """Projected features of images: ``[N, 3, H, W] -> [N, tokens, hidden]``."""
        return self._features(self.image_tower, pixel_values_images)

    def get_video_features(self, pixel_values_videos: torch.Tensor) -> torch.Tensor:
        """Projected features of clips: ``[N, T, 3, H, W] -> [N, T * tokens, hidden]``, frame-major."""
        return self._features(self.video_tower, pixel_values_videos)

    def _features(self, tower: LlavaHoundTower, pixel_values: torch.Tensor) -> torch.Tensor:
        if self.feature_cache is None or self.training or torch.is_grad_enabled():
            return self._encode(tower, pixel_values)
        modules = (tower, self.multi_modal_projector)
        return self.feature_cache.get_or_compute(pixel_values, modules, lambda pixels: self._encode(tower, pixels))

    def _encode(self, tower: LlavaHoundTower, pixel_values: torch.Tensor) -> torch.Tensor:
        trained = any(parameter.requires_grad for parameter in tower.parameters())
        with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
            features = tower.features(pixel_values, self.config.mm_vision_select_layer)
        weight = next(self.multi_modal_projector.parameters())
        if weight.is_floating_point():  # a quantised projector casts for itself
            features = features.to(weight.dtype)
        return self.multi_modal_projector(features)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values_images: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        image_index: torch.Tensor | None = None,
        video_index: torch.Tensor | None = None,
        use_cache: bool | None = None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> Any:
        """Merge text and media, then run the language model. See :class:`LlavaHoundForConditionalGeneration`."""
        cache = past_key_values if cache is None else cache
        if inputs_embeds is None:
            inputs_embeds = self._merge(
                input_ids, (pixel_values_images, image_index), (pixel_values_videos, video_index), cache
            )
        if position_ids is None and attention_mask is not None and attention_mask.dim() == 2:
            positions = (attention_mask != 0).long().cumsum(-1) - 1
            position_ids = positions.clamp(min=0)[:, -inputs_embeds.shape[1] :]
        return self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=use_cache,
            **{CACHE_FIELD: cache},
            **kwargs,
        )

    def _merge(
        self,
        input_ids: torch.Tensor | None,
        images: tuple[torch.Tensor | None, torch.Tensor | None],
        videos: tuple[torch.Tensor | None, torch.Tensor | None],
        cache: Cache | None,
    ) -> torch.Tensor:
        """Embed ``input_ids`` [B, S] and put features in the places of the placeholders: ``[B, S, hidden]``."""
        if input_ids is None:
            raise PlaceholderError("Expected either input_ids or inputs_embeds, got neither.")
        image_places = input_ids == self.config.image_token_id
        video_places = input_ids == self.config.video_token_id
        text_ids = input_ids.masked_fill(image_places | video_places, 0)  # these ids have no row in the embedding
        embeds = self.get_input_embeddings()(text_ids)
        prefill = cache is None or cache.get_seq_length() == 0
        for tower, places, (pixels, index), name in (
            (self.image_tower, image_places, images, "image"),
            (self.video_tower, video_places, videos, "video"),
        ):
            if pixels is None:
                if prefill:
                    embeds = self._without(tower, embeds)
                    _check_count(name, places, 0)
                continue
            features = self._features(tower, pixels)
            if index is not None:
                features = features.index_select(0, index.to(features.device))
            _check_count(name, places, features.shape[0] * features.shape[1])
            embeds = embeds.masked_scatter(places.unsqueeze(-1), features.to(embeds.device, embeds.dtype))
        return embeds

    def _without(self, tower: LlavaHoundTower, embeds: torch.Tensor) -> torch.Tensor:
        """Keep the ranks of a distributed run in step when this one has no media of a kind.

        Sharded parameters (ZeRO-3, FSDP) are gathered by all ranks together, and DDP waits for a gradient of every
        trained parameter; so the tower and the projector run on one black item, times zero.
        """
        sharded = is_deepspeed_zero3_enabled() or is_fsdp_enabled()
        trained = self.training and torch.is_grad_enabled() and torch.distributed.is_initialized()
        modules = (tower, self.multi_modal_projector)
        waits = trained and any(p.requires_grad for module in modules for p in module.parameters())
        if not (sharded or waits):
            return embeds
        config = tower.config
        frames = (config.num_frames,) if config.add_time_attn else ()
        shape = (1, *frames, config.num_channels, config.image_size, config.image_size)
        features = self._features(tower, torch.zeros(shape, device=embeds.device, dtype=embeds.dtype))
        return embeds + 0.0 * features.sum().to(embeds.device, embeds.dtype)


def _check_count(name: str, places: torch.Tensor, features: int) -> None:
    """Raise unless there are as many placeholders as feature vectors."""
    count = int(places.sum())
    if count != features:
        raise PlaceholderError(
            f"The input has {count} <{name}> placeholder tokens, but the {name}s give {features} feature vectors. "
            "Each clip or image needs exactly one placeholder in the text, and no truncation may cut it "
            "(raise `cutoff_len`)."
        )


class LlavaHoundForConditionalGeneration(LlavaHoundPreTrainedModel, GenerationMixin):
    """LLaVA-Hound with its language-modelling head (arXiv 2404.01258).

    >>> model = LlavaHoundForConditionalGeneration.from_pretrained("demo/model")  # doctest: +SKIP
    >>> model.generate(**processor(text="USER: <video>\\nWhat moves? ASSISTANT:", videos="clip.mp4"))  # doctest: +SKIP
    """

    _tied_weights_keys = {"lm_head.weight": "model.language_model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: LlavaHoundConfig) -> None:
        super().__init__(config)
        self.model = LlavaHoundModel(config)
        self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The language model's embedding."""
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the language model's embedding."""
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """The language-modelling head."""
        return self.lm_head

    def get_image_features(self, pixel_values_images: torch.Tensor) -> torch.Tensor:
        """Projected features of images: ``[N, 3, H, W] -> [N, tokens, hidden]`` (256 tokens at full size)."""
        return self.model.get_image_features(pixel_values_images)

    def get_video_features(self, pixel_values_videos: torch.Tensor) -> torch.Tensor:
        """Projected features of clips: ``[N, T, 3, H, W] -> [N, tokens, hidden]`` (2048 tokens at full size)."""
        return self.model.get_video_features(pixel_values_videos)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values_images: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        image_index: torch.Tensor | None = None,
        video_index: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        return_dict: bool | None = None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> LlavaHoundOutput | tuple[Any, ...]:
        """Run the model.

        Args:
            input_ids: ``[B, S]``; ``image_token_id`` / ``video_token_id`` once for every visual token. Rows with
                clips, with images and with text alone may be mixed.
            pixel_values_images: ``[N, 3, H, W]``, normalised; consumed in the order of the placeholders.
            pixel_values_videos: ``[N, T, 3, H, W]``, normalised (time before channels); likewise.
            attention_mask: ``[B, S]``; padding on either side. A 4D mask needs ``position_ids`` with it.
            labels: ``[B, S]`` with -100 where nothing is learnt (all placeholders). The loss is the mean over all
                labelled tokens of the batch, as in the original; 0 if there are none.
            image_index, video_index: ``[M]``, which item each occurrence in the text shows, when several rows show the
                same one (chosen and rejected answers): each item is encoded once. None: one after the other.
            logits_to_keep: only the last so many positions, or these positions; 0: all.
            past_key_values, cache: keys and values of earlier positions, under either of the names that releases of
                transformers have for them.

        Raises:
            PlaceholderError: placeholders and features differ in number.
            MediaError: pixel values of the wrong shape.
        """
        outputs = self.model(
            input_ids=input_ids,
            pixel_values_images=pixel_values_images,
            pixel_values_videos=pixel_values_videos,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=past_key_values if cache is None else cache,
            inputs_embeds=inputs_embeds,
            image_index=image_index,
            video_index=video_index,
            use_cache=use_cache,
            **{key: value for key, value in kwargs.items() if key != "num_items_in_batch"},
        )
        hidden = outputs.last_hidden_state
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(hidden[:, kept, :])
        loss = None
        if labels is not None:
            labels = labels.masked_fill(labels >= self.config.text_config.vocab_size, -100)  # placeholders
            if bool((labels[..., 1:] != -100).any()):
                loss = self.loss_function(
                    logits=logits,
                    labels=labels,
                    vocab_size=self.config.text_config.vocab_size,
                    num_items_in_batch=kwargs.get("num_items_in_batch"),
                )
            else:  # the mean over nothing would be NaN and poison the step
                loss = logits.float().sum() * 0.0
        output = LlavaHoundOutput(
            loss=loss,
            logits=logits,
            last_hidden_state=hidden,
            hidden_states=outputs.get("hidden_states"),
            attentions=outputs.get("attentions"),
            **{CACHE_FIELD: cache_of(outputs)},
        )
        return output.to_tuple() if return_dict is False else output

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.Tensor,
        pixel_values_images: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        image_index: torch.Tensor | None = None,
        video_index: torch.Tensor | None = None,
        is_first_iteration: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Give the media to the prefill only; later steps find them in the cache."""
        inputs = super().prepare_inputs_for_generation(input_ids, is_first_iteration=is_first_iteration, **kwargs)
        if is_first_iteration or not kwargs.get("use_cache", True):
            inputs.update(
                pixel_values_images=pixel_values_images,
                pixel_values_videos=pixel_values_videos,
                image_index=image_index,
                video_index=video_index,
            )
        return inputs

    def _expand_inputs_for_generation(  # theirs is static, and repeats the pixels
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor | None, dict[str, Any]]:
        """Repeat rows for several samples or beams, not their clips: each is decoded and encoded once."""
        media: dict[str, torch.Tensor] = {}
        if expand_size > 1 and input_ids is not None:
            for kind, token, tokens in (
                ("image", self.config.image_token_id, lambda _: self.config.tokens_per_image),
                ("video", self.config.video_token_id, lambda pixels: self.config.tokens_per_video(pixels.shape[1])),
            ):
                pixels = kwargs.pop(f"pixel_values_{kind}s", None)
                index = kwargs.pop(f"{kind}_index", None)
                if pixels is None:
                    continue
                per_row = ((input_ids == token).sum(-1) // tokens(pixels)).tolist()
                index = torch.arange(sum(per_row), device=input_ids.device) if index is None else index
                rows = index.split(per_row)
                media[f"pixel_values_{kind}s"] = pixels
                media[f"{kind}_index"] = torch.cat([row for row in rows for _ in range(expand_size)])
        input_ids, kwargs = super()._expand_inputs_for_generation(expand_size, is_encoder_decoder, input_ids, **kwargs)
        return input_ids, {**kwargs, **media}

    def _get_logits_processor(self, *args: Any, **kwargs: Any) -> LogitsProcessorList:
        """Hide the placeholder ids from processors that index the scores with the prompt (repetition penalty)."""
        return _WithoutPlaceholders(super()._get_logits_processor(*args, **kwargs), self.config.text_config.vocab_size)


class _WithoutPlaceholders(LogitsProcessorList):
    """A processor list that sees id 0 in place of ids above the vocabulary."""

    def __init__(self, processors: LogitsProcessorList, vocab_size: int) -> None:
        super().__init__(processors)
        self._vocab_size = vocab_size

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """Process ``scores`` [B, vocab] for ``input_ids`` [B, S]."""
        return super().__call__(input_ids.masked_fill(input_ids >= self._vocab_size, 0), scores, **kwargs)


AutoModel.register(LlavaHoundConfig, LlavaHoundModel, exist_ok=True)
AutoModel.register(LlavaHoundTowerConfig, LlavaHoundTower, exist_ok=True)
AutoModelForImageTextToText.register(LlavaHoundConfig, LlavaHoundForConditionalGeneration, exist_ok=True)
