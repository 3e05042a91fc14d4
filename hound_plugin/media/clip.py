"""What reading a clip gives, and what looking at its header gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from hound_plugin.errors import MediaDecodeError

MAX_PIXELS = 1 << 26
"""Of one picture as it is held in memory: 8192 x 8192, twice the size of 8K video."""


def check_size(width: int, height: int, name: str, path: str | None = None) -> None:
    """Refuse a picture that would fill the memory; a file of a hundred bytes can hold one.

    Raises:
        MediaDecodeError: it has no pixel, or more than :data:`MAX_PIXELS`.
    """
    if not 1 <= width * height <= MAX_PIXELS:
        raise MediaDecodeError(
            f"Expected at most {MAX_PIXELS:,} pixels, and at least one, in {name}; got {width} x {height}. "
            "Scale it down.",
            path,
        )


@dataclass(frozen=True)
class Clip:
    """Sampled frames of one clip.

    Attributes:
        frames: uint8 ``[T, H, W, 3]``, RGB, 0..255, upright (a rotation tag has been applied).
        indices: ``T`` frame numbers, ascending, counted from 0 in order of presentation.
        fps: average frames per second; None for frames without a clock (folder, list, array).
        total_frames: number of frames of the whole clip.
        source: the path, or a description of media held in memory.
        decoder: what produced the pixels: ``pyav``, ``decord``, ``torchcodec`` or ``frames``.
    """

    frames: np.ndarray
    indices: list[int]
    fps: float | None
    total_frames: int
    source: str
    decoder: str


@dataclass(frozen=True)
class VideoInfo:
    """What a header says of a clip; nothing was decoded for it.

    Attributes:
        kind: ``file`` (also bytes and streams), ``folder`` or ``frames`` (list or array).
        total_frames: None where the header does not tell (Matroska, WebM, MPEG-TS). For files it is the header's
            claim: a cut that was copied without encoding may present fewer.
        fps: average frames per second; None for frames without a clock, or unknown.
        width, height: pixels as stored, before a rotation tag is applied.
    """

    kind: Literal["file", "folder", "frames"]
    total_frames: int | None
    fps: float | None
    width: int
    height: int
