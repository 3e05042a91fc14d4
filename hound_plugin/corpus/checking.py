"""Check rows of a data file against what their consumer needs; see :mod:`hound_plugin.records`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from hound_plugin.errors import DataError
from hound_plugin.records.consumers import ConsumerName, check
from hound_plugin.records.media_paths import with_part
from hound_plugin.records.parse import parse
from hound_plugin.records.record import Media, Note, Problem, Record

RowKind = Literal["auto", "conversations", "pairs", "labels", "predictions", "questions", "captions"]
KINDS: tuple[str, ...] = get_args(RowKind)


@dataclass
class Checked:
    """The result of checking one row.

    Attributes:
        problems: empty for a usable row.
        media: paths as the row names them; a clip as a list of frames is one inner list.
        is_video: whether ``media`` are clips.
        notes: decisions about the row.
        unknown: fields that nothing reads.
        record: the parsed row, if it could be parsed.
    """

    problems: list[Problem] = field(default_factory=list)
    media: list[str | list[str]] = field(default_factory=list)
    is_video: bool = False
    notes: tuple[Note, ...] = ()
    unknown: tuple[str, ...] = ()
    record: Record | None = None


def check_record(row: Mapping[str, Any], kind: RowKind = "auto") -> Checked:
    """Parse one row and check it against what its consumer needs; opens no media.

    Args:
        row: the row.
        kind: what the rows are for; ``auto`` treats rows with two answers as pairs, those with a label as labelled
            answers, and others as conversations.
    """
    parsed = parse(row)
    checked = Checked(list(parsed.problems), notes=parsed.notes, unknown=parsed.unknown, record=parsed.record)
    if parsed.record is not None:
        checked.problems += check(parsed.record, consumer_of(parsed.record, kind), parsed.unknown)
        checked.media = [media_path(item, checked.problems) for item in parsed.record.media if item.names]
        checked.is_video = any(item.kind == "video" for item in parsed.record.media[:1])
    return checked


def consumer_of(record: Record, kind: RowKind) -> ConsumerName:
    """The consumer of rows of this kind."""
    if kind == "auto":
        return "pairs" if record.is_pair else "sft" if record.label is None else "labels"
    return "sft" if kind == "conversations" else kind


def media_of(row: Mapping[str, Any]) -> tuple[list[str | list[str]], bool]:
    """Media of a row as it names them, and whether they are clips; empty if the row cannot be parsed."""
    record = parse(row).record
    media = record.media if record is not None else ()
    return [media_path(item, []) for item in media if item.names], any(item.kind == "video" for item in media)


def media_path(item: Media, problems: list[Problem]) -> str | list[str]:
    """A path, with its part if the row gives one, or the list of a clip's frames."""
    if item.frames:
        return list(item.frames)
    if item.start is None and item.end is None:
        return item.path
    try:
        return with_part(item.path, item.start, item.end)
    except DataError as error:
        problems.append(Problem("part of a clip", "start", str(error)))
        return item.path
