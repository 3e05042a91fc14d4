"""Conversations: turns of ``from`` / ``value`` or ``role`` / ``content``, content parts, histories."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal

from hound_plugin.records import fields
from hound_plugin.records.media_fields import item_of_mapping, look_at_keys, names_media
from hound_plugin.records.placeholders import token_of
from hound_plugin.records.record import Findings, Media, Turn

Speaker = Literal["user", "assistant", "system"]
ROLES: dict[str, Speaker] = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "bot": "assistant",
    "model": "assistant", "chatgpt": "assistant", "system": "system", "developer": "system",
}  # fmt: skip
MEDIA_PART = re.compile(r"(?:input_)?(video|image)(?:_url)?")
_OBJECTS = (dict, Mapping)  # a dict is found at once
_LEARNT = ("loss", "weight", "train", "train_on_turn")  # true and 1 ask for what is done anyway
TEXT_PARTS = ("text", "input_text", "output_text")


@dataclass
class Conversation:
    """Turns with their system prompts, and media that stood inside them.

    Attributes:
        turns: what user and assistant say.
        systems: system prompts, in order; one at most is usual.
        inline: media of content parts, in order; a part without a path is a placeholder alone.
    """

    turns: list[Turn] = field(default_factory=list)
    systems: list[str] = field(default_factory=list)
    inline: list[Media] = field(default_factory=list)


def text_of(value: Any) -> str | None:
    """A text; a number as it is written. None for anything else."""
    if isinstance(value, str):
        return value
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or (isinstance(value, float) and not isfinite(value))
    ):
        return None
    return str(value)


def read_messages(value: Any, where: str, found: Findings) -> Conversation:
    """Turns of a list of messages (or of one message)."""
    conversation = Conversation()
    items = value if isinstance(value, list | tuple) else [value]
    for number, item in enumerate(items):
        at = f"{where}[{number}]"
        if not isinstance(item, _OBJECTS):
            found.problem("turn", at, "a message with a role and a text", item)
            continue
        _read_message(item, at, conversation, found)
    return conversation


def _read_message(item: Mapping[str, Any], at: str, conversation: Conversation, found: Findings) -> None:
    _check_keys(item, at, found)
    named = item["role"] if item.get("from") is None and "role" in item else item.get("from")
    role = ROLES.get(named.lower()) if isinstance(named, str) else None
    if role is None:
        found.problem("role", at, f"a role out of {', '.join(ROLES)}", named)
        return
    content = item.get("value") if item.get("value") is not None else item.get("content")
    before = len(conversation.inline)
    text = _content(content, at, conversation, found)
    if text is None:
        return
    if role != "user" and len(conversation.inline) > before:
        paths = [item.path for item in conversation.inline[before:]]
        found.problem("content part", at, "media in questions only", paths)
    if role == "system":
        if conversation.turns:
            found.problem("system", at, "a system prompt before the first turn only", text)
        conversation.systems.append(text)
    else:
        conversation.turns.append(Turn(role, text))


def _check_keys(item: Mapping[str, Any], at: str, found: Findings) -> None:
    if len(item) == 2 and item.keys() <= fields.IN_MESSAGES:
        return  # the usual one: a role and a text
    for name, value in item.items():
        if name in fields.IN_MESSAGES or value in (None, "", [], {}):
            continue
        if name in (*fields.VIDEOS, *fields.IMAGES):
            found.problem("media field", f"{at}.{name}", "media in content parts, or in fields of the row", value)
        elif name in fields.REFUSED and not (name in _LEARNT and value in (True, 1)):
            found.problem("not honoured", f"{at}.{name}", f"no `{name}`: {fields.REFUSED[name]}", value)
        elif not fields.is_neutral(name) and name not in fields.REFUSED:
            found.unknown_at(at, name)
    for first, second in (("from", "role"), ("value", "content")):
        if item.get(first) is not None and item.get(second) is not None and item[first] != item[second]:
            found.problem("turn", f"{at}.{second}", f"the same as `{first}`", item[second])


def _content(content: Any, at: str, conversation: Conversation, found: Findings) -> str | None:
    text = text_of(content)
    if text is not None:
        return text
    if isinstance(content, Mapping):
        content = [content]
    if not isinstance(content, list | tuple):
        found.problem("turn", at, "a text or a list of content parts", content)
        return None
    lines = [_part(part, f"{at}.content[{number}]", conversation, found) for number, part in enumerate(content)]
    return "\n".join(line for line in lines if line is not None)


def _part(part: Any, at: str, conversation: Conversation, found: Findings) -> str | None:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else None
    if (kind is None or kind in TEXT_PARTS) and isinstance(part, Mapping) and isinstance(part.get("text"), str):
        _look_at_text_part(part, at, found)
        return str(part["text"])
    match = MEDIA_PART.fullmatch(kind) if isinstance(kind, str) else None
    if match is None and isinstance(part, Mapping) and kind is None:  # {"video": path}
        match = next((MEDIA_PART.fullmatch(name) for name in part if MEDIA_PART.fullmatch(name)), None)
    if match is None:
        found.problem("content part", at, "a part of type text, video, video_url, image or image_url", part)
        return None
    medium: Any = match[1]
    without = {name: value for name, value in part.items() if name != "type" and value is not None}
    if not names_media(without):  # it stands for the row's next clip
        look_at_keys(without, medium, at, found)
    else:
        item = item_of_mapping(without, medium, at, found)
        if item is not None:
            conversation.inline.append(item)
    return token_of(medium)


def _look_at_text_part(part: Mapping[str, Any], at: str, found: Findings) -> None:
    for name, value in part.items():
        if name in ("type", "text") or value in (None, "", [], {}) or fields.is_neutral(name):
            continue
        if MEDIA_PART.fullmatch(name):
            found.problem("content part", f"{at}.{name}", "a text and media in parts of their own", value)
        elif name in fields.REFUSED:
            found.problem("not honoured", f"{at}.{name}", f"no `{name}`: {fields.REFUSED[name]}", value)
        else:
            found.unknown_at(at, name)


def read_history(value: Any, where: str, found: Findings) -> list[Turn]:
    """Alpaca's ``[[question, answer], ...]``, or messages."""
    if isinstance(value, list | tuple) and value and all(isinstance(item, Mapping) for item in value):
        conversation = read_messages(value, where, found)
        if conversation.systems or conversation.inline:
            found.problem("history", where, "earlier questions and answers", value)
        return conversation.turns
    turns: list[Turn] = []
    for number, item in enumerate(value if isinstance(value, list | tuple) else [value]):
        texts = [text_of(part) for part in item] if isinstance(item, list | tuple) and len(item) == 2 else [None]
        if None in texts:
            found.problem("history", f"{where}[{number}]", "a question and its answer", item)
            continue
        turns += [Turn("user", str(texts[0])), Turn("assistant", str(texts[1]))]
    return turns
