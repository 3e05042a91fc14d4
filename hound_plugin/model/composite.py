"""LLaVA-Hound without its head: image tower, video tower, shared projector and a causal language model.

A text holds one ``image_token_id`` / ``video_token_id`` for every visual token; :class:`LlavaHoundModel` puts the
projected features in their places. The ids lie above the vocabulary and never reach the embedding. Positions are a
plain count over all attended tokens, as in the original (``llava_arch.py``, ``prepare_inputs_labels_for_multimodal``).

Shapes: N media items, B rows, S text length with placeholders, T frames, H hidden size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import AutoModel, Cache
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.modeling_utils import is_fsdp_enabled

from hound_plugin.errors import PlaceholderError
from hound_plugin.model.configuration import LlavaHoundConfig
from hound_plugin.model.feature_cache import FeatureCache
from hound_plugin.model.media_features import TowerRuns, check_count, is_encoded
from hound_plugin.model.pretrained import LlavaHoundPreTrainedModel
from hound_plugin.model.projector import build_projector
from hound_plugin.model.releases import CACHE_FIELD
from hound_plugin.model.shared_attention import allow_shared_prompts, shared_prompt_inputs
from hound_plugin.model.vision import LlavaHoundTower

# The first cosine of a process (the rotary embedding's) was seen to be off by 1.5e-4 in one process of 20, and the
# first loss with it, on CPU with torch 2.11 and several threads; presumably MKL's vector functions, which are set up on
# their first call. One element is computed by one thread, so that the set-up has no rival.
torch.cos(torch.ones(1))


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
        self.takes_features = False  # set where batches bring what the towers made of their media
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
        """Projected features of images: ``[N, 3, H, W]`` or :meth:`encode`'s to ``[N, tokens, hidden]``."""
        return self._features(self.image_tower, pixel_values_images)

    def get_video_features(self, pixel_values_videos: torch.Tensor) -> torch.Tensor:
        """Projected features of clips: ``[N, T, 3, H, W]`` or :meth:`encode`'s to ``[N, T * tokens, hidden]``."""
        return self._features(self.video_tower, pixel_values_videos)

    def _features(self, tower: LlavaHoundTower, pixel_values: torch.Tensor) -> torch.Tensor:
        if self.feature_cache is None or self.training or torch.is_grad_enabled() or is_encoded(pixel_values):
            return self._project(self._run_tower(tower, pixel_values))
        modules = (tower, self.multi_modal_projector)
        return self.feature_cache.get_or_compute(
            pixel_values, modules, lambda pixels: self._project(self._run_tower(tower, pixels))
        )

    @torch.no_grad()
    def encode(self, images: torch.Tensor | None, videos: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """What the towers make of media, before the projector, item by item: it does not depend on the batch.

        Args:
            images, videos: pixels, as for :meth:`forward`.

        Returns:
            ``image`` and ``video``, where there are any: ``[N, tokens, channels]``, which :meth:`forward` takes for
            ``pixel_values_images`` and ``pixel_values_videos``.
        """
        given = {"image": (self.image_tower, images), "video": (self.video_tower, videos)}
        return {
            kind: torch.cat([self._run_tower(tower, item) for item in pixels.split(1)])
            for kind, (tower, pixels) in given.items()
            if pixels is not None
        }

    def _run_tower(self, tower: LlavaHoundTower, pixel_values: torch.Tensor) -> torch.Tensor:
        """What the language model sees of a tower, before the projector: ``[N, tokens, channels]``."""
        if is_encoded(pixel_values):
            return pixel_values
        trained = any(parameter.requires_grad for parameter in tower.parameters())
        with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
            return tower.features(pixel_values, self.config.mm_vision_select_layer)

    def _project(self, features: torch.Tensor) -> torch.Tensor:
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
        segment_ids: torch.Tensor | None = None,
        prompt_width: int | None = None,
        towers: TowerRuns | None = None,
        **kwargs: Any,
    ) -> Any:
        """Merge text and media, then run the language model. See :class:`LlavaHoundForConditionalGeneration`."""
        cache = past_key_values if cache is None else cache
        if inputs_embeds is None:
            inputs_embeds = self._merge(
                input_ids,
                (pixel_values_images, image_index),
                (pixel_values_videos, video_index),
                cache,
                towers or TowerRuns(),
            )
        if segment_ids is not None and prompt_width is not None:
            allow_shared_prompts(self.language_model)
            shared = shared_prompt_inputs(self.language_model, segment_ids, prompt_width)
            attention_mask = shared.pop("attention_mask")
            kwargs.update(shared)
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
        towers: TowerRuns,
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
            if pixels is None and name not in towers.features:
                if prefill:
                    embeds = self._without(tower, embeds, towers)
                    check_count(name, places, 0)
                continue
            if towers.given:
                features = self._project(towers.features[name])
            elif towers.kept and pixels is not None:
                towers.features[name] = self._run_tower(tower, pixels)
                features = self._project(towers.features[name])
            else:
                features = self._features(tower, pixels)  # type: ignore[arg-type]  # looked at above
            if index is not None:
                features = features.index_select(0, index.to(features.device))
            check_count(name, places, features.shape[0] * features.shape[1])
            embeds = embeds.masked_scatter(places.unsqueeze(-1), features.to(embeds.device, embeds.dtype))
        return embeds

    def _without(self, tower: LlavaHoundTower, embeds: torch.Tensor, towers: TowerRuns) -> torch.Tensor:
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
        if towers.given or self.takes_features:  # no rank runs a tower
            black = torch.zeros((1, 1, config.hidden_size), device=embeds.device, dtype=embeds.dtype)
            features = self._project(black)
        else:
            frames = (config.num_frames,) if config.add_time_attn else ()
            shape = (1, *frames, config.num_channels, config.image_size, config.image_size)
            features = self._features(tower, torch.zeros(shape, device=embeds.device, dtype=embeds.dtype))
        return embeds + 0.0 * features.sum().to(embeds.device, embeds.dtype)
