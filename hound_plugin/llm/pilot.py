"""The first requests of a run as a test of the server: if none of them has a value, nothing more is sent.

A model whose replies cannot be parsed, a token limit that is too low, or a server that rejects everything shows up in
the first requests, before all of them are paid for. What earlier runs could not parse does not count: the server may
have been fixed since. A single value, from this run or an earlier one, passes the test.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable

from hound_plugin.errors import JudgeError
from hound_plugin.llm.ledger_tables import Entry
from hound_plugin.llm.redaction import shortened
from hound_plugin.llm.requests import EMPTY, OK, TRUNCATED

SHOWN = 3
FAILED = "failed"


class Pilot:
    """Counts distinct requests without a value until one has one; not thread-safe: for one event loop."""

    def __init__(self, size: int, expects: Callable[[], str]) -> None:
        """Start with nothing sent.

        Args:
            size: requests that may fail; 0 for no limit.
            expects: returns the form of a reply that could be parsed.
        """
        self.size = size
        self.passed = size == 0
        self._expects = expects
        self._begun: set[str] = set()
        self._failed: dict[str, tuple[str, str, str]] = {}  # key: status, request and reason, reply
        self._change = asyncio.Event()

    def admits(self, key: str) -> bool:
        """Whether this request may be sent now."""
        return self.passed or key in self._begun or len(self._begun) < self.size

    def begin(self, key: str) -> None:
        """Count a request that is being sent, or that an earlier run sent and whose reply is awaited here."""
        self._begun.add(key)

    async def enter(self, key: str, stopping: Callable[[], bool]) -> bool:
        """Wait until this request may be sent; False if nothing may be sent any more."""
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
        """Pass: there is a value."""
        self.passed = True
        self._change.set()

    def settle(self, entry: Entry, why: str, name: str) -> None:
        """Count a reply after which the same request is not sent again.

        Args:
            entry: the reply.
            why: why it has no value.
            name: of the request, for messages.
        """
        if entry.status == OK:
            self.known_good()
        elif not self.passed:
            why = "cut at the token limit" if entry.status == TRUNCATED else why
            self._failed[entry.key] = (entry.status, f"{name}: {entry.status}{f' ({why})' if why else ''}", entry.raw)

    def fail(self, key: str, name: str, message: str) -> None:
        """Count a request that got no reply at all."""
        if not self.passed:
            self._failed[key] = (FAILED, f"{name}: no reply", message)

    def check(self) -> None:
        """Stop a run that is not worth its cost.

        Raises:
            JudgeError: all of the first requests failed; the message shows three replies.
        """
        if not self.passed and len(self._failed) >= self.size:
            raise JudgeError(self._message())

    def _message(self) -> str:
        counts = Counter(status for status, _, _ in self._failed.values())
        listed = ", ".join(f"{number} {status}" for status, number in counts.most_common())
        lines = [
            f"The first {len(self._failed)} requests gave nothing usable ({listed}), so nothing more is sent.",
            f"Expected: {self._expects()}. Received, for example:",
        ]
        by_kind = sorted(self._failed.values(), key=lambda item: -counts[item[0]])
        lines += [f"  {reason}: {shortened(raw) or '(nothing)'}" for _, reason, raw in by_kind[:SHOWN]]
        if counts[TRUNCATED] + counts[EMPTY]:
            lines.append("For empty and cut replies, raise `parameters.max_tokens`; reasoning models need thousands.")
        lines.append(
            "All replies are kept. Check the model, its parameters and the prompt, and run again; `pilot` sets how "
            "many requests may fail (0: all)."
        )
        return "\n".join(lines)
