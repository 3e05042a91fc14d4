"""What a path of media means: its suffix, where the file is, and the part of a clip that it names.

A part is a W3C media fragment with seconds, ``clip.mp4#t=0.5,1.0``; either side may be missing. If a file of that
literal name exists, the path means that file, not a part (https://www.w3.org/TR/media-frags/#naming-time).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from decimal import Decimal
from numbers import Real
from typing import Any

from hound_plugin.errors import DataError, MediaDecodeError, MediaError
from hound_plugin.records.row_sources import is_url

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
VIDEO_SUFFIXES = (
    ".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv", ".ts", ".3gp", ".gif",
    ".mts", ".m2ts", ".m2t", ".ogv", ".ogm", ".3g2", ".vob", ".mxf", ".asf", ".f4v", ".mpe", ".m1v", ".m2v", ".mk3d",
    ".qt", ".divx", ".dv", ".y4m", ".ivf", ".mjpeg", ".mjpg", ".rm", ".rmvb", ".h264", ".264", ".h265", ".265", ".hevc",
)  # fmt: skip
"""Suffixes by which a clip is recognised among other files; a clip that is named may have any suffix."""
_OF_SYSTEMS = frozenset(
    ("@eadir", "#recycle", "#snapshot", "$recycle.bin", "system volume information", "__macosx", "lost+found")
)
"""Folders that file servers and systems keep among the user's own: thumbnails, deleted files, other versions."""
_MARK = "#t="
_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+")


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is none of the user's own: hidden, or kept by a file server or a system."""
    return name.startswith(".") or name.lower() in _OF_SYSTEMS


def is_image_path(item: Any) -> bool:
    """Whether an item is a path with the suffix of an image, ignoring a part after it."""
    if not isinstance(item, str | os.PathLike):
        return False
    return os.path.splitext(cut_part(os.fsdecode(item))[0])[1].lower() in IMAGE_SUFFIXES


def bare_name(path: str) -> str:
    """The last part of a path without the suffix of a clip or an image; a folder ``v1.5`` is ``v1.5``."""
    name = os.path.basename(os.path.normpath(path)) if path else ""
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in VIDEO_SUFFIXES + IMAGE_SUFFIXES else name


def check_name(path: str) -> str:
    """Return a path whose name is valid UTF-8, as every file of records, log and table that names it must be.

    Raises:
        MediaDecodeError: the name is not valid UTF-8.
    """
    try:
        path.encode("utf-8")
    except UnicodeEncodeError as error:
        raise MediaDecodeError(
            f"Expected a path in UTF-8; got {path!a}. Rename the file, for example with convmv.",
            path,
        ) from error
    return path


def media_exists(path: str) -> bool:
    """Whether there is a file or a folder at a path, ignoring a part after it."""
    return bool(path) and os.path.exists(cut_part(path)[0])


def find_media(name: str, media_dir: str | None) -> str | None:
    """The path of a clip, a folder of frames or an image: under ``media_dir``, or else unchanged; None if absent.

    An absolute path is used unchanged, ``..`` is left to the file system, and a part stays with its path.
    """
    return next((candidate for candidate in _candidates(name, media_dir) if media_exists(candidate)), None)


def why_absent(name: str, media_dir: str | None = None) -> str:
    """For messages: absent media are at a URL, or behind a dangling link; empty if neither is so."""
    if is_url(name):
        return f"{name} is at a URL, and media are read from disks: download it, or mount the bucket"
    for candidate in _candidates(name, media_dir):
        if os.path.islink(candidate):
            return f"{candidate} is a link to {os.readlink(candidate)}, which does not exist"
    return ""


def _candidates(name: str, media_dir: str | None) -> tuple[str, ...]:
    """Possible paths of media; an empty name does not mean the folder itself."""
    return (os.path.join(media_dir, name) if media_dir else name, name) if name else ()


# --- parts of clips


def cut_part(path: str) -> tuple[str, str]:
    """A path without its part, and the part as written (``#t=...``, or empty). The part is not checked."""
    position = path.rfind(_MARK)
    if position <= 0 or "#" in path[position + 1 :] or "/" in path[position:] or os.path.exists(path):
        return path, ""
    return path[:position], path[position:]


def split_part(path: str, fragment: str | None = None) -> tuple[str, float | None, float | None]:
    """The path, and the start and the end of the part that it names, in seconds; None for a side that is missing.

    Args:
        path: with or without a part.
        fragment: what an address has after its ``#``; then ``path`` is the whole name, whatever it ends with.

    Raises:
        MediaError: the part is malformed, or does not end after it starts.
    """
    bare, part = cut_part(path) if fragment is None else (path, f"#{fragment}" if fragment else "")
    if not part:
        return path, None, None
    begin, _, finish = part[len(_MARK) :].partition(",")
    start = float(begin) if _SECONDS.fullmatch(begin) else None
    end = float(finish) if _SECONDS.fullmatch(finish) else None
    unread = (begin and start is None) or (finish and end is None) or start is end is None
    if not part.startswith(_MARK) or unread or not _is_span(start, end):
        raise MediaError(
            f"Expected a part of a clip as #t=START,END in seconds with 0 <= START < END (one of them may be missing), "
            f"got {part!r} at the end of {bare}. Write for example #t=0.5,1.25; no file has that full name either.",
            path,
        )
    return bare, start, end


def with_part(path: str, start: float | None, end: float | None) -> str:
    """The path of a part of a clip.

    Args:
        path: of the full clip.
        start, end: seconds from the first frame; the first frame at ``end`` or later is left out. None means
            from the beginning or to the end; if both are None, the path is returned unchanged.

    Raises:
        DataError: a number is negative or not finite, the part ends before it starts, or the path already names one.
    """
    for value in (start, end):
        if value is not None and (isinstance(value, bool) or not isinstance(value, Real)):
            raise DataError(f"Expected start and end of a part of {path} as numbers of seconds, got {value!r}.")
    if not _is_span(start, end):
        raise DataError(
            f"Expected a part of {path} with 0 <= start < end in seconds, got {start} and {end}. Correct them."
        )
    if start is None and end is None:
        return path
    if cut_part(path)[1]:
        raise DataError(f"Expected the path of a full clip, got {path}, which already names a part. Give only one.")
    return f"{path}{_MARK}{_written(start)}" + ("" if end is None else f",{_written(end)}")


def clip_key(paths: Iterable[str]) -> tuple[str, ...]:
    """What two ways to write one clip have in common: its real files, and its part in one spelling.

    ``./a.mp4``, ``a.mp4`` and a link to it are one clip, as are ``a.mp4#t=,2`` and ``a.mp4#t=0,2.0``; another part of
    the same file is another clip.

    Args:
        paths: of one clip or image, in order; relative to the working folder, whether they exist or not.
    """
    return tuple(map(_canonical, paths))


def _canonical(path: str) -> str:
    return os.path.realpath(cut_part(path)[0]) + canonical_part(path)


def canonical_part(path: str) -> str:
    """The part that a path names, in one spelling; empty for a whole clip."""
    part = cut_part(path)[1]
    if part:
        try:
            _, start, end = split_part(path)
            part = with_part("", start or None, end)
        except MediaError:  # whoever reads it says why
            pass
    return part


def refuse_part(path: str, what: str) -> MediaDecodeError:
    """The error for a part of something without timestamps.

    Args:
        path: as it was given, part included.
        what: ``a folder of frames``, ``a list of frames`` or ``an image``.
    """
    return MediaDecodeError(
        f"Expected no part for {path}: {what} has no timestamps. Remove "
        f"{cut_part(path)[1]!r} and name the frames themselves, or give the video file.",
        path,
    )


def _is_span(start: float | None, end: float | None) -> bool:
    low, high = 0.0 if start is None else start, math.inf if end is None else end
    return 0 <= low < high and (end is None or math.isfinite(end))


def _written(seconds: float | None) -> str:
    """Seconds without an exponent, at full precision."""
    return "" if seconds is None else format(Decimal(repr(float(seconds))), "f").removesuffix(".0")
