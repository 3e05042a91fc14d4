"""Clips that are frames already: a folder of images, a list of images, an array."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hound_plugin.errors import EmptyMediaError, MediaDecodeError, MediaNotFoundError
from hound_plugin.media.clip import Clip, VideoInfo, check_size
from hound_plugin.records.frame_order import list_frames
from hound_plugin.records.media_paths import cut_part, refuse_part

Sampler = Callable[[int], list[int]]


def read_folder(folder: str, sampler: Sampler) -> Clip:
    """Open the sampled frames of a folder, and only those.

    Raises:
        EmptyMediaError: there is no image in it.
        MediaDecodeError: the names do not tell the order, a frame is damaged, or frames differ in size.
    """
    return read_list(list_frames(folder), sampler, folder)


def read_list(items: Sequence[Any], sampler: Sampler, source: str | None = None) -> Clip:
    """Open the sampled ones of a list of frames (paths, PIL images, bytes or uint8 arrays ``[H, W, 3]``).

    Raises:
        EmptyMediaError: the list is empty.
        MediaNotFoundError: a path does not exist.
        MediaDecodeError: a frame is damaged or of no known kind, or frames differ in size.
    """
    source = source or f"<list of {len(items)} frames>"
    if not len(items):
        raise EmptyMediaError("Expected a list of frames; got an empty list.")
    _check_whole(items)
    indices = sampler(len(items))
    opened = {index: _open(items[index], index) for index in sorted(set(indices))}
    first = indices[0]
    height, width = opened[first].shape[:2]
    for index, frame in opened.items():
        if frame.shape[:2] != (height, width):
            raise MediaDecodeError(
                f"Frames of {source} differ in size: {_name(items[first], first)} is {width}x{height}, "
                f"{_name(items[index], index)} is {frame.shape[1]}x{frame.shape[0]}. "
                "All frames of one clip must be of one size; extract them again or remove what does not belong.",
                source,
            )
    return Clip(np.stack([opened[i] for i in indices]), indices, None, len(items), source, "frames")


def read_array(video: Any, sampler: Sampler) -> Clip:
    """Take the sampled frames of an array ``[T, H, W, 3]``, uint8, RGB.

    Raises:
        MediaDecodeError: another shape or type.
        EmptyMediaError: ``T`` is 0.
    """
    array = _checked(video)
    indices = sampler(len(array))
    return Clip(np.ascontiguousarray(array[indices]), indices, None, len(array), f"<array {array.shape}>", "frames")


def probe_frames(video: Any) -> VideoInfo:
    """Look at the first frame of a list or an array (only its header if it is a file).

    Raises:
        MediaError: as :func:`read_list` and :func:`read_array`.
    """
    if hasattr(video, "__array__"):
        array = _checked(video)
        return VideoInfo("frames", len(array), None, array.shape[2], array.shape[1])
    if not len(video):
        raise EmptyMediaError("Expected a list of frames; got an empty list.")
    _check_whole(video)
    for item in video:
        if isinstance(item, str | Path) and not os.path.exists(item):
            raise MediaNotFoundError(f"Frame {item} does not exist.", str(item))
    width, height = _size(video[0])
    return VideoInfo("frames", len(video), None, width, height)


def probe_folder(folder: str) -> VideoInfo:
    """List a folder and read the header of its first frame (about 0.2 ms, and 10 ms per thousand files).

    Raises:
        MediaError: as :func:`read_folder`.
    """
    paths = list_frames(folder)
    width, height = _size(paths[0])
    return VideoInfo("folder", len(paths), None, width, height)


def _check_whole(items: Sequence[Any]) -> None:
    """Refuse parts: only a video file has a clock."""
    for item in items:
        if isinstance(item, str | Path) and cut_part(str(item))[1]:
            raise refuse_part(str(item), "a list of frames")


def _checked(video: Any) -> np.ndarray:
    array = np.asarray(video)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] != 3:
        raise MediaDecodeError(
            f"Expected an array of frames [T, H, W, 3] of uint8, RGB; got {list(array.shape)} of {array.dtype}."
        )
    if not len(array):
        raise EmptyMediaError(f"There is not one frame in the array {list(array.shape)}.")
    if 0 in array.shape:
        raise MediaDecodeError(f"Expected frames of at least one pixel; got an array {list(array.shape)}.")
    return array


def _name(item: Any, index: int) -> str:
    return str(item) if isinstance(item, str | Path) else f"frame {index}"


def _open(item: Any, index: int) -> np.ndarray:
    """One frame as uint8 ``[H, W, 3]``; alpha is dropped and EXIF orientation ignored, as the original does."""
    try:
        if isinstance(item, Image.Image):
            return np.asarray(item.convert("RGB"))
        if isinstance(item, str | Path | bytes):
            with Image.open(BytesIO(item) if isinstance(item, bytes) else item) as image:
                check_size(
                    image.width, image.height, _name(item, index), str(item) if isinstance(item, str | Path) else None
                )
                return np.asarray(image.convert("RGB"))
    except MediaDecodeError:
        raise
    except FileNotFoundError as error:
        raise MediaNotFoundError(f"Frame {item} does not exist.", str(item)) from error
    except Exception as error:
        raise _damaged(item, index, error) from error
    return _checked(np.asarray(item)[None])[0]


def _size(item: Any) -> tuple[int, int]:
    try:
        if isinstance(item, Image.Image):
            return item.size
        if isinstance(item, str | Path | bytes):
            with Image.open(BytesIO(item) if isinstance(item, bytes) else item) as image:
                return image.size
    except Exception as error:
        raise _damaged(item, 0, error) from error
    array = _checked(np.asarray(item)[None])
    return array.shape[2], array.shape[1]


def _damaged(item: Any, index: int, error: Exception) -> MediaDecodeError:
    path = str(item) if isinstance(item, str | Path) else None
    return MediaDecodeError(
        f"Cannot read the frame {_name(item, index)}: {error}. It is damaged or no image; extract it again or leave "
        "its clip out.",
        path,
    )
