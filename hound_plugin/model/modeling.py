"""LLaVA-Hound with its language-modelling head, as transformers and the host load it.

Shapes: N media items, B rows, S text length with placeholders, T frames, H hidden size.
"""

from __future__ import annotations

import functools
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
from transformers.generation.candidate_generator import PromptLookupCandidateGenerator
from transformers.modeling_outputs import CausalLMOutputWithPast

from hound_plugin.model.answer_head import answers_loss, log_probs_of, mean_loss
from hound_plugin.model.composite import LlavaHoundModel
from hound_plugin.model.configuration import LlavaHoundConfig, LlavaHoundTowerConfig
from hound_plugin.model.decoding_options import LookupInText, check_decoding
from hound_plugin.model.generation import PlaceholdersHidden
from hound_plugin.model.labels import IGNORED_LABEL, is_learnt
from hound_plugin.model.media_features import TowerRuns, is_encoded
from hound_plugin.model.pretrained import LlavaHoundPreTrainedModel
from hound_plugin.model.releases import CACHE_FIELD, cache_of
from hound_plugin.model.step_inputs import StepInputs
from hound_plugin.model.vision import LlavaHoundTower


@dataclass
class LlavaHoundOutput(CausalLMOutputWithPast):
    """Output of the composite: that of every causal language model, and its last hidden state.

    Attributes:
        loss: scalar mean cross entropy over labelled tokens, when labels are given.
        logits: ``[B, S, vocab]`` (or fewer positions with ``logits_to_keep``).
        last_hidden_state: ``[B, S, H]``.
        log_probs: ``[T]``, of the tokens of ``answers``, in float32; there are no logits then.
        mean_logits: ``[K]``, with ``answers`` that ask for them.
        tower_features: ``image`` and ``video``: what the towers made of the media, for another model that shares them.
    """

    last_hidden_state: torch.Tensor | None = None
    log_probs: torch.Tensor | None = None
    mean_logits: torch.Tensor | None = None
    tower_features: dict[str, torch.Tensor] | None = None


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
            pixel_values_videos: ``[N, T, 3, H, W]``, normalised (time before channels); likewise. Both may also be
                what the towers made of them earlier, ``[N, tokens, channels]``.
            attention_mask: ``[B, S]``; padding on either side. A 4D mask needs ``position_ids`` with it.
            labels: ``[B, S]`` with -100 where nothing is learnt (all placeholders). The loss is the mean over all
                labelled tokens of the batch, as in the original; 0 if there are none.
            image_index, video_index: ``[M]``, which item each occurrence in the text shows, when several rows show the
                same one (chosen and rejected answers): each item is encoded once. None: one after the other.
            logits_to_keep: only this many last positions, or these positions; 0: all.
            past_key_values, cache: keys and values of earlier positions, under either of the names that releases of
                transformers have for them.
            kwargs: what training steps say besides, see :class:`~hound_plugin.model.step_inputs.StepInputs`; the rest
                is for the language model.

        Raises:
            PlaceholderError: placeholders and features differ in number.
            MediaError: pixel values of the wrong shape.
        """
        step = StepInputs.taken_from(kwargs)
        if step.encode_only:
            return LlavaHoundOutput(tower_features=self.model.encode(pixel_values_images, pixel_values_videos))
        towers = TowerRuns(dict(step.tower_features or {}), step.tower_features is not None, step.keep_tower_features)
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
            segment_ids=step.segment_ids,
            prompt_width=step.prompt_width,
            towers=towers,
            **kwargs,
        )
        if step.answers is not None or (step.answers_only and labels is not None):
            return self._answered(outputs.last_hidden_state, labels, step, towers)
        return self._with_logits(outputs, labels, logits_to_keep, step, return_dict)

    def _answered(
        self, hidden: torch.Tensor, labels: torch.Tensor | None, step: StepInputs, towers: TowerRuns
    ) -> LlavaHoundOutput:
        """Log-probabilities of given tokens, or the loss of labelled ones: the head runs nowhere else."""
        if step.answers is None:
            assert labels is not None
            vocab_size = self.config.text_config.vocab_size
            loss = answers_loss(self.lm_head, hidden, labels, vocab_size, step.num_items_in_batch)
            return LlavaHoundOutput(loss=loss)
        log_probs, means = log_probs_of(self.lm_head, hidden, step.answers)
        return LlavaHoundOutput(
            loss=mean_loss(log_probs, step.num_items_in_batch) if step.answers_only else None,
            log_probs=log_probs,
            mean_logits=means,
            tower_features=towers.for_others(),
        )

    def _with_logits(
        self,
        outputs: Any,
        labels: torch.Tensor | None,
        logits_to_keep: int | torch.Tensor,
        step: StepInputs,
        return_dict: bool | None,
    ) -> LlavaHoundOutput | tuple[Any, ...]:
        """Logits at all positions or some of them, and the loss of labels."""
        hidden = outputs.last_hidden_state
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(hidden[:, kept, :])
        output = LlavaHoundOutput(
            loss=None if labels is None else self._loss(logits, labels, step.num_items_in_batch),
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

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """As in transformers.

        Raises:
            SettingsError: a way of decoding that does not work with clips, or that is code from the hub.
        """
        config = args[1] if len(args) > 1 else kwargs.get("generation_config")
        check_decoding(config or self.generation_config, kwargs, self.device)
        return super().generate(*args, **kwargs)

    def _get_candidate_generator(self, *args: Any, **kwargs: Any) -> Any:
        """Prompt lookup finds candidates in text alone."""
        generator = super()._get_candidate_generator(*args, **kwargs)
        if isinstance(generator, PromptLookupCandidateGenerator):
            return LookupInText(generator, self.config.text_config.vocab_size)
        return generator

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
        """Hide the placeholder ids from processors that index the scores with the prompt (repetition penalties)."""
        prompt = kwargs.get("encoder_input_ids")
        if torch.is_tensor(prompt) and not prompt.is_floating_point():
            kwargs["encoder_input_ids"] = prompt.masked_fill(prompt >= self.config.text_config.vocab_size, 0)
        return PlaceholdersHidden(super()._get_logits_processor(*args, **kwargs), self.config.text_config.vocab_size)


# whoever asks for its arguments gets those of transformers
functools.update_wrapper(LlavaHoundForConditionalGeneration.generate, GenerationMixin.generate, assigned=(), updated=())
AutoModel.register(LlavaHoundConfig, LlavaHoundModel, exist_ok=True)
AutoModel.register(LlavaHoundTowerConfig, LlavaHoundTower, exist_ok=True)
AutoModelForImageTextToText.register(LlavaHoundConfig, LlavaHoundForConditionalGeneration, exist_ok=True)
