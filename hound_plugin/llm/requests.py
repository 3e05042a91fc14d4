"""Requests, replies, and what may go wrong between them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

Message = dict[str, Any]
"""One chat message in OpenAI's form: ``{"role": ..., "content": text or parts}``."""


@dataclass(frozen=True)
class Request:
    """One request to a language model, before a :class:`ChatPrompt` puts it into words.

    Attributes:
        key: hash of everything that determines the reply (:func:`request_key`).
        id: the question's id.
        candidate: number of the answer that is judged or sampled.
        draw: number of the judgement, from 0.
        fields: untrusted texts: ``caption``, ``question``, ``reference``, ``answer``.
        media: the clip or image, if the request shows it.
        seed: for servers that accept one; differs between draws.
    """

    key: str
    id: str
    candidate: int
    draw: int
    fields: Mapping[str, str] = field(default_factory=dict)
    media: str | None = None
    seed: int | None = None

    @property
    def name(self) -> str:
        """For messages: the question's id and the answer's number."""
        return f"{self.id}, answer {self.candidate}"


@dataclass(frozen=True)
class Reply:
    """What a server sent back, not parsed yet; token counts are None if the server did not report them."""

    text: str
    finish: str = "stop"
    refusal: str = ""
    model: str = ""
    fingerprint: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    warning: str = ""


OK, UNPARSED, REFUSED, FILTERED, EMPTY, TRUNCATED, REJECTED = (
    "ok", "unparsed", "refused", "filtered", "empty", "truncated", "rejected",
)  # fmt: skip
FINAL = (OK, REJECTED)
"""Statuses after which the same request is not sent again; the others are retried up to a limit."""


class TransientError(Exception):
    """Worth another try: a time-out, a cut connection, a 5xx, a body that is not JSON."""

    def __init__(self, message: str, retry_after: float | None = None, kind: str = "server") -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.kind = kind


class OverloadedError(TransientError):
    """429 or 503: too many requests. ``retry_after`` is in seconds as the server said, None if it did not."""


class RejectedError(Exception):
    """The server rejects this one request (400): it is too long, or a content filter stopped it."""

    def __init__(self, message: str, status: str = REJECTED) -> None:
        super().__init__(message)
        self.status = status


class ChatPrompt(Protocol):
    """Turns a request into messages, and a reply into a value."""

    @property
    def answer_format(self) -> str:
        """``json``, ``text``, or a name of its own."""

    @property
    def keeps_truncated(self) -> bool:
        """Whether a reply that was cut at the token limit still counts."""

    @property
    def response_format(self) -> dict[str, Any] | None:
        """The server's ``response_format`` argument, or None."""

    def messages(self, request: Request, attempt: int) -> list[Message]:
        """Messages of one request; later attempts may add a reminder."""

    @property
    def expects(self) -> str:
        """The form of a reply that can be parsed, in words."""

    def parse(self, text: str) -> int | str | None:
        """The value of a reply, or None if it has none; never a guess."""

    def why_missing(self, text: str) -> str:
        """Why :meth:`parse` finds no value in this reply."""


class Client(Protocol):
    """A back end that answers requests."""

    identity: Mapping[str, Any]
    prompt: ChatPrompt

    async def send(self, request: Request, attempt: int) -> Reply:
        """Send once.

        Raises:
            TransientError: worth another try.
            RejectedError: this request will never get a reply.
            JudgeError: no request will get a reply: stop.
        """

    async def close(self) -> None:
        """Close the connections."""


def request_key(parts: Mapping[str, Any]) -> str:
    """SHA-256 of a request's parts as canonical JSON, in hex."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def message_text(messages: list[Message]) -> str:
    """All text of messages, for estimates and dry runs; other parts are named by their type."""
    texts = []
    for message in messages:
        content = message["content"]
        parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
        texts += [part.get("text", f"[{part['type']}]") for part in parts]
    return "\n".join(texts)
