"""Asking a model about a clip, in Python."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import AutoConfig, StoppingCriteriaList

from hound_plugin.errors import CheckpointError, PlaceholderError, SettingsError, damage_named
from hound_plugin.media.pixel_cache import PixelCache
from hound_plugin.model.adapter_weights import applied_whole, check_fits
from hound_plugin.model.adapters import chain_of, is_adapter
from hound_plugin.model.checkpoint_files import check_files
from hound_plugin.model.completeness import check_finite
from hound_plugin.model.configuration import LlavaHoundConfig
from hound_plugin.model.feature_cache import FeatureCache
from hound_plugin.model.generation import (
    GeneratedAnswer,
    cut_roles,
    new_tokens,
    refuse_overlong,
    stop_criteria,
    stream_text,
    wants_sampling,
)
from hound_plugin.model.labels import IGNORED_LABEL
from hound_plugin.model.modeling import LlavaHoundForConditionalGeneration
from hound_plugin.processing.processor import LlavaHoundProcessor
from hound_plugin.processing.prompt import (
    IMAGE_TOKEN,
    PLACEHOLDER,
    VIDEO_TOKEN,
    Turn,
    encode_conversation,
    medium_of,
    with_placeholder,
)
from hound_plugin.records.placeholders import token_of

History = Sequence[tuple[str, str]]
CAPTION_QUESTION = (
    "Describe in detail what can be seen, from the beginning to the end: the setting, everyone and everything in it, "
    "and each action in its order."
)
NEW_TOKENS = 512


def load(
    model: str,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype = "auto",
    memory: bool = True,
) -> HoundModel:
    """Load a checkpoint of either layout for asking questions.

    Args:
        model: a folder or a hub id; or a folder of a LoRA adapter, which is merged into the model that it was trained
            on.
        device: where it runs; the first GPU if there is one, else the CPU.
        dtype: "auto" takes the checkpoint's own.
        memory: keep the last clips, so that the next question about one neither decodes nor encodes it again (at most
            256 MiB of pixels, and 512 MiB of features on the device; about 16 MiB a clip at full size).

    Raises:
        CheckpointError: it is of another architecture, or incomplete, or has weights that are not finite.
    """
    if is_adapter(model):
        return _load_adapter(model, device, dtype, memory)
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        with damage_named(model, "config.json"):
            config = AutoConfig.from_pretrained(model, trust_remote_code=False)
    except OSError as error:
        raise CheckpointError(f"Expected a checkpoint folder or a hub id, got {model!r}: {error}") from error
    if not isinstance(config, LlavaHoundConfig):
        raise CheckpointError(f"Expected a LLaVA-Hound checkpoint in {model}, found model_type {config.model_type!r}.")
    if os.path.isdir(model):
        check_files(model)
    processor = LlavaHoundProcessor.from_pretrained(model)
    network = LlavaHoundForConditionalGeneration.from_pretrained(model, dtype=dtype)
    if memory:
        processor.pixel_cache = PixelCache()
        network.model.feature_cache = FeatureCache()
    return HoundModel(network.to(place).eval(), processor)


def _load_adapter(
    adapter: str, device: str | torch.device | None, dtype: str | torch.dtype, memory: bool
) -> HoundModel:
    """The model that an adapter was trained on, with the adapter merged into it."""
    from peft import PeftModel

    base, adapters = chain_of(adapter)
    hound = load(base, device, dtype, memory)
    for folder in adapters:
        with damage_named(folder, "adapter"), applied_whole([folder]):
            check_fits(folder, hound.model)
            hound.model = PeftModel.from_pretrained(hound.model, folder).merge_and_unload().eval()
        check_finite(hound.model.named_parameters(), f"the adapter {folder}")
        hound.processor.take_settings_of(folder)
    return hound


class HoundModel:
    """A loaded model with its processor.

    Attributes:
        model: the network.
        processor: text and media to inputs; its ``num_frames``, ``decoder`` ... may be changed.
    """

    def __init__(self, model: LlavaHoundForConditionalGeneration, processor: LlavaHoundProcessor) -> None:
        self.model = model
        self.processor = processor

    def chat(
        self,
        question: str,
        video: Any = None,
        image: Any = None,
        history: History | None = None,
        **generation: Any,
    ) -> str:
        """Answer one question.

        Args:
            question: the text; a placeholder in it is moved to the front, and none is needed.
            video: a clip (file, part of a file as ``clip.mp4#t=5,10``, folder of frames, list of frames, array) of the
                whole conversation, or None.
            image: an image, or None. Only one of both.
            history: earlier ``(question, answer)`` pairs of the conversation.
            generation: for ``model.generate``; ``temperature`` below 0.01 means greedy; default 512 new tokens, fewer
                where the context leaves fewer.

        Returns:
            The answer up to ``</s>`` or a role's name, without special tokens and surrounding white space.

        Raises:
            MediaError: the clip or image cannot be used.
            PlaceholderError: a placeholder without a clip or image.
            SettingsError: question, history or generation settings are not what they must be.
            ContextLengthError: the conversation leaves no room for an answer.
        """
        inputs = self._inputs(question, video, image, history)
        prompt = inputs["input_ids"].shape[1]
        output = self.model.generate(**inputs, **self._generation(generation, prompt))
        return self._texts(output[:, prompt:])[0][1]

    def caption(self, video: Any = None, image: Any = None, question: str = CAPTION_QUESTION, **generation: Any) -> str:
        """A detailed description of a clip or an image.

        Args:
            video, image: as for :meth:`chat`; one of both.
            question: what the model is asked.
            generation: as for :meth:`chat`; greedy if neither ``temperature`` nor ``do_sample`` is given.

        Raises:
            SettingsError: neither a clip nor an image was given, or both.
            MediaError: it cannot be used.
        """
        if video is None and image is None:
            raise SettingsError("Expected a video or an image to describe, got neither.")
        if not {"temperature", "do_sample"} & set(generation):
            generation["do_sample"] = False
        return self.chat(question, video, image, **generation)

    def stream(
        self,
        question: str,
        video: Any = None,
        image: Any = None,
        history: History | None = None,
        **generation: Any,
    ) -> Iterator[str]:
        """As :meth:`chat`, piece by piece while it is generated."""
        inputs = self._inputs(question, video, image, history)
        chosen = self._generation(generation, inputs["input_ids"].shape[1])
        return stream_text(self.model.generate, {**inputs, **chosen}, self.processor.tokenizer)

    @torch.inference_mode()
    def chat_many(self, questions: Sequence[str], videos: Sequence[Any] | None = None, **generation: Any) -> list[str]:
        """Answer one question each about several clips or images, in one batch.

        Args:
            questions: texts, as for :meth:`chat`.
            videos: for each question its clip, or None; the same path twice is read and encoded once. A path that
                ends like an image, and a PIL image, is shown as an image.
                Without it no question has one.
            generation: as for :meth:`chat`.

        Returns:
            The answers, in order.

        Raises:
            As :meth:`answer_many`.
        """
        return [answer.text for answer in self.answer_many(questions, videos, **generation)]

    @torch.inference_mode()
    def answer_many(
        self, questions: Sequence[str], videos: Sequence[Any] | None = None, **generation: Any
    ) -> list[GeneratedAnswer]:
        """As :meth:`chat_many`, and how each answer ended.

        Raises:
            SettingsError: there are not as many clips as questions, or a question is not text.
            MediaError: a clip or image cannot be used.
            ContextLengthError: the longest question leaves no room for an answer.
        """
        clips = [None] * len(questions) if videos is None else videos
        if isinstance(questions, str) or isinstance(clips, str) or len(questions) != len(clips):
            raise SettingsError(
                f"Expected a list of questions and one of as many clips (None for a question without), got "
                f"{_count(questions)} and {_count(clips)}."
            )
        if not questions:
            return []
        batch = self.batch(
            [(_checked_question(question), "", clip) for question, clip in zip(questions, clips, strict=True)], "left"
        )
        batch.pop("labels")
        prompt = batch["input_ids"].shape[1]
        chosen = self._generation(generation, prompt)
        output = self.model.generate(**batch, **chosen)
        return self._finished(output[:, prompt:], chosen)

    @torch.inference_mode()
    def log_probs(self, items: Sequence[tuple[str, str, Any]]) -> torch.Tensor:
        """Log-probability of given answers: the sum over their tokens, ``</s>`` included.

        Args:
            items: ``(question, answer, clip)``.

        Returns:
            float32 ``[len(items)]`` on the CPU.
        """
        batch = self.batch(items, "right")
        new_tokens(self.model.config, batch["input_ids"].shape[1], at_least=0)
        labels = batch.pop("labels")[:, 1:]
        logits = self.model(**batch).logits[:, :-1].float()
        chosen = logits.log_softmax(-1).gather(2, labels.clamp(min=0).unsqueeze(2)).squeeze(2)
        return (chosen * (labels != IGNORED_LABEL)).sum(-1).cpu()

    def batch(self, items: Sequence[tuple[str, str, Any]], side: str) -> dict[str, torch.Tensor]:
        """Padded inputs and labels for ``(question, answer, clip)`` rows; equal clips are read once."""
        rows, places = [], {}
        media: dict[str, list[torch.Tensor]] = {"image": [], "video": []}
        index: dict[str, list[int]] = {"image": [], "video": []}
        for question, answer, clip in items:
            kind = medium_of(clip)
            tokens = self.processor.tokens_per_image if kind == "image" else self.processor.tokens_per_video
            refuse_overlong(self.model.config, self.processor.tokenizer, [with_placeholder(question, ""), answer])
            text = with_placeholder(question, "" if clip is None else token_of(kind), tokens)
            if clip is not None:
                key = clip if isinstance(clip, str) else id(clip)
                if key not in places:
                    places[key] = len(media[kind])
                    read = self.processor.read_image if kind == "image" else self.processor.read_video
                    media[kind].append(read(clip))
                index[kind].append(places[key])
            rows.append(encode_conversation(self.processor.tokenizer, [Turn(text, answer)], self.processor.system)[0])
        longest = max(len(source) + len(target) for source, target in rows)
        padded: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "labels": []}
        for source, target in rows:
            gap = longest - len(source) - len(target)
            for name, row, filler in (
                ("input_ids", source + target, 0),
                ("attention_mask", [1] * (len(source) + len(target)), 0),
                ("labels", [IGNORED_LABEL] * len(source) + target, IGNORED_LABEL),
            ):
                padded[name].append([filler] * gap + row if side == "left" else row + [filler] * gap)
        batch = {name: torch.tensor(value, device=self.model.device) for name, value in padded.items()}
        for kind, tensors in media.items():
            if tensors:
                batch[f"pixel_values_{kind}s"] = torch.stack(tensors).to(self.model.device, self.model.dtype)
                batch[f"{kind}_index"] = torch.tensor(index[kind], device=self.model.device)
        return batch

    def _texts(self, output: torch.Tensor) -> list[tuple[str, str]]:
        """What was generated, and the answer in it, of each row of ``[B, new tokens]``."""
        texts = self.processor.batch_decode(output, skip_special_tokens=True)
        return [(text, cut_roles(text).strip()) for text in texts]

    def _finished(self, output: torch.Tensor, generation: dict[str, Any]) -> list[GeneratedAnswer]:
        """Answers in ``[B, new tokens]``: one is cut if it has neither ``</s>`` nor a role's name up to the limit."""
        ends = torch.as_tensor(generation["eos_token_id"], device=output.device)
        is_full = output.shape[1] >= generation["max_new_tokens"]
        is_open = (is_full & ~torch.isin(output, ends).any(1)).tolist()
        return [
            GeneratedAnswer(answer, "length" if goes_on and cut_roles(text) == text else "stop")
            for goes_on, (text, answer) in zip(is_open, self._texts(output), strict=True)
        ]

    def _inputs(self, question: str, video: Any, image: Any, history: History | None) -> dict[str, torch.Tensor]:
        """Inputs of one conversation; whether it fits is known before a clip is opened."""
        if video is not None and image is not None:
            raise SettingsError("Expected a video or an image, got both. Ask about one at a time.")
        earlier = _checked_history(history)
        questions = [*[asked for asked, _ in earlier], _checked_question(question)]
        answers = [*[answer for _, answer in earlier], ""]
        token, tokens = "", 0
        if video is not None:
            token, tokens = VIDEO_TOKEN, self.processor.tokens_per_video
        elif image is not None:
            token, tokens = IMAGE_TOKEN, self.processor.tokens_per_image
        elif any(PLACEHOLDER.search(text) for text in questions):
            raise PlaceholderError("The question has a placeholder, but no video or image was given.")
        cleaned = [PLACEHOLDER.sub("", text).strip() if PLACEHOLDER.search(text) else text for text in questions]
        tokenizer, texts = self.processor.tokenizer, [*cleaned, *answers]
        refuse_overlong(self.model.config, tokenizer, texts, tokens, len(earlier))
        if token:
            cleaned[0] = f"{token * tokens}\n{cleaned[0]}"
        turns = [Turn(asked, answer) for asked, answer in zip(cleaned, answers, strict=True)]
        ids = [
            token_id
            for pair in encode_conversation(tokenizer, turns, self.processor.system)
            for side in pair
            for token_id in side
        ]
        new_tokens(self.model.config, len(ids))
        device = self.model.device
        inputs = {"input_ids": torch.tensor([ids], device=device)}
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        if video is not None:
            inputs["pixel_values_videos"] = self.processor.read_video(video)[None].to(device, self.model.dtype)
        elif image is not None:
            inputs["pixel_values_images"] = self.processor.read_image(image)[None].to(device, self.model.dtype)
        return inputs

    def _generation(self, given: dict[str, Any], prompt: int | None = None) -> dict[str, Any]:
        """Arguments for ``model.generate``, with the limits that a prompt of this many tokens sets."""
        chosen = {"max_new_tokens": NEW_TOKENS, **given}
        samples = wants_sampling(chosen.get("temperature"), chosen.get("do_sample"))
        if samples is False and chosen.pop("temperature", None) is not None:
            chosen.pop("top_p", None)
        if samples is not None:
            chosen["do_sample"] = samples
        tokenizer = self.processor.tokenizer
        chosen.setdefault("pad_token_id", tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0)
        chosen.setdefault("eos_token_id", tokenizer.eos_token_id)
        if prompt is not None:
            chosen["max_new_tokens"] = new_tokens(self.model.config, prompt, chosen["max_new_tokens"])
            criteria = [*chosen.get("stopping_criteria", ()), *stop_criteria(tokenizer, prompt)]
            chosen["stopping_criteria"] = StoppingCriteriaList(criteria)
        return chosen


def _checked_question(question: Any) -> str:
    if not isinstance(question, str):
        raise SettingsError(f"Expected a question as text, got {type(question).__name__}.")
    return question


def _checked_history(history: Any) -> list[tuple[str, str]]:
    """Pairs of texts; messages in OpenAI's form would be unpacked to their keys."""
    turns = list(history or ())
    for turn in turns:
        if not (isinstance(turn, tuple | list) and len(turn) == 2 and all(isinstance(text, str) for text in turn)):
            raise SettingsError(f"Expected `history` as (question, answer) pairs of texts, got {turn!r:.200}.")
    return turns


def _count(items: Sequence[Any]) -> str:
    return "a single text" if isinstance(items, str) else f"{len(items)}"
