"""Fields that nothing reads, but without which a row would mean something else: its clip, or its choices.

Such rows are refused. Any other field that nothing reads is counted and reported.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from hound_plugin.records import fields
from hound_plugin.records.media_paths import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from hound_plugin.records.record import Findings, Media, Turn, Words

_NAMES_MEDIA = re.compile(
    r"(?:.*[\W_])?(?:video|vid|clip|gif|image|img|picture|photo|frame)s?"
    r"[\W_]*(?:ids?|idx|index|names?|files?|filenames?|paths?|urls?|uri|src)?",
    re.IGNORECASE,
)
_ONE_OF_SEVERAL = re.compile(r"(a|ans|answer|option|opt|choice|candidate)[\s_-]*(\d{1,2}|[a-j])", re.IGNORECASE)
_SEVERAL = frozenset(("option", "choice", "alternatives", "answer_choices", "answer_options", "multiple_choice"))
_LABEL = re.compile(r"\s*\(?(?:[A-Ja-j]|\d{1,2}(?:\.0)?)\s*[.):]?\s*")
"""An answer that says which choice is right, and nothing else."""

_INSTEAD_OF_MEDIA = ("url", "link", "image_id", "metadata", "meta", "info")
"""Of neutral fields, what may name the clip or image of a row that lacks it; the last three only if they hold media."""
_INSTEAD_OF_PART = "timestamp"
"""May be a part of the clip where it is a list."""


def unread_here(row: Mapping[str, Any], has_media: bool) -> list[str]:
    """Neutral fields that may say what the row lacks, its clip or image or a part of it: they count as unread."""
    if not has_media:
        names = {*fields.VIDEOS, *fields.IMAGES, *fields.LAST_VIDEOS}
        return [
            name
            for name in _INSTEAD_OF_MEDIA
            if row.get(name) not in (None, "", [], {})
            and (name in _INSTEAD_OF_MEDIA[:3] or (isinstance(row[name], Mapping) and names & set(row[name])))
        ]
    has_start, has_end = fields.first_name(row, fields.STARTS), fields.first_name(row, fields.ENDS)
    found = ["duration"] if has_start and not has_end and row.get("duration") is not None else []
    stamp = row.get(_INSTEAD_OF_PART)
    is_span = isinstance(stamp, list | tuple) or (isinstance(stamp, str) and stamp.lstrip().startswith("["))
    return found + [_INSTEAD_OF_PART] * (is_span and not has_start and not has_end)


def check_unread(
    row: Mapping[str, Any], unread: Iterable[str], media: Sequence[Media], turns: Sequence[Turn], findings: Findings
) -> None:
    """Refuse a row whose clip, or whose choices, are in fields that nothing reads.

    Args:
        row: the row.
        unread: names of its fields that nothing reads.
        media: what the other fields name.
        turns: its conversation.
        findings: receives problems.
    """
    names = [name for name in unread if name in row]
    if not media:
        name = next((name for name in names if _is_media(name, row[name])), None)
        if name is not None:
            expected = (
                "the clip in `video`, or the image in `image`; rename the field, or remove it if the row has none"
            )
            findings.problem("media under another name", name, expected, row[name])
    if turns and turns[-1].role == "assistant" and _LABEL.fullmatch(turns[-1].text):
        _check_choices(row, names, turns, findings)


def _is_media(name: str, value: Any) -> bool:
    """Whether a field names a clip or an image: by its own name, or by a suffix of files in its value."""
    first = value[0] if isinstance(value, list) and value else value
    if isinstance(first, str) and first.strip():
        suffix = PurePosixPath(first).suffix.lower()
        return bool(_NAMES_MEDIA.fullmatch(name)) or suffix in {*IMAGE_SUFFIXES, *VIDEO_SUFFIXES}
    is_number = isinstance(first, int) and not isinstance(first, bool)
    return is_number and bool(_NAMES_MEDIA.fullmatch(name)) and name.lower().endswith(("id", "idx", "index"))


def _check_choices(row: Mapping[str, Any], names: list[str], turns: Sequence[Turn], findings: Findings) -> None:
    """Refuse an answer that is the number or letter of a choice, if the model would not see the choices."""
    series: dict[str, list[str]] = {}
    for name in names:
        match = _ONE_OF_SEVERAL.fullmatch(name)
        if match:
            series.setdefault(match[1].lower(), []).append(name)
    found = next((several for several in series.values() if len(several) > 1), [])
    found = found or [name for name in names if name.lower() in _SEVERAL and isinstance(row[name], list | dict)]
    texts = [str(text) for name in found for text in _texts(row[name])]
    question = next((turn.text for turn in reversed(turns) if turn.role == "user"), "")
    if found and not all(text.strip() in question for text in texts):
        expected = f"the choices of which the answer is {turns[-1].text.strip()!r} as a list in `options`, in one field"
        findings.problem("choices under another name", found[0], expected, Words(", ".join(found)))


def _texts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, list) else [value]
