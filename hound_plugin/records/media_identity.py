"""Identity of media: is this the same content as before?"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Hashable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hound_plugin.errors import MediaError
from hound_plugin.records.frame_order import list_frames
from hound_plugin.records.media_paths import cut_part, split_part

_BLOCK = 1 << 20
_SAMPLE = 1 << 16  # bytes read at the head, in the middle and at the tail of a file


def media_identity(media: Any, in_process: bool = False, same_machine: bool = True) -> Hashable | None:
    """A value that changes when the content of media changes, computed without reading full files.

    A file is identified by its size, modification time and a digest of its head, middle and tail (0.1 ms); a folder by
    its frames in order, with their names; a part of a clip by its file, start and end.

    Args:
        media: as :func:`hound_plugin.media.decode.read_clip` takes it.
        in_process: for use within one process: files by path, size, inode and times of change, without opening them;
            bytes and arrays by their SHA-256. Otherwise the identity is the same in every process and on every
            machine that has the same files, whatever their folder.
        same_machine: False, with ``in_process``: for the processes of one job on several machines, which see one file
            under one path; without inode, device and time of change, which each machine may number for itself.

    Returns:
        Nested tuples of texts and numbers, which fit into JSON; None if the identity is unknown: paths that cannot be
        examined (whoever reads them says why), other media in memory, and without ``in_process`` all media in memory.
    """
    try:
        if isinstance(media, str | Path):
            return _of_path(str(media), in_process, same_machine)
        if isinstance(media, list | tuple) and media and all(isinstance(item, str | Path) for item in media):
            paths = tuple(_of_path(str(item), in_process, same_machine) for item in media)
            return ("list", *paths) if in_process else paths
        return _of_memory(media) if in_process else None
    except (OSError, ValueError):  # MediaError is one
        return None


def content_digest(media: Any) -> str | None:
    """A digest of what a clip shows, whatever its folder and its times: is this still the clip that was shown?

    Of each file its size, head, middle and tail count (0.1 ms); of a folder its frames in order, whatever their names;
    of a part its start and end.

    Args:
        media: a file (or a part of it), a folder of frames, or a list of frames.

    Returns:
        SHA-256 in hex; None if it cannot be examined (whoever reads it says why).
    """
    try:
        content = [_content(str(item)) for item in (media if isinstance(media, list | tuple) else [media])]
    except (OSError, ValueError):  # MediaError is one
        return None
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _content(text: str) -> list[Any]:
    bare, start, end = split_part(text)
    files = list_frames(bare) if os.path.isdir(bare) else [bare]
    stamps = [_stamp(file, False) for file in files]  # size, time, digest
    return [[[stamp[0], stamp[2]] for stamp in stamps], start or None, end]


def media_digest(paths: Any) -> str:
    """SHA-256 of the content of a clip, read from its files, whatever their folder.

    Args:
        paths: a file (or a part of it), a folder of frames, or a list of frames. What is missing, or has no clear
            order, counts as empty.
    """
    digest = hashlib.sha256()
    for item in paths if isinstance(paths, list) else [paths]:
        if item is None:
            continue
        path, part = cut_part(str(item))
        for file in _files(path):
            name = os.path.basename(file).encode("utf-8", "surrogateescape")
            digest.update(b"%s\x00%d\x00" % (name, os.path.getsize(file)))
            with open(file, "rb") as data:
                while block := data.read(_BLOCK):
                    digest.update(block)
        if part:
            digest.update(f"\x00{_span(str(item))}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _of_path(text: str, in_process: bool, same_machine: bool) -> Hashable:
    bare, start, end = split_part(text)
    path = os.path.abspath(bare)
    identity: tuple[Hashable, ...]
    if os.path.isdir(path):
        frames = list_frames(path)
        stamps = tuple((os.path.basename(frame), *_stamp(frame, in_process, same_machine)) for frame in frames)
        identity = (path, stamps) if in_process else stamps
    else:
        identity = (path, *_stamp(path, in_process, same_machine)) if in_process else _stamp(path, in_process)
    return identity if start is end is None else (identity, "part", start, end)


def _stamp(path: str, in_process: bool, same_machine: bool = True) -> tuple[int | str, ...]:
    status = os.stat(path)
    if in_process and not same_machine:
        return status.st_size, status.st_mtime_ns
    if in_process:
        return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} is not a regular file")
    return status.st_size, status.st_mtime_ns, sampled_digest(path)


def sampled_digest(path: str) -> str:
    """SHA-256 of the head, the middle and the tail of a file; of all of it, if it is small."""
    with open(path, "rb", buffering=0) as file:
        return sampled_digest_of(file)


def sampled_digest_of(file: BinaryIO) -> str:
    """:func:`sampled_digest` of an open file."""
    size, digest = file.seek(0, os.SEEK_END), hashlib.sha256()
    starts = (0,) if size <= 3 * _SAMPLE else (0, (size - _SAMPLE) // 2, size - _SAMPLE)
    for start in starts:
        file.seek(start)
        digest.update(file.read(size if len(starts) == 1 else _SAMPLE))
    return digest.hexdigest()


def _of_memory(media: Any) -> Hashable | None:
    if isinstance(media, bytes | bytearray | memoryview):
        return "bytes", hashlib.sha256(media).hexdigest()
    if isinstance(media, np.ndarray) and not media.dtype.hasobject:
        content = np.ascontiguousarray(media)
        return "array", content.shape, content.dtype.str, hashlib.sha256(content.data).hexdigest()
    return None


def _files(path: str) -> list[str]:
    """The files of a clip."""
    if not os.path.isdir(path):
        return [path] if os.path.isfile(path) else []
    try:
        return [frame for frame in list_frames(path) if os.path.isfile(frame)]
    except MediaError:  # whoever reads it says why
        return []


def _span(path: str) -> str:
    """The part that a path names, in one spelling."""
    try:
        return repr(split_part(path)[1:])
    except MediaError:
        return cut_part(path)[1]
