"""Conversations: turns of ``from`` / ``value`` or ``role`` / ``content``, content parts, histories."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal

from hound_plugin.records import fields
from hound_plugin.records.media_fields import check_keys, item_of_mapping, names_media
from hound_plugin.records.placeholders import token_of
from hound_plugin.records.record import Findings, Media, Turn

Speaker = Literal["user", "assistant", "system"]
ROLES: dict[str, Speaker] = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "bot": "assistant",
    "model": "assistant", "chatgpt": "assistant", "system": "system", "developer": "system",
}  # fmt: skip
MEDIA_PART = re.compile(r"(?:input_)?(video|image)(?:_url)?")
_OBJECTS = (dict, Mapping)  # dict first: it is the fast check
_LOSS_SWITCHES = ("loss", "weight", "train", "train_on_turn")  # true and 1 ask for the default
TEXT_PARTS = ("text", "input_text", "output_text")


@dataclass
class Conversation:
    """Turns with their system prompts, and the media inside them.

    Attributes:
        turns: what user and assistant say.
        systems: system prompts, in order; usually at most one.
        inline: media of content parts, in order; a part without a path is only a placeholder.
    """

    turns: list[Turn] = field(default_factory=list)
    systems: list[str] = field(default_factory=list)
    inline: list[Media] = field(default_factory=list)


def text_of(value: Any) -> str | None:
    """Text as it is, a number as text; None for anything else."""
    if isinstance(value, str):
        return value
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or (isinstance(value, float) and not isfinite(value))
    ):
        return None
    return str(value)


def read_messages(value: Any, where: str, findings: Findings) -> Conversation:
    """Turns of a list of messages (or of one message)."""
    conversation = Conversation()
    items = value if isinstance(value, list | tuple) else [value]
    for number, item in enumerate(items):
        at = f"{where}[{number}]"
        if not isinstance(item, _OBJECTS):
            findings.problem("turn", at, "a message with a role and text", item)
            continue
        _read_message(item, at, conversation, findings)
    return conversation


def _read_message(item: Mapping[str, Any], at: str, conversation: Conversation, findings: Findings) -> None:
    _check_keys(item, at, findings)
    speaker = item["role"] if item.get("from") is None and "role" in item else item.get("from")
    role = ROLES.get(speaker.lower()) if isinstance(speaker, str) else None
    if role is None:
        findings.problem("role", at, f"one of the roles {', '.join(ROLES)}", speaker)
        return
    content = item.get("value") if item.get("value") is not None else item.get("content")
    before = len(conversation.inline)
    text = _content(content, at, conversation, findings)
    if text is None:
        return
    if role != "user" and len(conversation.inline) > before:
        paths = [item.path for item in conversation.inline[before:]]
        findings.problem("content part", at, "media only in questions", paths)
    if role == "system":
        if conversation.turns:
            findings.problem("system", at, "a system prompt only before the first turn", text)
        conversation.systems.append(text)
    else:
        conversation.turns.append(Turn(role, text))


def _check_keys(item: Mapping[str, Any], at: str, findings: Findings) -> None:
    if len(item) == 2 and item.keys() <= fields.IN_MESSAGES:
        return  # the usual case: a role and text
    for name, value in item.items():
        if name in fields.IN_MESSAGES or value in (None, "", [], {}):
            continue
        if name in (*fields.VIDEOS, *fields.IMAGES):
            findings.problem("media field", f"{at}.{name}", "media in content parts, or in fields of the row", value)
        elif name in fields.REFUSED and not (name in _LOSS_SWITCHES and value in (True, 1)):
            findings.problem("not honoured", f"{at}.{name}", f"no `{name}`: {fields.REFUSED[name]}", value)
        elif not fields.is_neutral(name) and name not in fields.REFUSED:
            findings.unknown_at(at, name)
    for first, second in (("from", "role"), ("value", "content")):
        if item.get(first) is not None and item.get(second) is not None and item[first] != item[second]:
            findings.problem("turn", f"{at}.{second}", f"the same as `{first}`", item[second])


def _content(content: Any, at: str, conversation: Conversation, findings: Findings) -> str | None:
    text = text_of(content)
    if text is not None:
        return text
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, list | tuple):
        findings.problem("turn", at, "text or a list of content parts", content)
        return None
    lines = [_part(part, f"{at}.content[{number}]", conversation, findings) for number, part in enumerate(content)]
    return "\n".join(line for line in lines if line is not None)


def _part(part: Any, at: str, conversation: Conversation, findings: Findings) -> str | None:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else None
    if (kind is None or kind in TEXT_PARTS) and isinstance(part, Mapping) and isinstance(part.get("text"), str):
        _check_text_part(part, at, findings)
        return str(part["text"])
    match = MEDIA_PART.fullmatch(kind) if isinstance(kind, str) else None
    if match is None and isinstance(part, Mapping) and kind is None:  # {"video": path}
        match = next((MEDIA_PART.fullmatch(name) for name in part if MEDIA_PART.fullmatch(name)), None)
    if match is None:
        findings.problem("content part", at, "a part of type text, video, video_url, image or image_url", part)
        return None
    medium: Any = match[1]
    untyped = {name: value for name, value in part.items() if name != "type" and value is not None}
    if not names_media(untyped):  # a placeholder for the row's next clip
        check_keys(untyped, medium, at, findings)
    else:
        item = item_of_mapping(untyped, medium, at, findings)
        if item is not None:
            conversation.inline.append(item)
    return token_of(medium)


def _check_text_part(part: Mapping[str, Any], at: str, findings: Findings) -> None:
    for name, value in part.items():
        if name in ("type", "text") or value in (None, "", [], {}) or fields.is_neutral(name):
            continue
        if MEDIA_PART.fullmatch(name):
            findings.problem("content part", f"{at}.{name}", "text and media in separate parts", value)
        elif name in fields.REFUSED:
            findings.problem("not honoured", f"{at}.{name}", f"no `{name}`: {fields.REFUSED[name]}", value)
        else:
            findings.unknown_at(at, name)


def read_history(value: Any, where: str, findings: Findings) -> list[Turn]:
    """Alpaca's ``[[question, answer], ...]``, or messages."""
    if isinstance(value, list | tuple) and value and all(isinstance(item, Mapping) for item in value):
        conversation = read_messages(value, where, findings)
        if conversation.systems or conversation.inline:
            findings.problem("history", where, "earlier questions and answers", value)
        return conversation.turns
    turns: list[Turn] = []
    for number, item in enumerate(value if isinstance(value, list | tuple) else [value]):
        texts = [text_of(part) for part in item] if isinstance(item, list | tuple) and len(item) == 2 else [None]
        if None in texts:
            findings.problem("history", f"{where}[{number}]", "a question and its answer", item)
            continue
        turns += [Turn("user", str(texts[0])), Turn("assistant", str(texts[1]))]
    return turns
