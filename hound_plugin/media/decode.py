"""Read a clip: which frames (``frame_sampling``) from what (file, folder, list, array, bytes) with which decoder.

Only the sampling policy decides which frames are used; every decoder returns the same ones, to the byte.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hound_plugin.errors import MediaDecodeError, MediaNotFoundError, SettingsError
from hound_plugin.media import container
from hound_plugin.media import frames as still
from hound_plugin.media.backends import DECODERS, Decoder, check, choose
from hound_plugin.media.clip import Clip, Frames, Transform, VideoInfo
from hound_plugin.media.frame_sampling import FrameSampling, check_sampling
from hound_plugin.media.in_process import describe_video, file_or_folder, frames_within, read_here
from hound_plugin.media.worker import read_in_child
from hound_plugin.records.media_paths import check_name

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

    Frames without timestamps (folder, list, array) were chosen by whoever extracted them: every policy samples
    uniformly from all of them, as the original does with its frame folders.

    Args:
        video: path (``str`` or ``Path``) of a video file, of a part of it (``clip.mp4#t=0.5,1.0``: the frames from
            0.5 s on and before 1.0 s, counted from the first frame) or of a folder of frames; a list of frames (paths,
            PIL images, uint8 arrays ``[H, W, 3]``); a uint8 array ``[T, H, W, 3]``; ``bytes`` of a video file or a
            binary stream of them, which is read once from its current position.
        num_frames: frames to return; a shorter clip repeats some.
        sampling: see :func:`hound_plugin.media.frame_sampling.sample_indices`.
        decoder: ``auto`` and ``pyav`` are the exact reference; ``decord`` and ``torchcodec`` are refused for files of
            which they do not return the same frames.
        timeout: seconds. Files, folders, bytes and lists are then read by a child process, which is killed at the
            limit. It costs a copy of the frames through a pipe (about 15 ms for 8 frames of 720p).
        transform: applied to each frame, for large clips: only one frame at a time is in memory in full size.

    Returns:
        The frames, uint8 ``[num_frames, H, W, 3]``, RGB, upright, or transformed, with their
        numbers.

    Raises:
        SettingsError: an argument is unknown or outside its range.
        EnvironmentMismatchError: the decoder's package is not installed.
        MediaNotFoundError: the path does not exist, or it is an address (only local paths are read here).
        EmptyMediaError: there is no frame, or none in the part.
        MediaDecodeError: not a video, damaged, cut short, frames of unequal size, frames whose names leave their order
            open, a part of something without timestamps, or a file of which ``decoder`` does not return the exact
            frames.
        DecodeTimeoutError: decoding took longer than ``timeout``.
    """
    check_sampling(sampling, num_frames)
    backend = choose(decoder)
    video = _normalised(video)
    frames = Frames(describe_video(video), transform, isinstance(video, str))
    if timeout is not None:
        if not timeout > 0:
            raise SettingsError(f"Expected decode_timeout in seconds above 0; got {timeout!r}.")
        if not _in_memory(video):
            return read_in_child(video, num_frames, sampling, decoder, timeout, frames)
    return read_here(video, num_frames, sampling, backend, frames)


def probe(video: Any, decoder: str = "auto") -> VideoInfo:
    """Check a clip without decoding it, to find bad media before training starts.

    It takes 0.3 ms (small pictures) to 13 ms (720p) for a file and 0.1 ms for a folder of 25
    frames; a part of an MP4, MOV, Matroska or WebM file takes reading all packet headers (7 to 14 ms). It cannot see
    damage after the header, nor whether a part of another kind of file contains a frame.

    Args:
        video: as in :func:`read_clip`. A binary stream is read, then reset to its position if it can seek.
        decoder: as in :func:`read_clip`; for decoders other than ``auto`` and ``pyav``, packet headers are read too.

    Raises:
        MediaError: as :func:`read_clip`, as far as the header shows.
    """
    position = video.tell() if hasattr(video, "seekable") and video.seekable() else None
    media = _normalised(video)
    if position is not None:
        video.seek(position)
    if isinstance(media, str):
        return _probe_path(media, choose(decoder))
    if isinstance(media, bytes):
        check(choose(decoder), media)
        return container.probe_container(media)
    return still.probe_frames(media)


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
            raise MediaDecodeError(f"Expected a binary stream; its read() returned {type(content).__name__}.")
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


def _probe_path(video: str, decoder: Decoder) -> VideoInfo:
    kind, path, *part = file_or_folder(video)
    if kind == "folder":
        return still.probe_folder(path)
    info = container.probe_container(path)
    check(decoder, path)
    index = container.index_by_headers(path) if path != video else None
    if index is not None:
        frames_within(index, path, *part)
    return info
