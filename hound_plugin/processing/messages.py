"""Chat messages, as ``apply_chat_template`` takes them, to a conversation and its media.

Roles and parts are those of :mod:`hound_plugin.records.messages`, so that the same messages give the same tokens in a
data set and in a chat; here media may also be arrays, pictures and bytes.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hound_plugin.errors import DataError
from hound_plugin.processing.prompt import IMAGE_TOKEN, VIDEO_TOKEN, Turn, place_placeholders, shield, unshield
from hound_plugin.records.messages import MEDIA_PART, ROLES, TEXT_PARTS
from hound_plugin.records.placeholders import token_of

_SOURCES = ("url", "path", "base64")


@dataclass
class ChatConversation:
    """One conversation.

    Attributes:
        system: the system prompt, or None.
        questions, answers: in turn; there is an answer less where the last message is a question.
        media: by placeholder, what its occurrences show, in order; None for a part that names nothing.
    """

    system: str | None = None
    questions: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    media: dict[str, list[Any]] = field(default_factory=lambda: {VIDEO_TOKEN: [], IMAGE_TOKEN: []})

    def turns(self, tokens: Mapping[str, int]) -> list[Turn]:
        """Turns as :func:`encode_conversation` takes them, with this many ``tokens`` for each placeholder.

        Raises:
            PlaceholderError: placeholders in texts and media differ in number.
        """
        questions = place_placeholders(self.questions, self.media)
        for token, count in tokens.items():
            questions = [question.replace(token, token * count) for question in questions]
        answers = [*self.answers, ""]
        return [Turn(question, answers[number]) for number, question in enumerate(questions)]

    def messages(self) -> list[dict[str, str]]:
        """The conversation with texts alone, for the Jinja template; every placeholder appears once.

        Raises:
            PlaceholderError: placeholders in texts and media differ in number.
        """
        messages = [] if self.system is None else [{"role": "system", "content": unshield(self.system)}]
        for number, question in enumerate(place_placeholders(self.questions, self.media)):
            messages.append({"role": "user", "content": unshield(question)})
            messages += [{"role": "assistant", "content": answer} for answer in self.answers[number : number + 1]]
        return messages


def read_messages(messages: Sequence[Any]) -> ChatConversation:
    """The conversation of a list of messages.

    Raises:
        DataError: a message or a part that cannot be honoured, by its place.
    """
    if not messages:
        raise DataError("Expected at least one message of the user, got none.")
    conversation = ChatConversation()
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        named = message.get("role") if isinstance(message, Mapping) else None
        role = ROLES.get(named.lower()) if isinstance(named, str) else None
        if role is None:
            raise _refused(f"{where}.role", f"one of {', '.join(ROLES)}", message if named is None else named)
        if message.get("tool_calls"):
            raise _refused(f"{where}.tool_calls", "none: LLaVA-Hound calls no tools", message["tool_calls"])
        text = _text(message.get("content"), role, f"{where}.content", conversation.media)
        if role == "system":
            if number:
                raise _refused(f"{where}.role", "a system prompt in front of the first question only", named)
            conversation.system = shield(shield(text, IMAGE_TOKEN), VIDEO_TOKEN)
            continue
        wanted = "user" if len(conversation.questions) == len(conversation.answers) else "assistant"
        if role != wanted:
            raise _refused(f"{where}.role", f"{wanted} (user and assistant take turns, the user begins)", named)
        if role == "assistant" and not text.strip():
            raise _refused(f"{where}.content", "an answer", text)
        (conversation.questions if role == "user" else conversation.answers).append(text)
    if not conversation.questions:
        raise DataError("Expected at least one message of the user, got a system prompt alone.")
    return conversation


def _refused(where: str, expected: str, got: Any) -> DataError:
    return DataError(f"{where}: expected {expected}; got {got!r:.200}.")


def _text(content: Any, role: str, where: str, media: dict[str, list[Any]]) -> str:
    """A message's text with a placeholder for each of its media, which are appended to ``media``."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list | tuple):
        raise _refused(where, "a text or a list of parts", content)
    lines = []
    for number, part in enumerate(content):
        place = f"{where}[{number}]"
        kind = part.get("type") if isinstance(part, Mapping) else None
        match = MEDIA_PART.fullmatch(kind) if isinstance(kind, str) else None
        if kind in TEXT_PARTS and isinstance(part.get("text"), str):
            lines.append(part["text"])
        elif match is None:
            raise _refused(place, "a part of type text, video or image", part)
        elif role != "user":
            raise _refused(f"{place}.type", "media in messages of the user only", kind)
        else:
            token = token_of(match[1])
            media[token].append(_source(part, match[1], place))
            lines.append(token)
    return "\n".join(lines)


def _source(part: Mapping[str, Any], kind: str, where: str) -> Any:
    names = [name for name in (kind, f"{kind}_url", f"input_{kind}", *_SOURCES) if part.get(name) is not None]
    if not names:
        return None
    if len(names) > 1:
        raise _refused(where, f"one source of the {kind}", names)
    value = part[names[0]]
    if isinstance(value, Mapping) and "url" in value:  # OpenAI's form
        value = value["url"]
    if names[0] != "base64":
        return value
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError, TypeError) as error:
        raise _refused(f"{where}.base64", "Base64", value) from error
