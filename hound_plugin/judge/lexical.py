"""The offline stand-in for a judge: word overlap with the reference. For smoke tests, and every output says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hound_plugin.llm.requests import ChatPrompt, Message, RejectedError, Reply, Request
from hound_plugin.records.words import overlap, words_of

SMOKE_TEST = "lexical judge: word overlap with the reference; for smoke tests only, not a quality measure"


class _LexicalPrompt:
    """Replies of this judge are plain numbers."""

    answer_format = "number"
    keeps_truncated = False
    response_format = None
    expects = "a number"

    def messages(self, request: Request, attempt: int) -> list[Message]:
        return [{"role": "user", "content": request.fields["answer"]}]

    def parse(self, text: str) -> int | None:
        return int(text)

    def why_missing(self, text: str) -> str:
        return ""


@dataclass
class LexicalJudge:
    """A :class:`~hound_plugin.llm.requests.Client` without a model: the score is 1 + round(4 x F1)."""

    identity: Mapping[str, Any] = field(
        default_factory=lambda: {"backend": "lexical", "model": "lexical-1", "smoke_test": SMOKE_TEST}
    )
    prompt: ChatPrompt = field(default_factory=_LexicalPrompt)

    async def send(self, request: Request, attempt: int) -> Reply:
        """Score by overlap.

        Raises:
            RejectedError: there is no reference.
        """
        if not request.fields.get("reference"):
            raise RejectedError("there is no reference answer to compare with")
        share = overlap(words_of(request.fields["answer"]), words_of(request.fields["reference"]))
        score = str(1 + int(4 * share + 0.5))
        return Reply(score, model="lexical-1", prompt_tokens=0, completion_tokens=0)

    async def close(self) -> None:
        """Nothing to free."""
