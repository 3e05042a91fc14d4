"""Decoders with one interface; each returns exactly the frames that the reference numbering names.

PyAV is the reference and the default. decord and torchcodec are used on request, for files whose frames they number
as the reference does; for other files they are refused by name. Reasons, measured on
h264 clips with one thread (8 frames; ms): 10 s 720p: PyAV 159, decord 265; 60 s 720p: PyAV 376, decord 621. decord
0.6.0 also silently returns wrong pictures for HEVC, MPEG-4, MPEG-TS, MPEG-PS, stream-copied cuts and open groups of
pictures, and does not open AV1 and streamed Matroska.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator
from io import BytesIO
from typing import Any, Protocol

import numpy as np

from hound_plugin.errors import EnvironmentMismatchError, MediaDecodeError, SettingsError
from hound_plugin.media.clip import Frames
from hound_plugin.media.container import (
    FrameIndex,
    Numbered,
    index_by_headers,
    is_cropped,
    is_mirrored,
    read_frames,
)
from hound_plugin.media.streams import NotExactError, Source, describe, path_of

DECODERS = ("auto", "decord", "torchcodec", "pyav")
# What decord 0.6.0 (FFmpeg 4) was measured to decode to the same bytes as PyAV, 8 bits only.
_DECORD_CODECS = {"h264", "vp8", "vp9", "mjpeg"}
_DECORD_FORMATS = {"yuv420p", "yuvj420p", "yuv444p"}
_UNNUMBERED = (
    "its frames can only be numbered by decoding all of it (not MP4, MOV, Matroska or WebM, or cut without re-encoding)"
)
_TOLERANCE = 1e-3  # seconds; Matroska keeps timestamps in ms


class Decoder(Protocol):
    """Reads frames by number."""

    name: str

    def check(self, index: FrameIndex) -> None:
        """Refuse the kinds of files for which this backend was measured to return other frames than the reference.

        Raises:
            NotExactError: why.
        """
        ...

    def read(self, source: Source, index: FrameIndex, indices: list[int]) -> Numbered:
        """Decode ``indices`` one at a time: each number once, with its frame, uint8 ``[H, W, 3]``, RGB, upright.

        Raises:
            NotExactError: this backend does not number or decode this source as the reference does; frames it has
                returned must be discarded. The message says why.
        """
        ...


class PyAVDecoder:
    """The reference."""

    name = "pyav"

    def check(self, index: FrameIndex) -> None:
        """See :class:`Decoder`: it is exact."""

    def read(self, source: Source, index: FrameIndex, indices: list[int]) -> Numbered:
        """See :class:`Decoder`."""
        return read_frames(source, index, indices)


class DecordDecoder:
    """decord 0.6.0, one thread per call; nothing is kept between calls, so that loader workers may fork."""

    name = "decord"

    def check(self, index: FrameIndex) -> None:
        """See :class:`Decoder`."""
        _check_numbering(index)
        if index.codec not in _DECORD_CODECS:
            raise NotExactError(f"it decodes {' and '.join(sorted(_DECORD_CODECS))} exactly, but not {index.codec}")
        if index.pixel_format not in _DECORD_FORMATS:
            formats = ", ".join(sorted(_DECORD_FORMATS))
            raise NotExactError(f"it decodes the pixel formats {formats} exactly, but not {index.pixel_format}")
        if index.pixel_format != "yuv444p" and (index.width % 2 or index.height % 2):
            raise NotExactError(
                f"it spreads the colours of {index.width}x{index.height} pixels differently, an odd number with one "
                "colour for every two"
            )

    def read(self, source: Source, index: FrameIndex, indices: list[int]) -> Numbered:
        """See :class:`Decoder`."""
        self.check(index)
        import decord

        stamps = []
        unique = sorted(set(indices))
        try:
            reader = decord.VideoReader(source if isinstance(source, str) else BytesIO(source), num_threads=1)
            _check_total(len(reader), index)
            for number in unique:
                stamps.append(reader.get_frame_timestamp([number])[0, 0])
                yield number, reader.get_batch([number]).asnumpy()[0]
        except (decord.DECORDError, RuntimeError, IndexError) as error:
            raise NotExactError(f"it failed: {str(error).strip().splitlines()[-1:] or error!r}") from error
        _check_timestamps(stamps, index, unique)


class TorchcodecDecoder:
    """torchcodec in its exact mode, one thread. It needs FFmpeg's shared libraries on the system."""

    name = "torchcodec"

    def check(self, index: FrameIndex) -> None:
        """See :class:`Decoder`."""
        _check_numbering(index)

    def read(self, source: Source, index: FrameIndex, indices: list[int]) -> Numbered:
        """See :class:`Decoder`."""
        self.check(index)
        try:
            from torchcodec.decoders import VideoDecoder
        except (ImportError, RuntimeError, OSError) as error:  # it raises RuntimeError where FFmpeg is missing
            raise EnvironmentMismatchError(f"torchcodec cannot be loaded: {error}. Use `decoder: auto`.") from error
        stamps = []
        unique = sorted(set(indices))
        try:
            reader = VideoDecoder(source, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")
            _check_total(len(reader), index)
            for number in unique:
                batch = reader.get_frames_at(indices=[number])
                stamps.append(float(batch.pts_seconds.numpy()[0]))
                yield number, batch.data.numpy()[0]
        except (RuntimeError, ValueError, IndexError) as error:
            raise NotExactError(f"it failed: {error}") from error
        _check_timestamps(stamps, index, unique)


_BACKENDS: dict[str, type[Decoder]] = {
    "auto": PyAVDecoder,
    "pyav": PyAVDecoder,
    "decord": DecordDecoder,
    "torchcodec": TorchcodecDecoder,
}


def choose(name: str) -> Decoder:
    """The decoder that a setting names.

    Raises:
        SettingsError: unknown name.
        EnvironmentMismatchError: its package is not installed.
    """
    if name not in DECODERS:
        raise SettingsError(f"Expected decoder to be one of {', '.join(DECODERS)}; got {name!r}.")
    package = {"auto": "av", "pyav": "av"}.get(name, name)
    if importlib.util.find_spec(package) is None:
        raise EnvironmentMismatchError(
            f"`decoder: {name}` needs the package {package}, which is not installed. Run `pip install {package}` "
            "or set `decoder: auto`."
        )
    return _BACKENDS[name]()


def decode(decoder: Decoder, source: Source, index: FrameIndex, indices: list[int], frames: Frames) -> None:
    """Decode with ``decoder`` into ``frames``.

    Raises:
        MediaDecodeError: not readable, or a decoder other than the reference would return other frames.
        NotExactError: the numbering itself was wrong; number by ``container.count_by_decoding`` and sample again.
    """
    frames.start(indices)
    with _refusals(decoder, source), contextlib.closing(decoder.read(source, index, indices)) as numbered:
        _check_picture(decoder, source)
        for number, frame in numbered:
            frames.put(number, frame)


def check(decoder: Decoder, source: Source) -> None:
    """Check packet headers (7 to 14 ms) for a kind of file that ``decoder`` does not decode exactly.

    Raises:
        MediaDecodeError: the file is of such a kind, or cannot be read.
    """
    if isinstance(decoder, PyAVDecoder):
        return
    index = index_by_headers(source)
    with _refusals(decoder, source):
        if index is None:
            raise NotExactError(_UNNUMBERED)
        decoder.check(index)
        _check_picture(decoder, source)


@contextlib.contextmanager
def _refusals(decoder: Decoder, source: Source) -> Iterator[None]:
    try:
        yield
    except NotExactError as error:
        if isinstance(decoder, PyAVDecoder):
            raise
        raise MediaDecodeError(
            f"`decoder: {decoder.name}` does not return the exact frames of {describe(source)}: "
            f"{error or 'it numbers them differently'}. Set `decoder: auto`, which does, or re-encode the file as "
            "H.264 in MP4 with closed groups of pictures.",
            path_of(source),
        ) from error


def _check_numbering(index: FrameIndex) -> None:
    """Refuse the kinds of files for which other decoders were measured to return wrong frames."""
    if index.pts is None:
        raise NotExactError(_UNNUMBERED)
    if index.videos > 1:
        raise NotExactError("it has several video streams, and the decoder may choose another one")
    if not index.clean:
        raise NotExactError("it has open groups of pictures")


def _check_picture(decoder: Decoder, source: Source) -> None:
    """Other decoders know turns by right angles, but show a mirrored picture turned, or as stored.

    They know nothing of a container's crop, and crop at the left by multiples of 32 pixels alone.
    """
    if isinstance(decoder, PyAVDecoder):
        return
    if is_mirrored(source):
        raise NotExactError("its pictures are to be mirrored, or turned outside of MP4 and MOV, which it does not do")
    if is_cropped(source):
        raise NotExactError("its pictures are to be cropped, which it does not do")


def _check_total(count: int, index: FrameIndex) -> None:
    if count != index.total:
        raise NotExactError(f"it counts {count} frames instead of {index.total}")


def _check_timestamps(stamps: Any, index: FrameIndex, indices: list[int]) -> None:
    """Compare a backend's timestamps with the reference's; backends differ in where they put zero."""
    if len(stamps) != len(indices) or index.pts is None:
        raise NotExactError
    expected = np.array([index.pts[i] for i in indices], dtype=np.float64) * index.time_base
    shift = np.asarray(stamps, dtype=np.float64) - expected
    if np.abs(shift - shift[0]).max() > _TOLERANCE:
        raise NotExactError("its frames have other timestamps")
