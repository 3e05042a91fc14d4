"""Clips and images read in one process and used in another, which has the model.

What is sent are entries of a pixel cache. Their keys contain path, size and time of the file, so that a process that
sees another file under the same path reads that one itself.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from hound_plugin.errors import MediaError
from hound_plugin.media.pixel_cache import PixelCache
from hound_plugin.processing.processor import LlavaHoundProcessor
from hound_plugin.records.media_paths import is_image_path

ReadMedia = Sequence[tuple[Hashable, torch.Tensor]]
READERS = 8
ROOM = 2  # batches: the one that is answered, and the next


def read_media(processor: LlavaHoundProcessor, media: Sequence[Any]) -> ReadMedia:
    """The pixels of clips and images, float32 ``[T, 3, side, side]`` and ``[3, side, side]``, by their keys.

    Args:
        processor: of the model that will use them; its cache is replaced.
        media: paths, or lists of frames; None and what cannot be read is left out.
    """
    cache = processor.pixel_cache = PixelCache(1 << 62, same_machine=False)  # of any size: it is sent away

    def read(item: Any) -> None:
        with contextlib.suppress(MediaError):
            (processor.read_image if is_image_path(item) else processor.read_video)(item)

    distinct = {str(item): item for item in media if item is not None}
    with ThreadPoolExecutor(min(READERS, os.cpu_count() or 1)) as readers:
        list(readers.map(read, distinct.values()))
    return cache.items()


def keep_media(processor: LlavaHoundProcessor, read: ReadMedia) -> None:
    """Put what :func:`read_media` gave into the cache of a model's processor."""
    cache = processor.pixel_cache
    if cache is None or cache.same_machine:
        cache = processor.pixel_cache = PixelCache(same_machine=False)
    cache.make_room(ROOM * sum(pixels.nbytes for _, pixels in read))
    for key, pixels in read:
        cache.put(key, pixels)
