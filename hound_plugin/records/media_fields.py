"""Clips and images of a row, in every form that a field may hold them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

from hound_plugin.records import fields
from hound_plugin.records.media_paths import is_image_path
from hound_plugin.records.record import Findings, Media, MediaKind, Words, shown

_PATHS = ("path", "url", "video", "image", "video_url", "image_url", "file")
_PARTS = (*fields.STARTS, *fields.ENDS)
_PART_KEYS = frozenset((*_PATHS, "bytes", "type", *_PARTS))


def read_media(row: Mapping[str, Any], found: Findings) -> tuple[Media, ...]:
    """The clips or the images that a row's fields name; ``start`` and ``end`` of the row are applied."""
    videos = _of_kind(row, fields.VIDEOS, "video", found) or _of_kind(row, fields.LAST_VIDEOS, "video", found)
    images = _of_kind(row, fields.IMAGES, "image", found)
    if videos and images:
        names = f"{shown(videos[0].names, 60)} and {shown(images[0].names, 60)}"
        found.problem("clip and image", "video", "clips or images in one row", Words(names))
    return with_parts(videos or images, row, found)


def _of_kind(row: Mapping[str, Any], names: tuple[str, ...], kind: MediaKind, found: Findings) -> tuple[Media, ...]:
    if row.keys().isdisjoint(names):
        return ()
    given = [(name, row[name]) for name in names if row.get(name) not in (None, "", [], ())]
    if not given:
        return ()
    read = [items_of(value, kind, name, found) for name, value in given]
    if any(other != read[0] for other in read[1:]):
        found.problem("media twice", given[1][0], f"the same media as in `{given[0][0]}`", given[1][1])
    return read[0]


def items_of(value: Any, kind: MediaKind, where: str, found: Findings) -> tuple[Media, ...]:
    """The media that one field holds: a path, a list of paths or of lists of frames, ``{"path", "bytes"}``."""
    if not isinstance(value, list | tuple):
        one = _item(value, kind, where, found)
        return () if one is None else (one,)
    if kind == "video" and value and all(isinstance(item, str) and is_image_path(item) for item in value):
        return (Media("video", frames=tuple(value)),)
    read = (_item(item, kind, where, found) for item in value)
    return tuple(item for item in read if item is not None)


def _item(value: Any, kind: MediaKind, where: str, found: Findings) -> Media | None:
    if not isinstance(value, str) and isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str) and value.strip() and "\n" not in value:
        return Media(kind, value)
    if isinstance(value, list | tuple) and kind == "video" and value and all(_is_path(item) for item in value):
        return Media(kind, frames=tuple(_path(item) for item in value))
    if isinstance(value, Mapping):
        return item_of_mapping(value, kind, where, found)
    found.problem("media field", where, "a path, a list of paths, or an object with `path`", value)
    return None


def _is_path(item: Any) -> bool:
    return isinstance(_path(item), str) and bool(_path(item))


def _path(item: Any) -> Any:
    return item.get("path") if isinstance(item, Mapping) and item.get("bytes") is None else item


def item_of_mapping(value: Mapping[str, Any], kind: MediaKind, where: str, found: Findings) -> Media | None:
    """``{"path", "bytes"}`` as `datasets` gives media, and ``{"video" | "image" | "url": path, "start", "end"}``."""
    for name in value:
        if value[name] in (None, "", False) or name in _PART_KEYS:
            continue
        if name in fields.REFUSED:
            found.problem("not honoured", f"{where}.{name}", f"no `{name}`: {fields.REFUSED[name]}", value[name])
        else:
            found.unknown.append(f"{where}.{name}")
    content = value.get("bytes")
    if content is not None and not isinstance(content, bytes):
        found.problem("media field", f"{where}.bytes", "bytes", content)
        return None
    paths = [value[name] for name in _PATHS if value.get(name) is not None]
    path = paths[0].get("url", paths[0].get("path")) if paths and isinstance(paths[0], Mapping) else (paths or [""])[0]
    if isinstance(path, list | tuple) and path and all(isinstance(item, str) for item in path) and kind == "video":
        read = Media(kind, frames=tuple(path))
    elif isinstance(path, str) and (path or content is not None):
        read = Media(kind, path, bytes=content)
    else:
        found.problem("media field", where, "an object with `path`, `url` or `bytes`", value)
        return None
    (with_part,) = with_parts((read,), value, found, f"{where}.")
    return with_part


def with_parts(media: tuple[Media, ...], row: Mapping[str, Any], found: Findings, at: str = "") -> tuple[Media, ...]:
    """Media with the ``start`` and ``end`` that stand beside them."""
    if row.keys().isdisjoint(_PARTS):
        return media
    given = {side: _seconds(row, names, at, found) for side, names in (("start", fields.STARTS), ("end", fields.ENDS))}
    if given["start"] is None and given["end"] is None:
        return media
    where = at + next(name for name in _PARTS if row.get(name) is not None)
    start, end = given["start"], given["end"]
    if len(media) != 1:
        found.problem("part of a clip", where, "one clip beside it (or `start` and `end` inside each)", len(media))
    elif media[0].kind == "image" or media[0].frames:
        what = "an image" if media[0].kind == "image" else "a list of frames"
        found.problem("part of a clip", where, "a video file: there is no clock", Words(what))
    elif media[0].start is not None or media[0].end is not None:
        found.problem("part of a clip", where, "one place that says it", Words("one in the row and one in its clip"))
    elif (start or 0.0) >= (math.inf if end is None else end):
        found.problem("part of a clip", where, "`start` before `end`, in seconds", (start, end))
    else:
        return (Media("video", media[0].path, bytes=media[0].bytes, start=start, end=end),)
    return media


def _seconds(row: Mapping[str, Any], names: tuple[str, ...], at: str, found: Findings) -> float | None:
    given = [(name, row[name]) for name in names if row.get(name) is not None]
    read: list[float] = []
    for name, value in given:
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not 0 <= number < math.inf:
            found.problem("part of a clip", at + name, "seconds of at least 0", value)
            return None
        read.append(number)
    if len(set(read)) > 1:
        found.problem("part of a clip", at + given[1][0], f"the same as `{given[0][0]}`", given[1][1])
    return read[0] if read else None
