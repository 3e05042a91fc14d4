"""LLaVA-Hound: image tower, video tower, shared projector and a causal language model.

A text holds one ``image_token_id`` / ``video_token_id`` for every visual token; :class:`LlavaHoundModel` puts the
projected features in their places. The ids lie above the vocabulary and never reach the embedding. Positions are a
plain count over all attended tokens, as in the original (``llava_arch.py``, ``prepare_inputs_labels_for_multimodal``).

Shapes: N media items, B rows, S text length with placeholders, T frames, H hidden size.
"""

from __future__ import annotations

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
)
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import is_fsdp_enabled

from hound_plugin.errors import PlaceholderError
from hound_plugin.model.answer_head import answers_loss, log_probs_of, mean_loss
from hound_plugin.model.configuration import LlavaHoundConfig, LlavaHoundTowerConfig
from hound_plugin.model.feature_cache import FeatureCache
from hound_plugin.model.generation import PlaceholdersHidden
from hound_plugin.model.labels import IGNORED_LABEL, is_learnt
from hound_plugin.model.media_features import TowerRuns, check_count, is_encoded
from hound_plugin.model.pretrained import LlavaHoundPreTrainedModel
from hound_plugin.model.projector import build_projector
from hound_plugin.model.releases import CACHE_FIELD, cache_of
from hound_plugin.model.shared_attention import allow_shared_prompts, shared_prompt_inputs
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
        log_probs: ``[T]``, of the tokens of ``answers``, in float32; there are no logits then.
        mean_logits: ``[2]``, with ``answers`` that ask for them.
        tower_features: ``image`` and ``video``: what the towers made of the media, for another model that shares them.
    """

    last_hidden_state: torch.Tensor | None = None
    log_probs: torch.Tensor | None = None
    mean_logits: torch.Tensor | None = None
    tower_features: dict[str, torch.Tensor] | None = None


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
        answers: dict[str, torch.Tensor] | None = None,
        segment_ids: torch.Tensor | None = None,
        prompt_width: int | None = None,
        tower_features: dict[str, torch.Tensor] | None = None,
        keep_tower_features: bool = False,
        answers_only: bool = False,
        encode_only: bool = False,
        **kwargs: Any,
    ) -> LlavaHoundOutput | tuple[Any, ...]:
        """Run the model.

        Args:
            input_ids: ``[B, S]``; ``image_token_id`` / ``video_token_id`` once for every visual token. Rows with
                clips, with images and with text alone may be mixed.
            pixel_values_images: ``[N, 3, H, W]``, normalised; consumed in the order of the placeholders.
            pixel_values_videos: ``[N, T, 3, H, W]``, normalised (time before channels); likewise. Both may also be
                what the towers made of them earlier, ``[N, tokens, channels]``.
            attention_mask: ``[B, S]``; padding on either side. A 4D mask needs ``position_ids`` with it.
            labels: ``[B, S]`` with -100 where nothing is learnt (all placeholders). The loss is the mean over all
                labelled tokens of the batch, as in the original; 0 if there are none.
            image_index, video_index: ``[M]``, which item each occurrence in the text shows, when several rows show the
                same one (chosen and rejected answers): each item is encoded once. None: one after the other.
            logits_to_keep: only this many last positions, or these positions; 0: all.
            answers_only: with ``labels`` or ``answers``, the loss from labelled positions; there are no logits.
            past_key_values, cache: keys and values of earlier positions, under either of the names that releases of
                transformers have for them.
            answers: ``positions``, ``tokens`` and perhaps ``averages``: log-probabilities of these tokens instead of
                logits; see :func:`hound_plugin.model.answer_head.log_probs_of`.
            segment_ids, prompt_width: of rows that share prompts, with their ``position_ids``; see
                :class:`hound_plugin.model.packed_rows.PackedRows`.
            tower_features: of the same media from an earlier call with ``keep_tower_features``, by a model whose towers
                are the same; no tower runs.
            keep_tower_features: keep them in the output.
            encode_only: run nothing but the towers; ``tower_features`` is all that the output has.

        Raises:
            PlaceholderError: placeholders and features differ in number.
            MediaError: pixel values of the wrong shape.
        """
        if encode_only:
            return LlavaHoundOutput(tower_features=self.model.encode(pixel_values_images, pixel_values_videos))
        items = kwargs.pop("num_items_in_batch", None)
        towers = TowerRuns(dict(tower_features or {}), tower_features is not None, keep_tower_features)
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
            segment_ids=segment_ids,
            prompt_width=prompt_width,
            towers=towers,
            **kwargs,
        )
        hidden = outputs.last_hidden_state
        if answers is not None:
            log_probs, means = log_probs_of(self.lm_head, hidden, answers)
            return LlavaHoundOutput(
                loss=mean_loss(log_probs, items) if answers_only else None,
                log_probs=log_probs,
                mean_logits=means,
                tower_features=towers.for_others(),
            )
        if answers_only and labels is not None:
            vocab_size = self.config.text_config.vocab_size
            return LlavaHoundOutput(loss=answers_loss(self.lm_head, hidden, labels, vocab_size, items))
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(hidden[:, kept, :])
        loss = None if labels is None else self._loss(logits, labels, items)
        output = LlavaHoundOutput(
            loss=loss,
            logits=logits,
            last_hidden_state=hidden,
            hidden_states=outputs.get("hidden_states"),
            attentions=outputs.get("attentions"),
            **{CACHE_FIELD: cache_of(outputs)},
        )
        return output.to_tuple() if return_dict is False else output

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor, items: Any) -> torch.Tensor:
        vocab_size = self.config.text_config.vocab_size
        labels = labels.masked_fill(labels >= vocab_size, IGNORED_LABEL)  # placeholders
        if not bool(is_learnt(labels).any()):  # the mean over nothing would be NaN and poison the step
            return logits.float().sum() * 0.0
        return self.loss_function(logits=logits, labels=labels, vocab_size=vocab_size, num_items_in_batch=items)

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
                each = pixels.shape[1] if is_encoded(pixels) else tokens(pixels)
                per_row = ((input_ids == token).sum(-1) // each).tolist()
                index = torch.arange(sum(per_row), device=input_ids.device) if index is None else index
                rows = index.split(per_row)
                media[f"pixel_values_{kind}s"] = pixels
                media[f"{kind}_index"] = torch.cat([row for row in rows for _ in range(expand_size)])
        input_ids, kwargs = super()._expand_inputs_for_generation(expand_size, is_encoder_decoder, input_ids, **kwargs)
        return input_ids, {**kwargs, **media}

    def _get_logits_processor(self, *args: Any, **kwargs: Any) -> LogitsProcessorList:
        """Hide the placeholder ids from processors that index the scores with the prompt (repetition penalty)."""
        return PlaceholdersHidden(super()._get_logits_processor(*args, **kwargs), self.config.text_config.vocab_size)


AutoModel.register(LlavaHoundConfig, LlavaHoundModel, exist_ok=True)
AutoModel.register(LlavaHoundTowerConfig, LlavaHoundTower, exist_ok=True)
AutoModelForImageTextToText.register(LlavaHoundConfig, LlavaHoundForConditionalGeneration, exist_ok=True)
