"""Frames of a clip as small JPEG pictures, for requests to servers and for pages."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from hound_plugin.media.decode import read_clip
from hound_plugin.media.frame_sampling import FrameSampling
from hound_plugin.records.media_paths import is_image_path

QUALITY = 85
_DIMMED = 0.3  # of the brightness


@dataclass(frozen=True)
class JpegFrames:
    """The frames of one clip.

    Attributes:
        pictures: JPEG files, in order.
        indices: their numbers in the clip, from 0.
    """

    pictures: tuple[bytes, ...]
    indices: tuple[int, ...]


def jpeg_frames(
    media: Any,
    num_frames: int,
    size: int,
    sampling: FrameSampling = "uniform",
    quality: int = QUALITY,
    dims_border: bool = False,
) -> JpegFrames:
    """Sample frames of a clip (one of an image), shrink and compress them.

    Args:
        media: a path, a folder of frames, or a list of frames.
        num_frames, sampling: which frames, as :func:`~hound_plugin.media.decode.read_clip` takes them.
        size: pixels of the longer side at most.
        quality: of the JPEG, 1 to 95.
        dims_border: darken what is outside the centred square, which the video tower does not see.

    Raises:
        MediaError: the clip cannot be read.
    """
    is_image = isinstance(media, str) and is_image_path(media) and os.path.isfile(media)
    if is_image:
        media, num_frames = [media], 1

    def shrink(frame: np.ndarray) -> np.ndarray:
        image = Image.fromarray(frame)
        image.thumbnail((size, size))
        small = np.asarray(image)
        return _dimmed(small) if dims_border and not is_image else small

    clip = read_clip(media, num_frames=num_frames, sampling=sampling, transform=shrink)
    pictures = tuple(_compressed(frame, quality) for frame in clip.frames)
    return JpegFrames(pictures, tuple(clip.indices))


def _compressed(frame: np.ndarray, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _dimmed(frame: np.ndarray) -> np.ndarray:
    """A frame ``[H, W, 3]`` with what is outside the centred square darkened."""
    height, width = frame.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    dimmed = (frame * _DIMMED).astype(np.uint8)
    inside = slice(top, top + side), slice(left, left + side)
    dimmed[inside] = frame[inside]
    return dimmed
