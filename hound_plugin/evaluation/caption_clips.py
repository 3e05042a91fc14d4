"""Which clips are to be described: files, folders and JSONL files, as somebody names them on the command line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hound_plugin.errors import DataError, MediaError, MediaNotFoundError
from hound_plugin.records.bad_rows import Place, RowReport
from hound_plugin.records.consumers import check
from hound_plugin.records.jsonl import read_rows
from hound_plugin.records.media_paths import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    clip_key,
    cut_part,
    find_media,
    is_hidden,
    is_image_path,
    media_exists,
    split_part,
    why_absent,
    with_part,
)
from hound_plugin.records.parse import parse, row_id
from hound_plugin.records.record import Media, MediaKind, Problem
from hound_plugin.records.row_sources import is_url, names_rows

SHOWN = 5


@dataclass(frozen=True)
class ClipToDescribe:
    """One clip or image.

    Attributes:
        id: unique; of a row its own id, else the name.
        media: as it was named, for the rows that are written.
        paths: where it is.
        source: of its row.
    """

    id: str
    media: Media
    paths: tuple[str, ...]
    source: str = ""

    @property
    def kind(self) -> MediaKind:
        """``video`` or ``image``."""
        return self.media.kind


def list_clips(names: Sequence[str], media_dir: str | None) -> tuple[list[ClipToDescribe], list[str]]:
    """The clips that are named, each once, in their order.

    Args:
        names: videos (or parts of them), images, folders, and JSONL files of rows with a clip or an image each. A
            folder of pictures is one clip; any other folder stands for everything below it.
        media_dir: folder that all names but those of JSONL files are relative to; also without it, as they are.

    Returns:
        The clips, and remarks for the user.

    Raises:
        MediaNotFoundError: something is not there; the message lists the first ones.
        DataError: rows that cannot be used, a folder without clips or with clips and pictures side by side, or one id
            for two clips.
    """
    clips: list[ClipToDescribe] = []
    remarks: list[str] = []
    absent: list[str] = []
    for name in names:
        if names_rows(name) and not os.path.isdir(name) and not _is_clip_at_url(name):
            clips += _of_rows(name, media_dir, remarks, absent)
        else:
            clips += _of_path(name, media_dir, remarks, absent)
    for name in absent:
        if reason := why_absent(name, media_dir):
            raise MediaNotFoundError(f"Expected clips that exist: {reason}.")
    if absent:
        more = f" and {len(absent) - SHOWN} more" if len(absent) > SHOWN else ""
        where = f" (relative to {media_dir})" if media_dir else ""
        raise MediaNotFoundError(
            f"Expected clips that exist{where}; not found: {', '.join(absent[:SHOWN])}{more}. Check the paths and "
            "--media-dir."
        )
    return _without_repeats(clips, remarks), remarks


def _is_clip_at_url(name: str) -> bool:
    return is_url(name) and _is_named_as_media(urlsplit(name).path)


def _is_named_as_media(path: str) -> bool:
    return path.lower().endswith((*VIDEO_SUFFIXES, *IMAGE_SUFFIXES))


def _without_repeats(clips: Sequence[ClipToDescribe], remarks: list[str]) -> list[ClipToDescribe]:
    """Each clip once; the first of several rows about it gives the id."""
    by_clip: dict[tuple[str, ...], ClipToDescribe] = {}
    for clip in clips:
        by_clip.setdefault(clip_key(clip.paths), clip)
    ids: dict[str, ClipToDescribe] = {}
    for clip in by_clip.values():
        other = ids.setdefault(clip.id, clip)
        if other is not clip:
            raise DataError(
                f"Expected a different id for each clip; {clip.id!r} is {', '.join(other.paths[:1])} and "
                f"{', '.join(clip.paths[:1])}. Correct the rows."
            )
    if len(ids) < len(clips):
        remarks.append(f"{len(clips)} names or rows are about {len(ids)} clips; each is described once")
    return list(ids.values())


# --- paths


def _of_path(name: str, media_dir: str | None, remarks: list[str], absent: list[str]) -> list[ClipToDescribe]:
    path = find_media(name, media_dir)
    if path is None:
        absent.append(name)
        return []
    if not os.path.isdir(path):
        return [_clip(name, path)]
    found = _FolderContent()
    found.add(Path(path))
    absent += found.absent
    if not found.clips and not found.absent:
        raise DataError(
            f"Expected clips in the folder {path}; it has neither videos ({', '.join(VIDEO_SUFFIXES)}) nor folders of "
            f"pictures ({', '.join(IMAGE_SUFFIXES)}){f', only {found.list_others()}' if found.others else ''}."
        )
    if found.others:
        remarks.append(f"{path}: not taken as clips: {found.list_others()}; name those that are clips themselves")
    return [_clip(os.path.normpath(os.path.join(name, os.path.relpath(item, path))), item) for item in found.clips]


@dataclass
class _FolderContent:
    """What is below a folder, sorted by name.

    Attributes:
        clips: videos and folders of pictures.
        absent: links of clips that lead nowhere.
        others: every other file, the hidden ones and those next to the frames of a clip too.
    """

    clips: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)

    def add(self, folder: Path) -> None:
        """Add the content of a folder and of those below it; hidden folders count as one file.

        Raises:
            DataError: a folder has pictures next to videos or folders.
        """
        entries = sorted(folder.iterdir())
        shown = [entry for entry in entries if not is_hidden(entry.name)]
        pictures = [entry for entry in shown if entry.is_file() and is_image_path(entry)]
        videos = [entry for entry in shown if entry.is_file() and entry.suffix.lower() in VIDEO_SUFFIXES]
        folders = [entry for entry in shown if entry.is_dir()]
        if pictures and (videos or folders):
            raise DataError(
                f"{folder} has pictures next to {'videos' if videos else 'folders'}: are they the frames of one clip, "
                "or images of their own? Name the files themselves, or move them into folders."
            )
        self.clips += [str(folder)] if pictures else []
        for entry in entries:
            if entry in folders:
                self.add(entry)
            elif entry in videos:
                self.clips.append(str(entry))
            elif entry in pictures:
                continue
            elif entry.is_symlink() and not entry.exists() and entry in shown and _is_named_as_media(str(entry)):
                self.absent.append(str(entry))
            else:
                self.others.append(entry)

    def list_others(self) -> str:
        """The other files by suffix, with an example of each, the most frequent suffix first."""
        by_kind: dict[str, list[Path]] = {}
        for entry in self.others:
            hidden = "hidden" if is_hidden(entry.name) else entry.suffix.lower() or "without a suffix"
            by_kind.setdefault(hidden, []).append(entry)
        ordered = sorted(by_kind.items(), key=lambda item: (-len(item[1]), item[0]))
        return ", ".join(f"{len(entries)} {kind} ({entries[0].name})" for kind, entries in ordered)


def _clip(name: str, path: str) -> ClipToDescribe:
    try:
        bare, start, end = split_part(name)
    except MediaError as error:
        raise DataError(str(error)) from error
    kind: MediaKind = "image" if is_image_path(path) and os.path.isfile(cut_part(path)[0]) else "video"
    return ClipToDescribe(name, Media(kind, bare, start=start, end=end), (path,))


# --- rows


def _of_rows(path: str, media_dir: str | None, remarks: list[str], absent: list[str]) -> list[ClipToDescribe]:
    report, clips = RowReport(path), []
    for row in read_rows(path):
        report.rows += 1
        problems: list[Problem] = []
        clip = None
        if row.value is None:
            problems = [Problem(row.problem, "", row.reason)]
        else:
            clip = _of_row(row.value, media_dir, problems, report, absent)
        report.add(Place(path, row.number, row_id(row.value)), problems)
        if clip is not None and not problems:
            clips.append(clip)
    if report.bad:
        report.settle("error", 0.0, None, lister=f"hound corpus validate {path} --kind captions")
    remarks += report.remarks()
    return clips


def _of_row(
    row: dict[str, Any], media_dir: str | None, problems: list[Problem], report: RowReport, absent: list[str]
) -> ClipToDescribe | None:
    parsed = parse(row)
    record = parsed.record
    problems += [*parsed.problems, *(check(record, "captions", parsed.unknown) if record is not None else ())]
    if record is None or problems:
        return None
    report.add_notes(parsed.notes, parsed.unknown)
    (item,) = record.media
    if item.bytes is not None:
        problems.append(Problem("bytes", item.kind, "expected a path, found the file itself; write it to a file"))
        return None
    try:
        names = list(item.frames) or [with_part(item.path, item.start, item.end)]
    except DataError as error:
        problems.append(Problem("part of a clip", "start", str(error)))
        return None
    paths = [find_media(name, media_dir) for name in names]
    absent += [name for name, found in zip(names, paths, strict=True) if found is None]
    existing = tuple(found for found in paths if found is not None and media_exists(found))
    return ClipToDescribe(record.id or names[0], item, existing, record.source) if len(existing) == len(names) else None
