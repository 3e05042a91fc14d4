"""Clips and images of a row, in every form that a field may hold them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hound_plugin.records import fields
from hound_plugin.records.media_paths import cut_part, is_image_path
from hound_plugin.records.record import Findings, Media, MediaKind, Words, shown

_PATHS = ("path", "url", "video", "image", "video_url", "image_url", "file")
_PARTS = (*fields.STARTS, *fields.ENDS)
_PART_KEYS = frozenset((*_PATHS, "bytes", "type", *_PARTS))


def read_media(row: Mapping[str, Any], found: Findings) -> tuple[Media, ...]:
    """The clips or the images that a row's fields name, without ``start`` and ``end`` of the row."""
    videos = _of_kind(row, fields.VIDEOS, "video", found)
    images = _of_kind(row, fields.IMAGES, "image", found)
    if videos and images:
        names = f"{shown(videos[0].names, 60)} and {shown(images[0].names, 60)}"
        found.problem("clip and image", "video", "clips or images in one row", Words(names))
    return videos or images


def read_last_media(row: Mapping[str, Any], found: Findings) -> tuple[Media, ...]:
    """The clip of a row in which nothing else names media: its id."""
    return _of_kind(row, fields.LAST_VIDEOS, "video", found)


def _of_kind(row: Mapping[str, Any], names: tuple[str, ...], kind: MediaKind, found: Findings) -> tuple[Media, ...]:
    if row.keys().isdisjoint(names):
        return ()
    given = [(name, row[name]) for name in names if row.get(name) not in (None, "", [], ())]
    if not given:
        return ()
    read = [items_of(value, kind, name, found) for name, value in given]
    for (name, value), other in zip(given[1:], read[1:], strict=True):
        if other != read[0] and not (name in fields.NAMES_OF_MEDIA and _is_name_of(other, read[0])):
            found.problem("media twice", name, f"the same media as in `{given[0][0]}`", value)
    return read[0]


def _is_name_of(named: tuple[Media, ...], media: tuple[Media, ...]) -> bool:
    """Whether one path is the name of one clip or image: of bytes any, of a path the same last part."""
    if len(named) != 1 or len(media) != 1 or named[0].frames or media[0].frames:
        return False
    one, other = (os.path.basename(item.path.rstrip("/")) for item in (named[0], media[0]))
    return media[0].bytes is not None or one == other or one == os.path.splitext(other)[0]


def items_of(value: Any, kind: MediaKind, where: str, found: Findings) -> tuple[Media, ...]:
    """The media that one field holds: a path, a list of paths or of lists of frames, ``{"path", "bytes"}``."""
    if not isinstance(value, list | tuple):
        one = _item(value, kind, where, found)
        return () if one is None else (one,)
    if kind == "video" and value and all(is_image_path(_path(item)) for item in value):
        value = [value]  # the frames of one clip
    read = (_item(item, kind, where, found) for item in value)
    return tuple(item for item in read if item is not None)


def _item(value: Any, kind: MediaKind, where: str, found: Findings) -> Media | None:
    if not isinstance(value, str) and isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str) and value.strip() and "\n" not in value:
        return Media(kind, value)
    if isinstance(value, list | tuple) and kind == "video" and value and all(_path(item) for item in value):
        return _clip_of_frames(value, where, found)
    if isinstance(value, Mapping):
        return item_of_mapping(value, kind, where, found)
    found.problem("media field", where, "a path, a list of paths, or an object with `path`", value)
    return None


def _path(item: Any) -> str:
    """The path of a text or of ``{"path"}``; empty for anything else."""
    path = item.get("path") if isinstance(item, Mapping) else item
    path = os.fspath(path) if isinstance(path, os.PathLike) else path
    return path if isinstance(path, str) else ""


def _clip_of_frames(value: Sequence[Any], where: str, found: Findings) -> Media | None:
    frames = []
    for item in value:
        frame = _item(item, "image", where, found)
        if frame is not None and frame.bytes is not None:
            found.problem("media field", where, "frames as paths", Words("bytes"))
        frames.append(frame)
    if any(frame is None or frame.bytes is not None for frame in frames):
        return None
    return Media("video", frames=tuple(frame.path for frame in frames if frame is not None))


def item_of_mapping(value: Mapping[str, Any], kind: MediaKind, where: str, found: Findings) -> Media | None:
    """``{"path", "bytes"}`` as `datasets` gives media, and ``{"video" | "image" | "url": path, "start", "end"}``.

    A path may be an object itself, ``{"video_url": {"url": path}}``; what stands in it counts as if beside it.
    """
    given = _flat(value, where, found)
    if not look_at_keys(given, kind, where, found):
        return None
    paths = [given[name] for name in _PATHS if name in given]
    content = given.get("bytes")
    if content is not None and not isinstance(content, bytes):
        found.problem("media field", f"{where}.bytes", "bytes", content)
        return None
    if any(path != paths[0] for path in paths[1:]):
        found.problem("media twice", where, "one path", paths)
        return None
    if not paths and content is None:
        found.problem("media field", where, "an object with `path`, `url` or `bytes`", value)
        return None
    read = _item(paths[0], kind, where, found) if paths else Media(kind)
    if read is None:
        return None
    if content is not None and read.frames:
        found.problem("media field", where, "a list of frames or `bytes`", Words("both"))
    (with_part,) = with_parts((replace(read, bytes=content),), given, found, f"{where}.")
    return with_part


def names_media(value: Mapping[str, Any]) -> bool:
    """Whether an object has a path, bytes, or a part of a clip."""
    return any(name != "type" for name in _PART_KEYS & value.keys())


def _flat(value: Mapping[str, Any], where: str, found: Findings) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, item in value.items():
        inner = _flat(item, where, found) if name in _PATHS and isinstance(item, Mapping) else {name: item}
        for key, given in inner.items():
            if given in (None, ""):
                continue
            if key in flat and flat[key] != given:
                found.problem("media twice", f"{where}.{key}", f"one `{key}`", [flat[key], given])
            flat.setdefault(key, given)
    return flat


def look_at_keys(given: Mapping[str, Any], kind: MediaKind, where: str, found: Findings) -> bool:
    """Note unknown and refused keys of an object that names media; whether all of them speak of this kind."""
    is_whole = True
    other = "image" if kind == "video" else "video"
    for name, value in given.items():
        if (name == "type" and isinstance(value, str) and other in value) or name in (other, f"{other}_url"):
            article = {"video": "a clip", "image": "an image"}
            found.problem("clip and image", f"{where}.{name}", f"what names {article[kind]}", value)
            is_whole = False
        elif name in fields.REFUSED and value is not False:
            found.problem("not honoured", f"{where}.{name}", f"no `{name}`: {fields.REFUSED[name]}", value)
        elif name not in _PART_KEYS and name not in fields.REFUSED and value is not False:
            found.unknown_at(where, name)
    return is_whole


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
    elif media[0].start is not None or media[0].end is not None or cut_part(media[0].path)[1]:
        found.problem(
            "part of a clip", where, "one place that says it", Words(f"another part in {shown(media[0].path)}")
        )
    elif (start or 0.0) >= (math.inf if end is None else end):
        found.problem("part of a clip", where, "`start` before `end`, in seconds", (start, end))
    else:
        return (replace(media[0], start=start, end=end),)
    return media


def _seconds(row: Mapping[str, Any], names: tuple[str, ...], at: str, found: Findings) -> float | None:
    given = [(name, row[name]) for name in names if row.get(name) is not None]
    read: list[float] = []
    for name, value in given:
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not 0 <= number < math.inf:
            found.problem("part of a clip", at + name, "seconds of at least 0", value)
            return None
        read.append(number)
    if len(set(read)) > 1:
        found.problem("part of a clip", at + given[1][0], f"the same as `{given[0][0]}`", given[1][1])
    return read[0] if read else None
