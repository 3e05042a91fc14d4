"""What is asked, what comes back, and what may go wrong on the way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

Message = dict[str, Any]
"""One chat message as servers take it: ``{"role": ..., "content": text or parts}``."""


@dataclass(frozen=True)
class Task:
    """One thing to ask.

    Attributes:
        key: hash of everything that determines the request (:func:`request_key`).
        id: the question's id.
        candidate: number of the answer that is judged or sampled.
        draw: number of the judgement, from 0.
        fields: the untrusted texts: ``caption``, ``question``, ``reference``, ``answer``.
        media: clip or image, where the request shows it.
        seed: for servers that take one; differs between draws.
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
        """For people: the question's id and the answer's number."""
        return f"{self.id}, answer {self.candidate}"


@dataclass(frozen=True)
class Reply:
    """What a server answered, before anybody reads a score from it; numbers of tokens are None where unknown."""

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
"""Outcomes after which the same request is not sent again; the others are retried up to a limit."""


class TransientError(Exception):
    """Worth another try: time-out, cut connection, 5xx, a body that is no JSON."""

    def __init__(self, message: str, retry_after: float | None = None, kind: str = "server") -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.kind = kind


class OverloadedError(TransientError):
    """429 or 503: too many requests. ``retry_after`` is in seconds as the server said, None if it did not."""


class RejectedError(Exception):
    """This one request is refused by the server (400): too long, or stopped by its content filter."""

    def __init__(self, message: str, status: str = REJECTED) -> None:
        super().__init__(message)
        self.status = status


class Conversation(Protocol):
    """How a task becomes messages, and how an answer becomes a value."""

    @property
    def answer_format(self) -> str:
        """``json``, ``text``, or a name of its own."""

    @property
    def keeps_truncated(self) -> bool:
        """Whether an answer that was cut at the limit of tokens still counts."""

    @property
    def response_format(self) -> dict[str, Any] | None:
        """The server's ``response_format`` argument, or None."""

    def messages(self, task: Task, attempt: int) -> list[Message]:
        """Messages of one request; later attempts may add a reminder."""

    @property
    def expects(self) -> str:
        """The form of an answer that has a value, in words."""

    def parse(self, text: str) -> int | str | None:
        """The value of an answer, or None if there is none in it; never a guess."""

    def why_missing(self, text: str) -> str:
        """Why :meth:`parse` finds no value in this answer."""


class Client(Protocol):
    """A back end."""

    identity: Mapping[str, Any]
    conversation: Conversation

    async def send(self, task: Task, attempt: int) -> Reply:
        """Ask once.

        Raises:
            TransientError: worth another try.
            RejectedError: this request will never be answered.
            JudgeError: no request will be answered: stop.
        """

    async def close(self) -> None:
        """Free connections."""


def request_key(parts: Mapping[str, Any]) -> str:
    """SHA-256 of a request's parts as canonical JSON, in hex."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
