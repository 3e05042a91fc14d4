"""The offline stand-in for a judge: word overlap with the reference. For smoke tests, and every output says so."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hound_plugin.llm.requests import ChatPrompt, Message, RejectedError, Reply, Request

SMOKE_TEST = "lexical judge: word overlap with the reference; for smoke tests only, not a quality measure"
_WORD = re.compile(r"\w+")


def words_of(text: str) -> list[str]:
    """The words of a text: runs of letters and digits, case folded."""
    return _WORD.findall(text.casefold())


def overlap(answer: str, reference: str) -> float:
    """F1 of the words of two texts, 0 to 1; case and punctuation do not count."""
    one, two = (Counter(words_of(text)) for text in (answer, reference))
    common = sum((one & two).values())
    total = sum(one.values()) + sum(two.values())
    return 2 * common / total if total else 0.0


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
        share = overlap(request.fields["answer"], request.fields["reference"])
        score = str(1 + int(4 * share + 0.5))
        return Reply(score, model="lexical-1", prompt_tokens=0, completion_tokens=0)

    async def close(self) -> None:
        """Nothing to free."""
