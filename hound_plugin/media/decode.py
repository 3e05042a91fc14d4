"""Read a clip: which frames (``sampling``) from what (file, folder, list, array, bytes) by which decoder.

The policy alone decides which frames are seen; every decoder returns the same ones, to the byte.
"""

from __future__ import annotations

import bisect
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hound_plugin.errors import EmptyMediaError, MediaDecodeError, MediaNotFoundError, SettingsError
from hound_plugin.media import container
from hound_plugin.media import frames as still
from hound_plugin.media.backends import DECODERS, Decoder, check, choose, decode
from hound_plugin.media.clip import Clip, Frames, Transform, VideoInfo
from hound_plugin.media.container import FrameIndex
from hound_plugin.media.frame_sampling import FrameSampling, check_sampling, sample_indices
from hound_plugin.media.streams import NotExactError, Source, describe
from hound_plugin.records.media_paths import check_name, dead_link, is_image_path, refuse_part, split_part

__all__ = ["DECODERS", "Clip", "Decoder", "VideoInfo", "probe", "read_clip"]

_ADDRESS = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*://|data:)")


def read_clip(
    video: Any,
    *,
    num_frames: int = 8,
    sampling: FrameSampling = "uniform",
    decoder: str = "auto",
    timeout: float | None = None,
    transform: Transform | None = None,
) -> Clip:
    """Sample frames of a clip.

    Frames without a clock (folder, list, array) were chosen by whoever extracted them: every policy spreads over all
    of them, as the original does with its frame folders.

    Args:
        video: path (``str`` or ``Path``) of a video file, of a part of it (``clip.mp4#t=0.5,1.0``: the frames from
            0.5 s on and before 1.0 s, counted from the first frame) or of a folder of frames; a list of frames (paths,
            PIL images, uint8 arrays ``[H, W, 3]``); a uint8 array ``[T, H, W, 3]``; ``bytes`` of a video file or a
            binary stream of them, which is read once from where it stands.
        num_frames: frames to return; a shorter clip gives some twice.
        sampling: see :func:`hound_plugin.media.frame_sampling.sample_indices`.
        decoder: ``auto`` and ``pyav`` are the exact reference; ``decord`` and ``torchcodec`` are refused for files of
            which they do not give the same frames.
        timeout: seconds. Files, folders, bytes and lists are then read by a child process, which is killed when
            the limit passes. It costs a copy of the frames through a pipe (about 15 ms for 8 frames of 720p).
        transform: what is kept of a frame, for clips that are large: only one frame is held in full size at a time.

    Returns:
        The frames, uint8 ``[num_frames, H, W, 3]``, RGB, upright, or what ``transform`` made of them, with their
        numbers.

    Raises:
        SettingsError: an argument is unknown or outside its range.
        EnvironmentMismatchError: the decoder's package is not installed.
        MediaNotFoundError: the path does not exist, or it is an address (only local paths are read here).
        EmptyMediaError: there is not one frame, or none in the part.
        MediaDecodeError: no video, damaged, cut short, frames of unequal size, frames whose names do not tell their
            order, a part of something without a clock, or a file of which ``decoder`` does not give the exact frames.
        DecodeTimeoutError: ``timeout`` passed.
    """
    check_sampling(sampling, num_frames)
    backend = choose(decoder)
    video = _normalised(video)
    frames = Frames(_described(video), transform, isinstance(video, str))
    if timeout is not None:
        if not timeout > 0:
            raise SettingsError(f"Expected decode_timeout in seconds above 0; got {timeout!r}.")
        if not _in_memory(video):
            from hound_plugin.media.worker import read_in_child

            return read_in_child(video, num_frames, sampling, decoder, timeout, frames)
    return read_here(video, num_frames, sampling, backend, frames)


def read_here(
    video: Any,
    num_frames: int,
    sampling: FrameSampling,
    decoder: Decoder,
    frames: Frames,
    special_files: bool = False,
) -> Clip:
    """Read in this process; arguments have been checked. See :func:`read_clip`.

    Args:
        frames: takes the frames.
        special_files: also open pipes and devices, which may block for ever.
    """

    def spread(total: int) -> list[int]:
        return sample_indices("uniform", total, num_frames)

    if isinstance(video, str):
        kind, path, *part = _place(video, special_files)
        if kind == "file":
            return _read_file(path, num_frames, sampling, decoder, frames, *part)
        indices, total = still.read_folder(path, spread, frames)
    elif isinstance(video, bytes):
        return _read_file(video, num_frames, sampling, decoder, frames)
    elif isinstance(video, list):
        indices, total = still.read_list(video, spread, frames)
    else:
        indices, total = still.read_array(video, spread, frames)
    return Clip(frames.finished(), indices, None, total, frames.source, "frames")


def _described(video: Any) -> str:
    if isinstance(video, str | bytes):
        return describe(video)
    return f"<list of {len(video)} frames>" if isinstance(video, list) else f"<array {np.shape(video)}>"


def probe(video: Any, decoder: str = "auto") -> VideoInfo:
    """Look at a clip without decoding it, to find bad media before training starts.

    It costs 0.3 ms (small pictures) to 13 ms (720p) for a file and 0.1 ms for a folder of 25
    frames; a part of an MP4, MOV, Matroska or WebM file costs a look at all packet headers (7 to 14 ms). It cannot see
    damage behind the header, nor whether a part of another file holds a frame.

    Args:
        video: as in :func:`read_clip`. A binary stream is read and put back where it stood if it can seek.
        decoder: as in :func:`read_clip`; for others than ``auto`` and ``pyav``, packet headers are looked at too.

    Raises:
        MediaError: as :func:`read_clip`, as far as the header tells.
    """
    position = video.tell() if hasattr(video, "seekable") and video.seekable() else None
    known = _normalised(video)
    if position is not None:
        video.seek(position)
    if isinstance(known, str):
        return _probe_path(known, choose(decoder))
    if isinstance(known, bytes):
        check(choose(decoder), known)
        return container.probe_container(known)
    return still.probe_frames(known)


def _normalised(video: Any) -> Any:
    """One of: str (local path), bytes, list, array."""
    if isinstance(video, str | Path):
        path = str(video)
        if _ADDRESS.match(path):
            raise MediaNotFoundError(
                f"Expected a local path; got the address {path[:200]}. Only local files and folders are read here: "
                "download it first, or drop `file://`.",
                path,
            )
        return check_name(path)
    if isinstance(video, bytes | bytearray | memoryview):
        return bytes(video)
    if hasattr(video, "read"):
        content = video.read()
        if not isinstance(content, bytes):
            raise MediaDecodeError(f"Expected a binary stream; its read() gave {type(content).__name__}.")
        return content
    if hasattr(video, "__array__") and not hasattr(video, "convert"):
        return video
    if isinstance(video, Sequence):
        return list(video)
    raise MediaDecodeError(
        "Expected a path, a list of frames, a uint8 array [T, H, W, 3], bytes or a binary stream as a video; got "
        f"{type(video).__name__}."
    )


def _in_memory(video: Any) -> bool:
    if isinstance(video, list):
        return not any(isinstance(item, str | Path | bytes) for item in video)
    return not isinstance(video, str | bytes)


def _place(video: str, special_files: bool = False) -> tuple[str, str, float | None, float | None]:
    """``file`` or ``folder``, its path, and the part of a file that is asked for."""
    path, start, end = split_part(video)
    kind = _kind(path, special_files)
    if path != video and (kind == "folder" or is_image_path(path)):
        raise refuse_part(video, "a folder of frames" if kind == "folder" else "an image")
    return kind, path, start, end


def _kind(path: str, special_files: bool = False) -> str:
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        reason = dead_link(path) or getattr(error, "strerror", None) or error
        raise MediaNotFoundError(
            f"No video at {path}: {reason}. Expected a video file or a folder of frames; check the path and "
            "`media_dir`.",
            path,
        ) from error
    if stat.S_ISDIR(mode):
        return "folder"
    if not stat.S_ISREG(mode) and not special_files:
        raise MediaDecodeError(
            f"Cannot decode {path}: it is a pipe, socket or device, which could block for ever. Give a regular file, "
            "or set `decode_timeout`.",
            path,
        )
    return "file"


def _probe_path(video: str, decoder: Decoder) -> VideoInfo:
    kind, path, *part = _place(video)
    if kind == "folder":
        return still.probe_folder(path)
    info = container.probe_container(path)
    check(decoder, path)
    index = container.index_by_headers(path) if path != video else None
    if index is not None:
        _frames_within(index, path, *part)
    return info


def _read_file(
    source: Source,
    num_frames: int,
    sampling: FrameSampling,
    decoder: Decoder,
    frames: Frames,
    start: float | None = None,
    end: float | None = None,
) -> Clip:
    def sampled(index: FrameIndex) -> list[int]:
        within = _frames_within(index, source, start, end)
        return [within.start + i for i in sample_indices(sampling, len(within), num_frames, index.fps)]

    index = container.build_index(source)
    indices = sampled(index)
    try:
        decode(decoder, source, index, indices, frames)
    except NotExactError:
        index = container.count_by_decoding(source)
        indices = sampled(index)
        decode(decoder, source, index, indices, frames)
    return Clip(frames.finished(), indices, index.fps, index.total, frames.source, decoder.name)


def _frames_within(index: FrameIndex, source: Source, start: float | None, end: float | None) -> range:
    """Numbers of the frames that are presented from ``start`` on and before ``end`` (seconds, None: no limit)."""
    first = 0 if start is None else bisect.bisect_left(index.seconds, start)
    after = index.total if end is None else bisect.bisect_left(index.seconds, end)
    if first >= after:
        asked = f"from {start or 0:g} s " + ("on" if end is None else f"to {end:g} s")
        raise EmptyMediaError(
            f"There is no frame {asked} in {describe(source)}: the clip has {index.total} frame(s) in "
            f"{index.duration:.3f} s, the last one at {index.seconds[-1]:.3f} s. Correct the part.",
            source if isinstance(source, str) else None,
        )
    return range(first, after)
