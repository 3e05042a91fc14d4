"""The first requests of a run as a test of the judge: if none of them has a value, nothing more is sent.

A judge that answers in a form that cannot be read, a limit of tokens that is too low, or a server that refuses shows in
the first requests, not after all of them were paid for. What earlier runs could not read does not count: the server may
have been mended since. One score, of this run or of an earlier one, and the test is passed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable

from hound_plugin.errors import JudgeError
from hound_plugin.llm.requests import EMPTY, OK, TRUNCATED
from hound_plugin.llm.ledger_tables import Entry
from hound_plugin.llm.redaction import shortened

PILOT = 20
"""Distinct requests that may be in vain, each with all its attempts."""
SHOWN = 3
FAILED = "failed"


class Pilot:
    """Counts distinct requests until one has a value; not thread-safe: for one event loop."""

    def __init__(self, size: int, expects: Callable[[], str]) -> None:
        """Nothing is under way yet.

        Args:
            size: requests that may be in vain; 0 for no limit.
            expects: gives the form of an answer that could be read.
        """
        self.size = size
        self.passed = size == 0
        self._expects = expects
        self._begun: set[str] = set()
        self._vain: dict[str, tuple[str, str, str]] = {}  # key: status, name of the request, what came
        self._change = asyncio.Event()

    def admits(self, key: str) -> bool:
        """Whether this request may be sent now."""
        return self.passed or key in self._begun or len(self._begun) < self.size

    def begin(self, key: str) -> None:
        """This request is sent, or was by an earlier run whose answer is awaited here."""
        self._begun.add(key)

    async def enter(self, key: str, stopping: Callable[[], bool]) -> bool:
        """Wait until this request may be sent; False if none may be sent any more."""
        while not self.admits(key):
            if stopping():
                return False
            self._change.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await self._change.wait()
        self.begin(key)
        return not stopping()

    def known_good(self) -> None:
        """There is a value."""
        self.passed = True
        self._change.set()

    def settle(self, entry: Entry, why: str, name: str) -> None:
        """Count an answer after which the same request is not sent again.

        Args:
            entry: the answer.
            why: why it has no value.
            name: of the request, for people.
        """
        if entry.status == OK:
            self.known_good()
        elif not self.passed:
            why = "cut at the limit of tokens" if entry.status == TRUNCATED else why
            self._vain[entry.key] = (entry.status, f"{name}: {entry.status}{f' ({why})' if why else ''}", entry.raw)

    def fail(self, key: str, name: str, message: str) -> None:
        """Count a request that got no answer at all."""
        if not self.passed:
            self._vain[key] = (FAILED, f"{name}: no answer", message)

    def check(self) -> None:
        """Go on, or not.

        Raises:
            JudgeError: all of the first requests were in vain; the message shows three replies.
        """
        if not self.passed and len(self._vain) >= self.size:
            raise JudgeError(self._message())

    def _message(self) -> str:
        counts = Counter(status for status, _, _ in self._vain.values())
        listed = ", ".join(f"{number} {status}" for status, number in counts.most_common())
        lines = [
            f"The first {len(self._vain)} requests gave nothing that can be used ({listed}), so nothing more is sent.",
            f"Expected: {self._expects()}. Came, for example:",
        ]
        by_kind = sorted(self._vain.values(), key=lambda item: -counts[item[0]])
        lines += [f"  {what}: {shortened(raw) or '(nothing)'}" for _, what, raw in by_kind[:SHOWN]]
        if counts[TRUNCATED] + counts[EMPTY]:
            lines.append("Empty and cut replies: raise `parameters.max_tokens`; models that think need thousands.")
        lines.append(
            "Everything is kept. Look at the model, its parameters and the protocol, and run again; `pilot` sets how "
            "many requests may be in vain (0: all)."
        )
        return "\n".join(lines)
