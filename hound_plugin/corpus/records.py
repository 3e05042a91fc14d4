"""What makes a record usable: the same rules as the dataset format ``hound`` applies, as reasons instead of errors.

Conversations: ``{"video" | "image", "conversations": [{"from", "value"}, ...]}``. Preferences: ``chosen`` and
``rejected`` as texts, messages or lists of messages, with the question in ``prompt`` or ``conversations``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from hound_plugin.records.media_paths import is_image_path

VIDEO_TOKEN, IMAGE_TOKEN = "<video>", "<image>"
VIDEO_FIELDS = ("video", "videos")
IMAGE_FIELDS = ("image", "images", "frame")
QUESTION_FIELDS = ("prompt", "question")
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
RowKind = Literal["auto", "conversations", "pairs"]


@dataclass(frozen=True)
class Problem:
    """A short name to count by, and what was found."""

    name: str
    detail: str


@dataclass
class Checked:
    """What checking one record gave.

    Attributes:
        problems: empty for a usable record.
        media: paths as the record names them; a clip as a list of frames is one inner list.
        is_video: whether ``media`` are clips.
    """

    problems: list[Problem] = field(default_factory=list)
    media: list[str | list[str]] = field(default_factory=list)
    is_video: bool = False


def check_record(record: dict[str, Any], kind: RowKind = "auto") -> Checked:
    """Check fields, roles and placeholders of one record; opens nothing.

    Args:
        record: the row.
        kind: ``auto`` takes rows with ``chosen`` or ``rejected`` for pairs.
    """
    checked = Checked()
    videos, images = _media(record, VIDEO_FIELDS, checked), _media(record, IMAGE_FIELDS, checked)
    if videos and images:
        checked.problems.append(Problem("clip and image", f"{videos!r:.80} and {images!r:.80} in one record"))
    checked.media, checked.is_video = videos or images, bool(videos)
    token = VIDEO_TOKEN if videos else IMAGE_TOKEN
    pair = kind == "pairs" or (kind == "auto" and ("chosen" in record or "rejected" in record))
    questions = _pair(record, checked) if pair else _conversation(record, checked)
    if questions is None:
        return checked
    # in front of a pair's question the placeholder is put anyway
    found = 1 if pair and checked.media else sum(token in question for question in questions)
    if found != len(checked.media):
        checked.problems.append(
            Problem("placeholders", f"{found} question(s) with {token} for {len(checked.media)} clip(s) or image(s)")
        )
    return checked


def media_of(record: dict[str, Any]) -> tuple[list[str | list[str]], bool]:
    """Media of a record as it names them, and whether they are clips."""
    videos = _media(record, VIDEO_FIELDS, Checked())
    return (videos, True) if videos else (_media(record, IMAGE_FIELDS, Checked()), False)


def _media(record: dict[str, Any], names: tuple[str, ...], checked: Checked) -> list[str | list[str]]:
    value = next((record[name] for name in names if record.get(name)), None)
    if value is None:
        return []
    items = value if isinstance(value, list) else [value]
    if names is VIDEO_FIELDS and items and value is items and all(is_image_path(item) for item in items):
        return [items]  # one clip as a list of frames
    bad = [item for item in items if not (isinstance(item, str) or _is_texts(item))]
    if bad:
        checked.problems.append(Problem("media field", f"a path was expected, found {bad[0]!r:.80}"))
    return [item for item in items if isinstance(item, str) or _is_texts(item)]


def _is_texts(item: Any) -> bool:
    return isinstance(item, list) and bool(item) and all(isinstance(part, str) for part in item)


def _conversation(record: dict[str, Any], checked: Checked) -> list[str] | None:
    turns = record.get("conversations")
    if not isinstance(turns, list) or not turns:
        checked.problems.append(Problem("no conversations", f"a non-empty list was expected, found {turns!r:.80}"))
        return None
    messages = []
    for turn in turns:
        message = message_of(turn)
        if message is None:
            checked.problems.append(
                Problem("turn", f"from human or gpt with a text value was expected, found {turn!r:.80}")
            )
            return None
        messages.append(message)
    if messages[0][0] == "assistant":  # the original drops it
        messages = messages[1:]
    roles = [role for role, _ in messages]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        checked.problems.append(
            Problem("roles", f"human and gpt in turn, ending with gpt, were expected, found {roles}")
        )
        return None
    if any(role == "assistant" and not text for role, text in messages):
        checked.problems.append(Problem("empty answer", "an answer without a text"))
    return [text for role, text in messages if role == "user"]


def _pair(record: dict[str, Any], checked: Checked) -> list[str] | None:
    question = next((record[name] for name in QUESTION_FIELDS if record.get(name)), None)
    if question is None and isinstance(record.get("conversations"), list) and record["conversations"]:
        question = record["conversations"][:1]
    if isinstance(question, list) and question:
        message = message_of(question[-1])
        question = message[1] if message else None
    if not isinstance(question, str):
        checked.problems.append(Problem("no question", "a text in `prompt` or `conversations` was expected"))
    answers = [answer_of(record.get(side)) for side in ("chosen", "rejected")]
    for side, answer in zip(("chosen", "rejected"), answers, strict=True):
        if not answer:
            checked.problems.append(
                Problem(f"no {side}", f"a non-empty text was expected, found {record.get(side)!r:.80}")
            )
    if answers[0] and answers[0] == answers[1]:
        checked.problems.append(Problem("equal answers", "chosen and rejected are the same: no preference to learn"))
    return [question] if isinstance(question, str) else None


def message_of(turn: Any) -> tuple[str, str] | None:
    """Role (``user``, ``assistant``) and text of ``{"from", "value"}`` or ``{"role", "content"}``; None for others."""
    if not isinstance(turn, dict):
        return None
    role, text = turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
    known = ROLES.get(role) if isinstance(role, str) else None
    return (known, text) if known and isinstance(text, str) else None


def answer_of(value: Any) -> str | None:
    """The text of an answer: a text, a message, or the last of a list of messages."""
    if isinstance(value, list) and value:
        value = value[-1]
    if isinstance(value, dict):
        value = value.get("value", value.get("content"))
    return value if isinstance(value, str) else None
