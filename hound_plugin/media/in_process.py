"""Reading a clip in this process: a file with a decoder, or extracted frames.

:mod:`hound_plugin.media.decode` checks the arguments; :mod:`hound_plugin.media.worker` does the same in a child.
"""

from __future__ import annotations

import bisect
import os
import stat
from typing import Any

import numpy as np

from hound_plugin.errors import EmptyMediaError, MediaDecodeError, MediaNotFoundError
from hound_plugin.media import container
from hound_plugin.media import frames as still
from hound_plugin.media.backends import Decoder, decode
from hound_plugin.media.clip import Clip, Frames
from hound_plugin.media.container import FrameIndex
from hound_plugin.media.frame_sampling import FrameSampling, sample_indices
from hound_plugin.media.streams import NotExactError, Source, describe
from hound_plugin.records.media_paths import is_image_path, refuse_part, split_part, why_absent


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
        frames: receives the frames.
        special_files: also open pipes and devices, which may block forever.
    """

    def spread(total: int) -> list[int]:
        return sample_indices("uniform", total, num_frames)

    if isinstance(video, str):
        kind, path, *part = file_or_folder(video, special_files)
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
        within = frames_within(index, source, start, end)
        times = index.times(within)
        return [within.start + i for i in sample_indices(sampling, len(within), num_frames, index.fps, times=times)]

    index = container.build_index(source)
    indices = sampled(index)
    try:
        decode(decoder, source, index, indices, frames)
    except NotExactError:
        index = container.count_by_decoding(source)
        indices = sampled(index)
        decode(decoder, source, index, indices, frames)
    return Clip(frames.finished(), indices, index.fps, index.total, frames.source, decoder.name)


def frames_within(index: FrameIndex, source: Source, start: float | None, end: float | None) -> range:
    """Numbers of the frames presented from ``start`` on and before ``end`` (seconds; None: no limit)."""
    first = 0 if start is None else bisect.bisect_left(index.seconds, start)
    after = index.total if end is None else bisect.bisect_left(index.seconds, end)
    if first >= after:
        span = f"from {start or 0:g} s " + ("on" if end is None else f"to {end:g} s")
        raise EmptyMediaError(
            f"There is no frame {span} in {describe(source)}: the clip has {index.total} frame(s) in "
            f"{index.duration:.3f} s, the last one at {index.seconds[-1]:.3f} s. Correct the part.",
            source if isinstance(source, str) else None,
        )
    return range(first, after)


def describe_video(video: Any) -> str:
    if isinstance(video, str | bytes):
        return describe(video)
    return f"<list of {len(video)} frames>" if isinstance(video, list) else f"<array {np.shape(video)}>"


def file_or_folder(video: str, special_files: bool = False) -> tuple[str, str, float | None, float | None]:
    """``file`` or ``folder``, its path, and the start and end of the requested part."""
    path, start, end = split_part(video)
    kind = _kind(path, special_files)
    if path != video and (kind == "folder" or is_image_path(path)):
        raise refuse_part(video, "a folder of frames" if kind == "folder" else "an image")
    return kind, path, start, end


def _kind(path: str, special_files: bool = False) -> str:
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        reason = why_absent(path) or getattr(error, "strerror", None) or error
        raise MediaNotFoundError(
            f"No video at {path}: {reason}. Expected a video file or a folder of frames; check the path and "
            "`media_dir`.",
            path,
        ) from error
    if stat.S_ISDIR(mode):
        return "folder"
    if not stat.S_ISREG(mode) and not special_files:
        raise MediaDecodeError(
            f"Cannot decode {path}: it is a pipe, socket or device, which could block forever. Give a regular file, "
            "or set `decode_timeout`.",
            path,
        )
    return "file"
