"""Conversations: turns of ``from`` / ``value`` or ``role`` / ``content``, content parts, histories."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from hound_plugin.records import fields
from hound_plugin.records.media_fields import item_of_mapping
from hound_plugin.records.placeholders import token_of
from hound_plugin.records.record import Findings, Media, Turn, shown

Speaker = Literal["user", "assistant", "system"]
ROLES: dict[str, Speaker] = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "bot": "assistant",
    "model": "assistant", "chatgpt": "assistant", "system": "system", "developer": "system",
}  # fmt: skip
_MEDIA_PART = re.compile(r"(?:input_)?(video|image)(?:_url)?")
_OBJECTS = (dict, Mapping)  # a dict is found at once
_TEXT_PARTS = ("text", "input_text", "output_text")


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
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


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
    content = item["content"] if item.get("value") is None and "content" in item else item.get("value")
    text = _content(content, at, conversation, found)
    if text is None:
        return
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
        if name in fields.REFUSED and not (name in ("loss", "weight") and value in (True, 1)):
            found.problem("not honoured", f"{at}.{name}", f"no `{name}`: {fields.REFUSED[name]}", value)
        elif not fields.is_neutral(name) and name not in fields.REFUSED:
            found.unknown.append(f"{at.partition('[')[0]}[].{name}")
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
    if kind in _TEXT_PARTS and isinstance(part.get("text"), str):
        return str(part["text"])
    match = _MEDIA_PART.fullmatch(kind) if isinstance(kind, str) else None
    if match is None and isinstance(part, Mapping) and kind is None:  # {"video": path}, {"text": text}
        if isinstance(part.get("text"), str):
            return str(part["text"])
        match = next((_MEDIA_PART.fullmatch(name) for name in part if _MEDIA_PART.fullmatch(name)), None)
    if match is None:
        found.problem("content part", at, "a part of type text, video, video_url, image or image_url", part)
        return None
    medium: Any = match[1]
    without = {name: value for name, value in part.items() if name != "type" and value is not None}
    if without:  # a part without a path stands for the row's next clip
        item = item_of_mapping(without, medium, at, found)
        if item is not None:
            conversation.inline.append(item)
    return token_of(medium)


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


def read_options(value: Any, where: str, found: Findings) -> dict[str, str]:
    """Choices of a question by their letters: ``["a ball", ...]``, ``["A. a ball", ...]`` or ``{"A": "a ball"}``."""
    if isinstance(value, Mapping):
        pairs: Sequence[tuple[Any, Any]] = [(key, item) for key, item in value.items() if item is not None]
    elif isinstance(value, list | tuple):
        pairs = [(chr(ord("A") + number), item) for number, item in enumerate(value)]
    else:
        pairs = []
    texts = {str(key): text_of(item) for key, item in pairs}
    if not 2 <= len(texts) <= 26 or any(text is None or not text.strip() for text in texts.values()):
        found.problem("options", where, "two or more choices, each a text", value)
        return {}
    options = {}
    for key, text in texts.items():
        letter = re.match(rf"\s*\(?{re.escape(key)}\s*[.):]\s*", str(text))
        options[key] = str(text)[letter.end() :] if letter else str(text)
    return options


def with_options(question: str, options: Mapping[str, str]) -> str:
    """A question that shows its choices, one a line; one that shows all of them already stays as it is."""
    if all(text in question for text in options.values()):
        return question
    return "\n".join([question.rstrip(), *(f"{key}. {text}" for key, text in options.items())])


def answer_with_text(answer: Any, options: Mapping[str, str], where: str, found: Findings) -> str | None:
    """The chosen option as ``A. a ball``: from its letter, its number from 0, or its text.

    An answer that is more than a choice (a sentence) stays as it is.
    """
    text = text_of(answer)
    if isinstance(answer, int) and not isinstance(answer, bool) and str(answer) not in options:
        if not 0 <= answer < len(options):
            found.problem("options", where, f"a number from 0 to {len(options) - 1}", answer)
            return None
        key = list(options)[answer]
        return f"{key}. {options[key]}"
    if text is None:
        found.problem("answer", where, "a text", answer)
        return None
    bare = text.strip().strip("().: ")
    for key, option in options.items():
        if bare.casefold() in (key.casefold(), option.strip().casefold()):
            return f"{key}. {option}"
    if len(bare) <= 2 or shown(bare) == "''":
        found.problem("options", where, f"one of {', '.join(options)}", answer)
        return None
    return text
