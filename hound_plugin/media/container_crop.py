"""The edges of its pictures that a container says not to show: the clean aperture of MP4 and MOV, the crop of Matroska.

FFmpeg's command and players leave these edges away; its libraries leave that to whoever uses them, and PyAV does not
say what a container states.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from io import BytesIO
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from hound_plugin.media.streams import Source

_ENTRY = 86  # bytes of a picture's sample entry before the boxes in it (ISO/IEC 14496-12, 12.1.3)
_SEGMENT, _TRACKS, _TRACK, _TYPE, _VIDEO = 0x18538067, 0x1654AE6B, 0xAE, 0x83, 0xE0  # RFC 9559, 5.1
_IS_VIDEO = 1  # of the type of a track
_SIDES = {0x54CC: "left", 0x54DD: "right", 0x54BB: "top", 0x54AA: "bottom"}
_LONGEST = 1 << 20  # bytes of an element that is read


class Crop(NamedTuple):
    """Pixels to leave away at each side of a picture as it is stored."""

    left: int = 0
    right: int = 0
    top: int = 0
    bottom: int = 0

    def cut(self, pixels: np.ndarray, layout: Any) -> np.ndarray:
        """``[H, W, 3]`` without the edges, in whole steps of what has one colour, as FFmpeg's filter cuts it.

        Args:
            pixels: as they are stored.
            layout: the frame's pixel format, :class:`av.VideoFormat`.
        """
        if not any(self):
            return pixels
        rows = _steps(self.top, self.bottom, pixels.shape[0], layout.chroma_height)
        columns = _steps(self.left, self.right, pixels.shape[1], layout.chroma_width)
        return pixels[rows, columns]


def _steps(before: int, after: int, size: int, chroma: Callable[[int], int]) -> slice:
    step = 16 // (chroma(16) or 16)
    kept = max((size - before - after) // step * step, 1)
    return slice(before // step * step, before // step * step + kept)


def stated_crop(source: Source, container: Any, stream: Any) -> Crop | None:
    """What the container of a file says about the pictures of a stream; None if it says nothing, or what cannot be."""
    names = set(container.format.name.split(","))
    is_pipe = isinstance(source, str) and not os.path.isfile(source)  # which can only be read once
    if is_pipe or not names & {"mov", "matroska"}:
        return None
    width, height = stream.codec_context.width, stream.codec_context.height
    with open(source, "rb") if isinstance(source, str) else BytesIO(source) as file:
        try:
            if "mov" in names:
                crop = _aperture(file, stream.id, width, height)
            else:  # whose streams have no number of their own
                crop = _element(file, [video.index for video in container.streams.video].index(stream.index))
        except (struct.error, ZeroDivisionError, IndexError):  # damaged, which others notice
            return None
    if crop is None or not any(crop) or min(crop) < 0:
        return None
    return crop if crop.left + crop.right < width and crop.top + crop.bottom < height else None


# --- MP4 and MOV: ISO/IEC 14496-12


def _aperture(file: BinaryIO, track: int, width: int, height: int) -> Crop | None:
    """From the clean aperture (12.1.4): its size, and how far its centre is from that of the picture."""
    for _, begin, end in _inside(file, [(b"", 0, file.seek(0, os.SEEK_END))], b"moov", b"trak"):
        header = next(_inside(file, [(b"", begin, end)], b"tkhd"), None)
        if header is None or _track_of(_bytes(file, header[1], header[2])) != track:
            continue
        for _, first, last in _inside(file, [(b"", begin, end)], b"mdia", b"minf", b"stbl", b"stsd"):
            length = int.from_bytes(_bytes(file, first + 8, first + 12), "big")
            entry = (b"", first + 8 + _ENTRY, min(last, first + 8 + length))
            for _, at, _ in _inside(file, [entry], b"clap"):
                values = struct.unpack(">IIIIiIiI", _bytes(file, at, at + 32))
                across, down, right, below = (Fraction(*values[i : i + 2]) for i in range(0, 8, 2))
                return Crop(*_edges(width, across, right), *_edges(height, down, below))
    return None


def _edges(size: int, aperture: Fraction, offset: Fraction) -> tuple[int, int]:
    """Whole pixels before and after an aperture, rounded as FFmpeg does."""
    centre, half = Fraction(size - 1, 2) + offset, (aperture - 1) / 2
    return int(centre - half), size - 1 - int(centre + half)


def _track_of(header: bytes) -> int:
    at = 20 if header[0] == 1 else 12  # after version, flags, and two times of 8 or 4 bytes
    return int.from_bytes(header[at : at + 4], "big")


Part = tuple[bytes, int, int]
"""A box: its kind, and where its content begins and ends."""


def _inside(file: BinaryIO, parents: list[Part], *path: bytes) -> Iterator[Part]:
    """All boxes at a path below some others."""
    for kind in path[:-1]:
        parents = [part for parent in parents for part in _boxes(file, parent) if part[0] == kind]
    for parent in parents:
        yield from (part for part in _boxes(file, parent) if part[0] == path[-1])


def _boxes(file: BinaryIO, parent: Part) -> Iterator[Part]:
    _, position, end = parent
    while position + 8 <= end:
        length, kind = struct.unpack(">I4s", _bytes(file, position, position + 8))
        head = 8
        if length == 1:
            head, (length,) = 16, struct.unpack(">Q", _bytes(file, position + 8, position + 16))
        length = length or end - position  # the last one may end with the file
        if length < head:
            return
        yield kind, position + head, min(position + length, end)
        position += length


# --- Matroska and WebM: RFC 8794 and 9559


def _element(file: BinaryIO, position: int) -> Crop | None:
    """From the four elements of a track, of which ``position`` other ones with pictures come first."""
    size = file.seek(0, os.SEEK_END)
    for segment, begin, end in _elements(file, 0, size):
        if segment != _SEGMENT:
            continue
        tracks = next((part for part in _elements(file, begin, end) if part[0] == _TRACKS), None)
        entries = [part for part in _elements(file, *tracks[1:]) if part[0] == _TRACK] if tracks else []
        inside = [{kind: (at, to) for kind, at, to in _elements(file, *entry[1:])} for entry in entries]
        videos = [parts for parts in inside if _TYPE in parts and _number(file, *parts[_TYPE]) == _IS_VIDEO]
        if position < len(videos) and _VIDEO in videos[position]:
            sides = (part for part in _elements(file, *videos[position][_VIDEO]) if part[0] in _SIDES)
            return Crop(**{_SIDES[kind]: _number(file, at, to) for kind, at, to in sides})
        break
    return None


def _elements(file: BinaryIO, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Elements one after another: number, and where the content begins and ends; one of unknown size is the last."""
    while position < end:
        head = _bytes(file, position, position + 12)
        width = 9 - head[0].bit_length()
        digits = 9 - head[width].bit_length()
        length = int.from_bytes(head[width : width + digits], "big") & ((1 << 7 * digits) - 1)
        begin = position + width + digits
        last = end if length == (1 << 7 * digits) - 1 else min(begin + length, end)
        yield int.from_bytes(head[:width], "big"), begin, last
        position = last


def _number(file: BinaryIO, begin: int, end: int) -> int:
    return int.from_bytes(_bytes(file, begin, end), "big")


def _bytes(file: BinaryIO, begin: int, end: int) -> bytes:
    file.seek(begin)
    return file.read(min(end - begin, _LONGEST))
