"""Clips and images of a row, in every form that a field may have."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from hound_plugin.records import fields
from hound_plugin.records.media_paths import cut_part, is_image_path
from hound_plugin.records.record import Findings, Media, MediaKind, Words, shown

_PATHS = ("path", "url", "video", "image", "video_url", "image_url", "file")
_PARTS = (*fields.STARTS, *fields.ENDS)
_PART_KEYS = frozenset((*_PATHS, "bytes", "type", *_PARTS))


def read_media(row: Mapping[str, Any], findings: Findings) -> tuple[Media, ...]:
    """The clips or the images that a row's fields name, without ``start`` and ``end`` of the row."""
    videos = _of_kind(row, fields.VIDEOS, "video", findings)
    images = _of_kind(row, fields.IMAGES, "image", findings)
    if videos and images:
        names = f"{shown(videos[0].names, 60)} and {shown(images[0].names, 60)}"
        findings.problem("clip and image", "video", "clips or images in one row", Words(names))
    return videos or images


def read_last_media(row: Mapping[str, Any], findings: Findings) -> tuple[Media, ...]:
    """The clip of a row in which only an id names media."""
    return _of_kind(row, fields.LAST_VIDEOS, "video", findings)


def _of_kind(row: Mapping[str, Any], names: tuple[str, ...], kind: MediaKind, findings: Findings) -> tuple[Media, ...]:
    if row.keys().isdisjoint(names):
        return ()
    given = [(name, row[name]) for name in names if row.get(name) not in (None, "", [], ())]
    if not given:
        return ()
    media = [items_of(value, kind, name, findings) for name, value in given]
    for (name, value), other in zip(given[1:], media[1:], strict=True):
        if other != media[0] and not (name in fields.NAMES_OF_MEDIA and _is_name_of(other, media[0])):
            findings.problem("media twice", name, f"the same media as in `{given[0][0]}`", value)
    return media[0]


def _is_name_of(named: tuple[Media, ...], media: tuple[Media, ...]) -> bool:
    """Whether ``named`` is the name of ``media``: one path is the other's end, whole folders compared.

    ``named`` may lack the suffix. For bytes any name will do.
    """
    if len(named) != 1 or len(media) != 1 or named[0].frames or media[0].frames:
        return False
    if media[0].bytes is not None:
        return True
    name, path = PurePosixPath(named[0].path), PurePosixPath(media[0].path)
    if name.name not in (path.name, path.stem):
        return False
    folders = list(zip(reversed(name.parts[:-1]), reversed(path.parts[:-1]), strict=False))
    return all(first == second for first, second in folders)


def items_of(value: Any, kind: MediaKind, where: str, findings: Findings) -> tuple[Media, ...]:
    """The media of one field: a path, a list of paths or of lists of frames, ``{"path", "bytes"}``."""
    if not isinstance(value, list | tuple):
        media = _item(value, kind, where, findings)
        return () if media is None else (media,)
    if kind == "video" and value and all(is_image_path(_path(item)) for item in value):
        value = [value]  # the frames of one clip
    items = (_item(item, kind, where, findings) for item in value)
    return tuple(item for item in items if item is not None)


def _item(value: Any, kind: MediaKind, where: str, findings: Findings) -> Media | None:
    if not isinstance(value, str) and isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str) and value.strip() and "\n" not in value:
        return Media(kind, value)
    if isinstance(value, list | tuple) and kind == "video" and value and all(_path(item) for item in value):
        return _clip_of_frames(value, where, findings)
    if isinstance(value, Mapping):
        return item_of_mapping(value, kind, where, findings)
    findings.problem("media field", where, "a path, a list of paths, or an object with `path`", value)
    return None


def _path(item: Any) -> str:
    """The path in a text or in ``{"path"}``; empty for anything else."""
    path = item.get("path") if isinstance(item, Mapping) else item
    path = os.fspath(path) if isinstance(path, os.PathLike) else path
    return path if isinstance(path, str) else ""


def _clip_of_frames(value: Sequence[Any], where: str, findings: Findings) -> Media | None:
    frames = []
    for item in value:
        frame = _item(item, "image", where, findings)
        if frame is not None and frame.bytes is not None:
            findings.problem("media field", where, "frames as paths", Words("bytes"))
        frames.append(frame)
    if any(frame is None or frame.bytes is not None for frame in frames):
        return None
    return Media("video", frames=tuple(frame.path for frame in frames if frame is not None))


def item_of_mapping(value: Mapping[str, Any], kind: MediaKind, where: str, findings: Findings) -> Media | None:
    """``{"path", "bytes"}`` as `datasets` represents media, or ``{"video" | "image" | "url": path, "start", "end"}``.

    A path may itself be an object, ``{"video_url": {"url": path}}``; its keys count as those of the outer one.
    """
    given = _flat(value, where, findings)
    if not check_keys(given, kind, where, findings):
        return None
    paths = [given[name] for name in _PATHS if name in given]
    content = given.get("bytes")
    if content is not None and not isinstance(content, bytes):
        findings.problem("media field", f"{where}.bytes", "bytes", content)
        return None
    if any(path != paths[0] for path in paths[1:]):
        findings.problem("media twice", where, "one path", paths)
        return None
    if not paths and content is None:
        findings.problem("media field", where, "an object with `path`, `url` or `bytes`", value)
        return None
    media = _item(paths[0], kind, where, findings) if paths else Media(kind)
    if media is None:
        return None
    if content is not None and media.frames:
        findings.problem("media field", where, "a list of frames or `bytes`", Words("both"))
    (with_part,) = with_parts((replace(media, bytes=content),), given, findings, f"{where}.")
    return with_part


def names_media(value: Mapping[str, Any]) -> bool:
    """Whether an object has a path, bytes, or a part of a clip."""
    return any(name != "type" for name in _PART_KEYS & value.keys())


def _flat(value: Mapping[str, Any], where: str, findings: Findings) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, item in value.items():
        inner = _flat(item, where, findings) if name in _PATHS and isinstance(item, Mapping) else {name: item}
        for key, content in inner.items():
            if content in (None, ""):
                continue
            if key in flat and flat[key] != content:
                findings.problem("media twice", f"{where}.{key}", f"one `{key}`", [flat[key], content])
            flat.setdefault(key, content)
    return flat


def check_keys(given: Mapping[str, Any], kind: MediaKind, where: str, findings: Findings) -> bool:
    """Note unknown and refused keys of an object that names media; returns whether all of them fit this kind."""
    all_fit = True
    other = "image" if kind == "video" else "video"
    for name, value in given.items():
        if (name == "type" and isinstance(value, str) and other in value) or name in (other, f"{other}_url"):
            article = {"video": "a clip", "image": "an image"}
            findings.problem("clip and image", f"{where}.{name}", f"a key for {article[kind]}", value)
            all_fit = False
        elif name in fields.REFUSED and value is not False:
            findings.problem("not honoured", f"{where}.{name}", f"no `{name}`: {fields.REFUSED[name]}", value)
        elif name not in _PART_KEYS and name not in fields.REFUSED and value is not False:
            findings.unknown_at(where, name)
    return all_fit


def with_parts(media: tuple[Media, ...], row: Mapping[str, Any], findings: Findings, at: str = "") -> tuple[Media, ...]:
    """Media with the ``start`` and ``end`` that ``row`` gives."""
    if row.keys().isdisjoint(_PARTS):
        return media
    given = {
        side: _seconds(row, names, at, findings) for side, names in (("start", fields.STARTS), ("end", fields.ENDS))
    }
    if given["start"] is None and given["end"] is None:
        return media
    where = at + next(name for name in _PARTS if row.get(name) is not None)
    start, end = given["start"], given["end"]
    if len(media) != 1:
        findings.problem("part of a clip", where, "one clip in the row (or `start` and `end` inside each)", len(media))
    elif media[0].kind == "image" or media[0].frames:
        what = "an image" if media[0].kind == "image" else "a list of frames"
        findings.problem("part of a clip", where, "a video file, which has timestamps", Words(what))
    elif media[0].start is not None or media[0].end is not None or cut_part(media[0].path)[1]:
        findings.problem(
            "part of a clip", where, "start and end given only once", Words(f"another part in {shown(media[0].path)}")
        )
    elif (start or 0.0) >= (math.inf if end is None else end):
        findings.problem("part of a clip", where, "`start` before `end`, in seconds", (start, end))
    else:
        return (replace(media[0], start=start, end=end),)
    return media


def _seconds(row: Mapping[str, Any], names: tuple[str, ...], at: str, findings: Findings) -> float | None:
    given = [(name, row[name]) for name in names if row.get(name) is not None]
    seconds: list[float] = []
    for name, value in given:
        try:
            number = math.nan if isinstance(value, bool) or "_" in str(value) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not 0 <= number < math.inf:
            findings.problem("part of a clip", at + name, "seconds, at least 0", value)
            return None
        seconds.append(number)
    if len(set(seconds)) > 1:
        findings.problem("part of a clip", at + given[1][0], f"the same as `{given[0][0]}`", given[1][1])
    return seconds[0] if seconds else None
