"""The media of a call, in whatever nesting they come: one, a list, or a list for each text."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from hound_plugin.errors import PlaceholderError
from hound_plugin.records.media_paths import is_image_path


def as_images(images: Any) -> list[Any]:
    """Images in order, out of lists in lists and batches ``[N, H, W, 3]``."""
    if images is None:
        return []
    if isinstance(images, list | tuple):
        return [image for item in images for image in as_images(item)]
    return list(images) if _dimensions(images) == 4 else [images]


def as_clips(videos: Any) -> list[Any]:
    """Clips in order, out of lists in lists and batches ``[N, T, H, W, 3]``; a list of frames is one clip."""
    if videos is None:
        return []
    if isinstance(videos, list | tuple):
        if videos and all(_is_frame(item) for item in videos):
            return [list(videos)]
        return [clip for item in videos for clip in as_clips(item)]
    return list(videos) if _dimensions(videos) == 5 else [videos]


def check_rows(items: Any, texts: Sequence[str], token: str) -> None:
    """Where media come in a list for each text, each text must have as many placeholders.

    Raises:
        PlaceholderError: a text has more or fewer; in order they would end up in the wrong texts.
    """
    flatten = as_images if token == "<image>" else as_clips
    is_nested = isinstance(items, list | tuple) and len(items) == len(texts)
    if not is_nested or not all(isinstance(item, list | tuple) for item in items):
        return
    for number, (item, text) in enumerate(zip(items, texts, strict=True)):
        if len(flatten(item)) != text.count(token):
            raise PlaceholderError(
                f"Text {number} has {text.count(token)} {token} placeholder(s) for {len(flatten(item))} item(s) of its "
                f"list: {text[:200]!r}. Put {token} into it once for each."
            )


def channels_last(media: Any, dimensions: int, channels_first: bool | None = None) -> Any:
    """An array or tensor of pixels with the channels in the last place; anything else as it is.

    Args:
        media: perhaps an array of ``dimensions`` axes.
        dimensions: 3 for an image, 4 for a clip.
        channels_first: None: where the shape does not tell, they are last already.
    """
    if isinstance(media, torch.Tensor):
        media = media.detach().cpu().numpy()
    if not isinstance(media, np.ndarray) or media.ndim != dimensions:
        return media
    if channels_first is None:
        channels_first = media.shape[-1] != 3 and media.shape[-3] == 3
    return np.ascontiguousarray(np.moveaxis(media, -3, -1)) if channels_first else media


def _dimensions(item: Any) -> int:
    return item.ndim if isinstance(item, np.ndarray | torch.Tensor) else 0


def _is_frame(item: Any) -> bool:
    if isinstance(item, str | os.PathLike):
        return is_image_path(item)
    return isinstance(item, Image.Image) or _dimensions(item) in (2, 3)
