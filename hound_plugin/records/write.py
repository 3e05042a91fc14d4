"""Write a record as a row in our own shape, which :func:`hound_plugin.records.parse.parse` reads as the same record."""

from __future__ import annotations

from typing import Any

from hound_plugin.errors import DataError
from hound_plugin.records import fields
from hound_plugin.records.media_paths import is_image_path
from hound_plugin.records.options import shown_labels
from hound_plugin.records.record import Media, Record

ROLES = {"user": "human", "assistant": "gpt"}


def to_row(record: Record) -> dict[str, Any]:
    """``{"id", "video" | "image", "conversations"}``; for pairs ``prompt``, ``chosen`` and ``rejected``.

    Raises:
        DataError: media as bytes, which JSON has no type for, or several clips that a reader would take for frames.
    """
    row: dict[str, Any] = {"id": record.id, **_media(record.media)}
    turns = [{"from": ROLES[turn.role], "value": turn.text} for turn in record.turns]
    if record.is_pair and len(turns) == 1 and record.turns[0].text:
        row["prompt"] = record.turns[0].text
    elif turns:
        row["conversations"] = turns
    more = {
        "chosen": record.chosen,
        "rejected": record.rejected,
        "system": record.system or None,
        "label": record.label if record.label is not None else record.unread_label or None,
        "caption": record.caption or None,
        "reference": record.reference or None,
        fields.ACCEPTED[0]: list(record.accepted) or None,
        "options": _options(record) or None,
        "source": record.source or None,
    }
    return {**row, **{name: value for name, value in more.items() if value is not None}}


def _options(record: Record) -> list[str]:
    """The choices in the order of the letters that the question shows: a list stands for A, B, C and so on."""
    letters = {chr(ord("A") + number): text for number, text in enumerate(record.options)}
    labels = shown_labels(record.questions[-1], letters) if record.questions else {}
    if sorted(label.upper() for label in labels.values()) != list(letters):
        return list(record.options)
    return [letters[key] for key in sorted(letters, key=lambda key: labels[key].upper())]


def _media(media: tuple[Media, ...]) -> dict[str, Any]:
    if not media:
        return {}
    if any(item.bytes is not None for item in media):
        raise DataError("media as bytes cannot be written as JSON: extract them to files first")
    if len(media) > 1:
        as_frames = [item for item in media if item.kind == "video" and is_image_path(item.path) and not _part(item)]
        if len(as_frames) == len(media):
            raise DataError("clips whose names end like pictures cannot be told from the frames of one: rename them")
        return {media[0].kind: [_item(item) for item in media]}
    (item,) = media
    if not item.frames:
        return {item.kind: item.path, **_part(item)}
    pictures = all(map(is_image_path, item.frames))
    return {
        item.kind: list(item.frames) if pictures else [list(item.frames)]
    }  # a flat list of other names would be several clips


def _item(item: Media) -> Any:
    if item.frames:
        return list(item.frames)
    part = _part(item)
    return {"path": item.path, **part} if part else item.path


def _part(item: Media) -> dict[str, float]:
    sides = {"start": item.start, "end": item.end}
    return {name: value for name, value in sides.items() if value is not None}
