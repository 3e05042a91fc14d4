"""The results of reading a clip (:class:`Clip`) and of reading its header (:class:`VideoInfo`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hound_plugin.errors import MediaDecodeError

MAX_PIXELS = 1 << 26
"""Of one picture in memory: 8192 x 8192, twice the size of 8K video."""


def check_size(width: int, height: int, name: str, path: str | None = None) -> None:
    """Refuse a picture that would fill the memory; a file of a hundred bytes can contain one.

    Raises:
        MediaDecodeError: it has no pixels, or more than :data:`MAX_PIXELS`.
    """
    if not 1 <= width * height <= MAX_PIXELS:
        raise MediaDecodeError(
            f"Expected at most {MAX_PIXELS:,} pixels, and at least one, in {name}; got {width} x {height}. "
            "Scale it down.",
            path,
        )


Transform = Callable[[np.ndarray], np.ndarray]
"""One frame, uint8 ``[H, W, 3]``, to an array whose shape and type are the same for every frame."""


class Frames:
    """Collects the frames of one clip while it is read: one at a time in full size, then only the transformed result.

    Args:
        source: for messages; a path if ``is_path``.
        transform: applied to each frame before it is stored; by default the frame is stored unchanged.
    """

    def __init__(self, source: str, transform: Transform | None = None, is_path: bool = False) -> None:
        self.source = source
        self.path = source if is_path else None
        self.transform = transform
        self.array: np.ndarray | None = None
        self._positions: dict[int, list[int]] = {}
        self._first: tuple[str, tuple[int, ...]] | None = None

    def start(self, indices: list[int]) -> None:
        """Start over, to receive the frames ``indices``, which may contain duplicates."""
        self.array, self._first, self._positions = None, None, {}
        for position, index in enumerate(indices):
            self._positions.setdefault(index, []).append(position)

    def put(self, index: int, frame: np.ndarray, name: str | None = None) -> None:
        """Add one frame, uint8 ``[H, W, 3]``.

        Raises:
            MediaDecodeError: its size differs from that of the first one.
        """
        name = name or f"frame {index}"
        first, shape = self._first = self._first or (name, frame.shape)
        if frame.shape != shape:
            raise MediaDecodeError(
                f"Frames of {self.source} differ in size: {first} is {shape[1]}x{shape[0]}, {name} is "
                f"{frame.shape[1]}x{frame.shape[0]}: all pictures of a clip must have one size. Extract or encode "
                "it again, or remove pictures that do not belong to it.",
                self.path,
            )
        value = self.transform(frame) if self.transform else frame
        if self.array is None:
            count = sum(map(len, self._positions.values()))
            self.array = np.empty((count, *value.shape), value.dtype)
        self.array[self._positions.pop(index)] = value

    def finished(self) -> np.ndarray:
        """The stored frames, in the order of the indices.

        Raises:
            MediaDecodeError: frames are missing.
        """
        if self.array is None or self._positions:
            raise MediaDecodeError(f"Cannot decode {self.source}: it ended before all frames were read.", self.path)
        return self.array


@dataclass(frozen=True)
class Clip:
    """Sampled frames of one clip.

    Attributes:
        frames: uint8 ``[T, H, W, 3]``, RGB, 0..255, upright (a rotation tag has been applied); or ``[T, ...]`` of
            transformed frames.
        indices: ``T`` frame numbers, ascending, counted from 0 in order of presentation.
        fps: average frames per second; None for frames without timestamps (folder, list, array).
        total_frames: number of frames of the full clip.
        source: the path, or a description of media in memory.
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
    """What the header of a clip states; nothing is decoded.

    Attributes:
        kind: ``file`` (also bytes and streams), ``folder`` or ``frames`` (list or array).
        total_frames: None if the header does not state it (Matroska, WebM, MPEG-TS). For files it is the header's
            claim: a cut made without re-encoding may present fewer.
        fps: average frames per second; None for frames without timestamps, or if unknown.
        width, height: pixels as stored, before a rotation tag is applied.
    """

    kind: Literal["file", "folder", "frames"]
    total_frames: int | None
    fps: float | None
    width: int
    height: int
