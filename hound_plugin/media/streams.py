"""Open a file or bytes with PyAV (FFmpeg), and choose the stream that a player would show."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator
from io import BytesIO
from typing import Any

from hound_plugin.errors import MediaDecodeError, MediaError
from hound_plugin.media.clip import check_size

Source = str | bytes
# These read other files or addresses named in the file, or take any text for a picture.
_REFUSED = {"hls", "dash", "concat", "concatf", "tty", "sdp", "rtsp", "imf", "webvtt"}
_LISTS = (b"#EXTM3U", b"ffconcat")  # FFmpeg opens the files listed in these before it reports their format
# Given as container options: per-stream ones crash PyAV 16 on formats whose streams appear late (MPEG-PS).
_OPTIONS = {"protocol_whitelist": "file"}
_PICTURES = {"image2", "image2pipe", "ico"}  # and all whose names end in `_pipe`
_STILL_BRANDS = {b"avif", b"heic", b"heix", b"heim", b"heis", b"mif1"}  # of a file that FFmpeg takes for MP4
_COVERS = ("attached_pic", "timed_thumbnails", "still_image")
_ENOUGH = 64  # packets of one stream after which another stream with at most one is a still picture

# To free a decoder with threads, FFmpeg waits for them. In a forked process (a loader worker) those of the parent's are
# missing: collecting one that somebody left as garbage there would wait forever.
os.register_at_fork(after_in_child=gc.freeze)


class NotExactError(Exception):
    """The fast path did not yield what the packet headers stated; decode everything."""


def describe(source: Source) -> str:
    """The path, or the size of media in memory; for messages."""
    return source if isinstance(source, str) else f"<{len(source)} bytes>"


def path_of(source: Source) -> str | None:
    """The path, for :attr:`MediaError.path`; None for media in memory."""
    return source if isinstance(source, str) else None


@contextlib.contextmanager
def opened(source: Source) -> Iterator[tuple[Any, Any]]:
    """Open a file or bytes; yields the container and the video stream that a player would show, and closes both.

    Raises:
        MediaDecodeError: it is not a video, FFmpeg cannot read it, or it has no decodable stream other than cover
            pictures; other exceptions of FFmpeg inside the block are converted to this one.
    """
    import av
    from av.codec.context import Flags

    path = path_of(source)
    head = _head(source)
    if head == b"":
        raise MediaDecodeError(f"Cannot decode {describe(source)}: it is empty (0 bytes). Copy it again.", path)
    if head is not None and head.startswith(_LISTS):
        raise MediaDecodeError(
            f"Cannot decode {describe(source)}: it is a list of other files (it begins with {head[:7].decode()!r}), "
            "not a video file. Give the video itself.",
            path,
        )
    try:
        with _container(source) as container:
            if _REFUSED & set(container.format.name.split(",")):
                raise MediaDecodeError(
                    f"Cannot decode {describe(source)}: FFmpeg takes it for {container.format.long_name}, which is not "
                    "a video file. Give the video itself.",
                    path,
                )
            stream = container.streams[_choose(container, source)]
            if _is_picture(container, head or b""):
                raise MediaDecodeError(
                    f"Cannot decode {describe(source)}: expected a clip, got a picture. Give it as an image, or in a "
                    "list of frames if it is one; save an animated WebP as GIF or MP4.",
                    path,
                )
            context = stream.codec_context
            if context.width and context.height:
                check_size(context.width, context.height, describe(source), path)
            context.thread_count = 1  # loader workers provide the parallelism
            context.flags |= Flags.unaligned  # crop at the left as stated, not at a multiple of 32
            yield container, stream
    except (MediaError, NotExactError):
        raise
    except (av.error.FFmpegError, OSError, ValueError, IndexError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MediaDecodeError(
            f"Cannot decode {describe(source)}: {reason}. The file is not a video, damaged or cut short; copy or "
            "encode it again, or leave its record out.",
            path,
        ) from error


def _head(source: Source) -> bytes | None:
    """The first bytes; None if it is not a regular file or not readable, which FFmpeg reports better."""
    if not isinstance(source, str):
        return source[:16]
    with contextlib.suppress(OSError):
        if os.path.isfile(source):
            with open(source, "rb", buffering=0) as file:
                return file.read(16)
    return None


def _is_picture(container: Any, head: bytes) -> bool:
    """Whether a file has the form of one picture; those of GIF and APNG may have several."""
    names = set(container.format.name.split(","))
    is_still = head[4:8] == b"ftyp" and head[8:12] in _STILL_BRANDS
    return bool(names & _PICTURES) or is_still or any(name.endswith("_pipe") for name in names)


def packets(container: Any) -> Iterator[Any]:
    """Packets of all streams, and an empty one for each at the end.

    A stream that appears late has none at the end: PyAV 16 raises IndexError there, after those of all others.
    """
    demuxed = container.demux()
    with contextlib.suppress(IndexError):
        while (packet := next(demuxed, None)) is not None:
            yield packet


def _container(source: Source) -> Any:
    import av

    target = os.path.abspath(source) if isinstance(source, str) else BytesIO(source)
    return av.open(target, container_options=_OPTIONS, metadata_errors="replace")


def _choose(container: Any, source: Source) -> int:
    """The index of the stream to show.

    Covers and streams without a decoder are ignored; among several others the default one wins, then the one with the
    largest picture, then the first, as in FFmpeg's own command.
    """
    videos = list(container.streams.video)
    if not videos:
        raise MediaDecodeError(
            f"Cannot decode {describe(source)}: it has no video stream, only "
            f"{', '.join(map(kind_of, container.streams)) or 'nothing'}. Give a file with pictures.",
            path_of(source),
        )
    moving = [stream for stream in videos if not _has(stream, *_COVERS)]
    if not moving:
        raise MediaDecodeError(
            f"Cannot decode {describe(source)}: it has no video stream, only a cover picture. Give a file with a clip.",
            path_of(source),
        )
    decodable = [stream for stream in moving if stream.codec_context is not None]
    if not decodable:
        raise MediaDecodeError(
            f"Cannot decode {describe(source)}: FFmpeg's library has no decoder for its video stream (a "
            f"{container.format.long_name} file). Encode it again, for example as H.264 in MP4.",
            path_of(source),
        )
    if len(decodable) > 1:
        stills = _stills(source, {stream.index for stream in decodable})
        decodable = [stream for stream in decodable if stream.index not in stills]
    best = max(decodable, key=lambda stream: (_has(stream, "default"), _area(stream)))
    return int(best.index)


def kind_of(stream: Any) -> str:
    """``video``, ``audio``, ``subtitle``, ``data``, ``attachment`` or ``unknown``.

    From its class: PyAV 16 crashes when asked for the ``type`` (or ``repr``) of one that FFmpeg does not know.
    """
    return type(stream).__name__.removesuffix("Stream").lower() or "unknown"


def _has(stream: Any, *dispositions: str) -> bool:
    from av.stream import Disposition

    return any(stream.disposition & Disposition[name] for name in dispositions)


def _area(stream: Any) -> int:
    return int(stream.codec_context.width * stream.codec_context.height)


def _stills(source: Source, indices: set[int]) -> set[int]:
    """Those of several video streams that have a single picture while another one moves."""
    counts = dict.fromkeys(indices, 0)
    with _container(source) as container:
        for packet in packets(container):
            if packet.size and packet.stream.index in counts:
                counts[packet.stream.index] += 1
                if counts[packet.stream.index] >= _ENOUGH or min(counts.values()) > 1:
                    break
    return {index for index, count in counts.items() if count <= 1} if max(counts.values()) > 1 else set()
