"""Decoders behind one protocol; each returns exactly the frames that the reference numbering names.

PyAV is the reference and the default. decord and torchcodec are used where they are asked for and where their own
numbering agrees with the reference; where it does not, or they refuse the file, PyAV reads it. Reasons, measured on
h264 clips with one thread (8 frames; ms): 10 s 720p: PyAV 159, decord 265; 60 s 720p: PyAV 376, decord 621. decord
0.6.0 also gives wrong pictures without a word for HEVC, MPEG-4, MPEG-TS, MPEG-PS, stream-copied cuts and open groups
of pictures, and does not open AV1 and streamed Matroska.
"""

from __future__ import annotations

import importlib.util
from io import BytesIO
from typing import Any, Protocol

import numpy as np

from hound_plugin.errors import EnvironmentMismatchError, SettingsError
from hound_plugin.media.container import FrameIndex, read_frames
from hound_plugin.media.streams import NotExactError, Source

DECODERS = ("auto", "decord", "torchcodec", "pyav")
# What decord 0.6.0 (FFmpeg 4) was measured to decode to the same bytes as PyAV, 8 bits only.
_DECORD_CODECS = {"h264", "vp8", "vp9", "mjpeg"}
_DECORD_FORMATS = {"yuv420p", "yuvj420p", "yuv444p"}
_TOLERANCE = 1e-3  # seconds; Matroska keeps time stamps in ms


class Decoder(Protocol):
    """Reads frames by number."""

    name: str

    def read(self, source: Source, index: FrameIndex, indices: list[int]) -> np.ndarray:
        """Decode ``indices`` (ascending) to uint8 ``[T, H, W, 3]``, RGB, upright.

        Raises:
            NotExactError: this backend does not number or decode this source as the reference does.
        """
        ...


class PyAVDecoder:
    """The reference."""

    name = "pyav"

    def read(self, source: Source, index: FrameIndex, indices: list[int]) -> np.ndarray:
        """See :class:`Decoder`."""
        return read_frames(source, index, indices)


class DecordDecoder:
    """decord 0.6.0, one thread per call; nothing is kept between calls, so that loader workers may fork."""

    name = "decord"

    def read(self, source: Source, index: FrameIndex, indices: list[int]) -> np.ndarray:
        """See :class:`Decoder`."""
        if (
            index.pts is None
            or not index.clean
            or index.codec not in _DECORD_CODECS
            or index.pixel_format not in _DECORD_FORMATS
        ):
            raise NotExactError
        import decord

        try:
            reader = decord.VideoReader(source if isinstance(source, str) else BytesIO(source), num_threads=1)
            stamps = reader.get_frame_timestamp(indices)[:, 0] if len(reader) == index.total else []
            frames = reader.get_batch(indices).asnumpy()
        except (decord.DECORDError, RuntimeError, IndexError) as error:
            raise NotExactError from error
        _agree(stamps, index, indices)
        return frames


class TorchcodecDecoder:
    """torchcodec in its exact mode, one thread. It needs FFmpeg's shared libraries on the system."""

    name = "torchcodec"

    def read(self, source: Source, index: FrameIndex, indices: list[int]) -> np.ndarray:
        """See :class:`Decoder`."""
        if index.pts is None or not index.clean:
            raise NotExactError
        try:
            from torchcodec.decoders import VideoDecoder
        except (ImportError, RuntimeError, OSError) as error:  # it raises RuntimeError where FFmpeg is missing
            raise EnvironmentMismatchError(f"torchcodec cannot be loaded: {error}. Use `decoder: auto`.") from error
        try:
            reader = VideoDecoder(source, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")
            batch = reader.get_frames_at(indices=indices)
        except (RuntimeError, ValueError, IndexError) as error:
            raise NotExactError from error
        _agree(batch.pts_seconds.numpy() if len(reader) == index.total else [], index, indices)
        return batch.data.numpy()


_BACKENDS: dict[str, type[Decoder]] = {
    "auto": PyAVDecoder,
    "pyav": PyAVDecoder,
    "decord": DecordDecoder,
    "torchcodec": TorchcodecDecoder,
}


def choose(name: str) -> Decoder:
    """The decoder of a setting's value.

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


def decode(decoder: Decoder, source: Source, index: FrameIndex, indices: list[int]) -> tuple[np.ndarray, str]:
    """Decode with ``decoder``, with the reference where that one is not exact.

    Returns:
        uint8 ``[T, H, W, 3]`` and the name of the decoder that read it.

    Raises:
        MediaError: not readable.
        NotExactError: the numbering itself was wrong; number by ``container.count_by_decoding`` and sample again.
    """
    try:
        return decoder.read(source, index, indices), decoder.name
    except NotExactError:
        if isinstance(decoder, PyAVDecoder):
            raise
        return PyAVDecoder().read(source, index, indices), PyAVDecoder.name


def _agree(stamps: Any, index: FrameIndex, indices: list[int]) -> None:
    """Compare a backend's time stamps with the reference's; backends differ in where they put zero."""
    if len(stamps) != len(indices) or index.pts is None:
        raise NotExactError
    expected = np.array([index.pts[i] for i in indices], dtype=np.float64) * index.time_base
    shift = np.asarray(stamps, dtype=np.float64) - expected
    if np.abs(shift - shift[0]).max() > _TOLERANCE:
        raise NotExactError
