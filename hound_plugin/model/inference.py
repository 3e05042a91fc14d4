"""Asking a model about a clip, in Python."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, TextIteratorStreamer

from hound_plugin.errors import HoundError, PlaceholderError, SettingsError
from hound_plugin.model.modeling import LlavaHoundForConditionalGeneration
from hound_plugin.processing.processor import LlavaHoundProcessor
from hound_plugin.processing.prompt import (
    IMAGE_TOKEN,
    PLACEHOLDER,
    VIDEO_TOKEN,
    Turn,
    encode_conversation,
)

History = Sequence[tuple[str, str]]


def load(model: str, device: str | torch.device | None = None, dtype: str | torch.dtype = "auto") -> HoundModel:
    """Load a checkpoint of either layout for asking questions.

    Args:
        model: a folder or a hub id.
        device: where it runs; the first GPU if there is one, else the CPU.
        dtype: "auto" takes the checkpoint's own.

    Raises:
        CheckpointError: it is of another architecture, or incomplete.
    """
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    processor = AutoProcessor.from_pretrained(model)
    network = AutoModelForImageTextToText.from_pretrained(model, dtype=dtype)
    if not isinstance(network, LlavaHoundForConditionalGeneration):
        raise HoundError(f"Expected a LLaVA-Hound checkpoint in {model}, found {type(network).__name__}.")
    return HoundModel(network.to(place).eval(), processor)


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
            video: a clip (file, folder of frames, list of frames, array) of the whole conversation, or None.
            image: an image, or None. Only one of both.
            history: earlier ``(question, answer)`` pairs of the conversation.
            generation: for ``model.generate``; ``temperature`` below 0.01 means greedy; default 512 new tokens.

        Returns:
            The answer, without special tokens and surrounding white space.

        Raises:
            MediaError: the clip or image cannot be used.
            PlaceholderError: a placeholder without a clip or image.
        """
        inputs = self._inputs(question, video, image, history)
        output = self.model.generate(**inputs, **self._generation(generation))
        return self.processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()

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
        streamer = TextIteratorStreamer(self.processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
        failure: list[BaseException] = []

        def run() -> None:
            try:
                self.model.generate(**inputs, **self._generation(generation), streamer=streamer)
            except BaseException as error:  # handed to the caller's thread below
                failure.append(error)
                streamer.end()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield from streamer
        thread.join()
        if failure:
            raise failure[0]

    def _inputs(self, question: str, video: Any, image: Any, history: History | None) -> dict[str, torch.Tensor]:
        if video is not None and image is not None:
            raise SettingsError("Expected a video or an image, got both. Ask about one at a time.")
        questions = [*[asked for asked, _ in history or ()], question]
        answers = [*[answer for _, answer in history or ()], ""]
        token, tokens, media = "", 0, {}
        if video is not None:
            token, tokens = VIDEO_TOKEN, self.processor.tokens_per_video
            media["pixel_values_videos"] = self.processor.read_video(video)[None]
        elif image is not None:
            token, tokens = IMAGE_TOKEN, self.processor.tokens_per_image
            media["pixel_values_images"] = self.processor.read_image(image)[None]
        elif any(PLACEHOLDER.search(text) for text in questions):
            raise PlaceholderError("The question has a placeholder, but no video or image was given.")
        cleaned = [PLACEHOLDER.sub("", text).strip() if PLACEHOLDER.search(text) else text for text in questions]
        if token:
            cleaned[0] = f"{token * tokens}\n{cleaned[0]}"
        turns = [Turn(asked, answer) for asked, answer in zip(cleaned, answers, strict=True)]
        ids = [token_id for pair in encode_conversation(self.processor.tokenizer, turns) for side in pair for token_id in side]
        device = self.model.device
        inputs = {name: value.to(device, self.model.dtype) for name, value in media.items()}
        inputs["input_ids"] = torch.tensor([ids], device=device)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        return inputs

    def _generation(self, given: dict[str, Any]) -> dict[str, Any]:
        chosen = {"max_new_tokens": 512, **given}
        temperature = chosen.get("temperature")
        if temperature is not None and temperature < 0.01:  # the original's rule
            chosen.pop("temperature")
            chosen.pop("top_p", None)
            chosen["do_sample"] = False
        elif temperature is not None:
            chosen.setdefault("do_sample", True)
        tokenizer = self.processor.tokenizer
        chosen.setdefault("pad_token_id", tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0)
        chosen.setdefault("eos_token_id", tokenizer.eos_token_id)
        return chosen
