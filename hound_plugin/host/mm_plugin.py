"""The multimodal plugin ``llava_hound``: this is the video collator.

Tokenising opens nothing: the number of visual tokens is arithmetic. When a batch is collated,
each distinct clip is decoded once, even if many rows name it; ``video_index`` tells the model which row shows which
clip, so that the tower encodes it once too.
"""

from __future__ import annotations

import os
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from llamafactory.data.mm_plugin import PLUGINS, BasePlugin, get_mm_plugin, register_mm_plugin

from hound_plugin.errors import DataError
from hound_plugin.host.models import TEMPLATE
from hound_plugin.host.tower_cache import ReadMedia, collated, read_media
from hound_plugin.processing.processor import LlavaHoundProcessor
from hound_plugin.processing.prompt import IMAGE_TOKEN, VIDEO_TOKEN, place_placeholders


@dataclass
class LlavaHoundPlugin(BasePlugin):
    """Placeholders, counts and tensors for the host's data pipeline and chat engine.

    ``image_token`` is None for the host's collator, which would otherwise put a white image into every batch without
    media; the model itself keeps distributed ranks in step.
    """

    def _validate_input(self, processor: Any, images: Any, videos: Any, audios: Any) -> None:
        if not isinstance(processor, LlavaHoundProcessor):
            raise DataError(
                "Expected the processor of a LLaVA-Hound model for the template `llava_hound`, found "
                f"{type(processor).__name__}. Use the template that belongs to the model, or check that "
                "`model_name_or_path` is a LLaVA-Hound checkpoint (`hound doctor` checks the rest)."
            )
        if audios:
            raise DataError("Expected no audio: LLaVA-Hound sees frames only. Remove the `audios` column.")

    def process_messages(
        self, messages: list[dict[str, str]], images: Any, videos: Any, audios: Any, processor: Any
    ) -> list[dict[str, str]]:
        """Bring placeholders to the front of their questions and repeat each once per visual token.

        Only questions hold placeholders; ``<video>`` in an answer is ordinary text, and so is ``<image>`` in a
        question of a conversation that has clips but no images (and the other way round).

        Raises:
            PlaceholderError: placeholders and media differ in number.
        """
        self._validate_input(processor, images, videos, audios)
        messages = deepcopy(messages)
        questions = [message for message in messages if message["role"] == "user"]
        placed = place_placeholders(
            [question["content"] for question in questions], {VIDEO_TOKEN: videos, IMAGE_TOKEN: images}
        )
        for question, text in zip(questions, placed, strict=True):
            question["content"] = processor.expanded(text)
        return messages

    def process_token_ids(
        self, input_ids: list[int], labels: Any, images: Any, videos: Any, audios: Any, tokenizer: Any, processor: Any
    ) -> tuple[list[int], Any]:
        """Nothing to do: the template has inserted the ids."""
        self._validate_input(processor, images, videos, audios)
        return input_ids, labels

    def get_mm_inputs(
        self,
        images: list[Any],
        videos: list[Any],
        audios: list[Any],
        imglens: list[int],
        vidlens: list[int],
        audlens: list[int],
        batch_ids: list[list[int]],
        processor: Any,
    ) -> dict[str, torch.Tensor]:
        """Tensors of a batch's media.

        Returns:
            ``pixel_values_videos`` ``[N, T, 3, H, W]`` and ``video_index`` ``[M]`` for M occurrences of N distinct
            clips, likewise ``pixel_values_images`` ``[N, 3, H, W]`` and ``image_index``; nothing for text alone. With
            a feature cache see :func:`hound_plugin.host.tower_cache.collated`.

        Raises:
            MediaError: a clip or an image cannot be used.
        """
        self._validate_input(processor, images, videos, audios)
        inputs: dict[str, torch.Tensor] = {}
        for kind, items in (("video", videos), ("image", images)):
            if items:
                inputs.update(collated(kind, *_distinct(processor, kind, items)))
        return inputs


def media_key(item: Any) -> Any:
    """A key that is equal for two items of a batch that are the same medium."""
    if isinstance(item, str | os.PathLike):
        return os.fspath(item)
    if isinstance(item, list) and all(isinstance(frame, str) for frame in item):
        return tuple(item)
    if isinstance(item, dict) and isinstance(item.get("path"), str) and item.get("bytes") is None:
        return item["path"]
    return id(item)


def _distinct(processor: Any, kind: str, items: list[Any]) -> tuple[list[ReadMedia], list[int]]:
    """Read each distinct item once, and say which of them each item is."""
    positions: dict[Any, int] = {}
    distinct: list[ReadMedia] = []
    index = []
    for item in items:
        key = media_key(item)
        if key not in positions:
            positions[key] = len(distinct)
            distinct.append(read_media(processor, kind, item))
        index.append(positions[key])
    return distinct, index


def is_ours(template: Any) -> bool:
    """Whether a template is ``llava_hound``."""
    return isinstance(getattr(template, "mm_plugin", None), LlavaHoundPlugin)


def get_plugin() -> BasePlugin:
    """The plugin object of the template."""
    register()
    return get_mm_plugin(TEMPLATE, image_token=None, video_token=None)


def register() -> None:
    """Add the plugin to the host, once."""
    if TEMPLATE not in PLUGINS:
        register_mm_plugin(TEMPLATE, LlavaHoundPlugin)
