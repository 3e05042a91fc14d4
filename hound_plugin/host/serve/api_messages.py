"""The conversation of an API request: every message and part is used, or refused by its path."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hound_plugin.errors import MediaError, SettingsError
from hound_plugin.host.serve.api_media import is_remote, open_source
from hound_plugin.host.serve.engine import Messages, escape_placeholders
from hound_plugin.processing.prompt import IMAGE_TOKEN, VIDEO_TOKEN

_TOKENS = {"image": IMAGE_TOKEN, "video": VIDEO_TOKEN}
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_TEXT_PARTS = ("text", "input_text", "output_text")
_MEDIA_PART = re.compile(r"(?:input_)?(video|image)(?:_url)?")
_ABSENT: tuple[Any, ...] = (None, [], {}, "")
_DETAILS = ("auto", "low", "high", *_ABSENT)
_TOOLS = "LLaVA-Hound calls no tools"
_REFUSED = {"tool_calls": _TOOLS, "function_call": _TOOLS, "tool_call_id": _TOOLS, "audio": "LLaVA-Hound has no audio"}

MOST_FRAMES = 4096
"""Of a clip that is given as a list of frames."""
Medium = tuple[str, str, Any]  # its path in the request, "image" or "video", and an address, its content, or a list
Fetch = Callable[[str, str], Awaitable[bytes]]  # of an address and a kind


@dataclass
class Conversation:
    """A checked conversation.

    Attributes:
        messages: of user and assistant in turn, beginning and ending with the user, a placeholder for each medium.
        system: the system prompt, or None.
        media: what the placeholders stand for, in order; nothing is opened yet.
    """

    messages: Messages = field(default_factory=list)
    system: str | None = None
    media: list[Medium] = field(default_factory=list)

    def sources(self, kind: str) -> list[Any]:
        """The media of a kind, "image" or "video", in order."""
        return [source for _, other, source in self.media if other == kind]

    async def download(self, fetch: Fetch) -> None:
        """Put the content of all media at addresses in their place.

        Raises:
            SettingsError: one of them is unavailable or may not be read; ``key`` is its path.
            fastapi.HTTPException: the host's own check refuses it.
        """
        for number, (where, kind, source) in enumerate(self.media):
            parts = source if isinstance(source, list) else [source]
            if any(map(is_remote, parts)):
                part_kind = "image" if isinstance(source, list) else kind
                with _named(where):
                    content = [await fetch(part, part_kind) if is_remote(part) else part for part in parts]
                self.media[number] = (where, kind, content if isinstance(source, list) else content[0])

    def open_media(self) -> dict[str, list[Any]]:
        """The media by their kind, as the processor reads them; what lies elsewhere has been downloaded.

        Raises:
            SettingsError: one of them may not be read or is unavailable; ``key`` is its path.
            fastapi.HTTPException: the host's own check refuses it.
        """
        opened: dict[str, list[Any]] = {"image": [], "video": []}
        for where, kind, source in self.media:
            with _named(where):
                if isinstance(source, list):
                    opened[kind].append([_opened(part, "image") for part in source])
                else:
                    opened[kind].append(_opened(source, kind))
        return opened


@contextlib.contextmanager
def _named(where: str) -> Iterator[None]:
    try:
        yield
    except MediaError as error:
        raise SettingsError(str(error), where) from error


def _opened(source: str | bytes, kind: str) -> Any:
    return source if isinstance(source, bytes) else open_source(source, kind)


def read_conversation(messages: list[Any]) -> Conversation:
    """The conversation of a request's messages.

    Raises:
        SettingsError: something in it cannot be honoured; ``key`` is its path, such as ``messages[1].content``.
    """
    if not messages:
        raise SettingsError("messages: expected at least one message of the user; got none.", "messages")
    conversation, systems = Conversation(), []
    names: dict[str, str] = {}
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        role = _role(message, where)
        _check_keys(message, role, where, names)
        text = _text(message, role, where, conversation.media)
        if role == "system":
            if conversation.messages:
                raise _refused(f"{where}.role", "system prompts in front of the first question only", message["role"])
            systems.append(text)
            continue
        wanted = ("user", "assistant")[len(conversation.messages) % 2]
        if role != wanted:
            raise _refused(f"{where}.role", f"{wanted} (user and assistant take turns, the user begins)", role)
        conversation.messages.append({"role": role, "content": text})
    if len(conversation.messages) % 2 == 0:
        where = f"messages[{len(messages) - 1}].role"
        raise _refused(where, "a question of the user at the end", messages[-1]["role"])
    conversation.system = "\n".join(systems) if systems else None
    return conversation


def _refused(where: str, expected: str, got: Any) -> SettingsError:
    return SettingsError(f"{where}: expected {expected}; got {got!r:.200}.", where)


def _role(message: Any, where: str) -> str:
    if not isinstance(message, Mapping):
        raise _refused(where, "an object with role and content", message)
    role = message.get("role")
    if role in ("tool", "function"):
        raise _refused(f"{where}.role", f"{', '.join(_ROLES)} ({_TOOLS})", role)
    if not isinstance(role, str) or role not in _ROLES:
        raise _refused(f"{where}.role", f"one of {', '.join(_ROLES)}", role)
    return _ROLES[role]


def _check_keys(message: Mapping[str, Any], role: str, where: str, names: dict[str, str]) -> None:
    """Refuse what a message has besides its text; ``names`` maps roles to participants' names."""
    for key, value in message.items():
        if key in ("role", "content") or value in _ABSENT:
            continue
        if key == "name" and isinstance(value, str):
            if names.setdefault(role, value) != value:
                raise _refused(f"{where}.name", f"one name for every {role} message (the prompt has none)", value)
        elif key == "refusal" and role == "assistant" and isinstance(value, str):
            continue
        else:
            reason = f" ({_REFUSED[key]})" if key in _REFUSED else ""
            raise _refused(f"{where}.{key}", f"no {key}{reason}, role and content alone", value)


def _text(message: Mapping[str, Any], role: str, where: str, media: list[Medium]) -> str:
    """A message's text with a placeholder for each of its media; those are appended to ``media``.

    Parts are lines, as in data sets (:mod:`hound_plugin.records.messages`) and in the processor's chat messages; to
    media in front a text is glued, as the host's chat engine does, which leaves its spaces alone.
    """
    content, name = message.get("content"), f"{where}.content"
    if content is None and role == "assistant" and message.get("refusal"):
        content = message["refusal"]
    if isinstance(content, str):
        return escape_placeholders(content) if role == "user" else content
    if not isinstance(content, list) or not content:
        raise _refused(name, "a text, or a list of parts with something in it", content)
    pieces = [_part(part, role, f"{name}[{number}]", media) for number, part in enumerate(content)]
    in_front = list(itertools.takewhile(lambda piece: piece in _TOKENS.values(), pieces))
    return "".join(in_front) + "\n".join(pieces[len(in_front) :])


def _part(part: Any, role: str, where: str, media: list[Medium]) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else None
    name = "text" if kind in _TEXT_PARTS else "refusal" if kind == "refusal" and role == "assistant" else None
    if name is not None:
        if not isinstance(part.get(name), str):
            raise _refused(f"{where}.{name}", "a text", part.get(name))
        _check_part(part, ("type", name), where)
        return escape_placeholders(part[name]) if role == "user" else str(part[name])
    match = _MEDIA_PART.fullmatch(kind) if isinstance(kind, str) else None
    if match is None:
        hint = " (LLaVA-Hound has no audio)" if isinstance(kind, str) and "audio" in kind else ""
        raise _refused(
            f"{where}.type" if kind else where, f"a part of type text, image_url or video_url{hint}", kind or part
        )
    if role != "user":
        raise _refused(f"{where}.type", "media in messages of the user only", kind)
    media.append((where, match[1], _source(part, match[1], where)))
    return _TOKENS[match[1]]


def _source(part: Mapping[str, Any], kind: str, where: str) -> str | list[str]:
    """The address in a media part; a list of them for a clip that is given as frames."""
    names = [name for name in (kind, f"{kind}_url", f"input_{kind}", "url", "path") if part.get(name) is not None]
    if len(names) != 1:
        raise _refused(f"{where}.{kind}_url", f"one {kind}, as {{'{kind}_url': {{'url': ...}}}}", names or None)
    name, value = names[0], part[names[0]]
    _check_part(part, ("type", name, "detail"), where)
    details = [part.get("detail")]
    if isinstance(value, Mapping):
        _check_part(value, ("url", "detail"), f"{where}.{name}")
        details.append(value.get("detail"))
        value = value.get("url")
    for detail in details:
        if detail not in _DETAILS:
            raise _refused(f"{where}.{name}.detail", "one of auto, low, high (all are seen alike)", detail)
    if isinstance(value, list) and kind == "video" and len(value) > MOST_FRAMES:
        raise SettingsError(
            f"{where}.{name}: expected at most {MOST_FRAMES} frames; got {len(value)}. Send a video file.",
            f"{where}.{name}",
        )
    if isinstance(value, list) and kind == "video" and value and all(isinstance(item, str) and item for item in value):
        return value
    if not isinstance(value, str) or not value:
        raise _refused(f"{where}.{name}", f"a url, as {{'{name}': {{'url': ...}}}}", value)
    return value


def _check_part(part: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key, value in part.items():
        if key not in known and value not in _ABSENT:
            raise _refused(f"{where}.{key}", f"{', '.join(known)} alone", value)
