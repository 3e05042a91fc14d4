"""Who is answered next: questions without media go first, and the others are not forgotten."""

from __future__ import annotations

import asyncio
from collections import deque

IN_A_ROW = 4
"""Questions without media that go before one with media that waits."""


class Turns:
    """The engine's places, in turn.

    An answer about a clip takes far longer to begin than one about text alone. If both kinds stood in one line, a short
    question would wait for all clips before it.

    Args:
        semaphore: the engine's own, of ``MAX_CONCURRENT`` places.
    """

    def __init__(self, semaphore: asyncio.Semaphore) -> None:
        self._semaphore = semaphore
        self._waiting: dict[bool, deque[asyncio.Future[None]]] = {False: deque(), True: deque()}
        self._in_a_row = 0
        self._giving: asyncio.Task[None] | None = None

    async def acquire(self, has_media: bool) -> None:
        """Wait for a place; whoever is cancelled leaves the line."""
        turn = asyncio.get_running_loop().create_future()
        self._waiting[has_media].append(turn)
        if self._giving is None or self._giving.done():
            self._giving = asyncio.create_task(self._give())
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # the place came at the same moment
                self.release()
            raise

    def release(self) -> None:
        """Give a place back."""
        self._semaphore.release()

    async def _give(self) -> None:
        while any(self._waiting.values()):
            await self._semaphore.acquire()
            turn = self._next()
            if turn is None:
                self._semaphore.release()
            else:
                turn.set_result(None)

    def _next(self) -> asyncio.Future[None] | None:
        for line in self._waiting.values():
            while line and line[0].done():  # it left
                line.popleft()
        text, media = self._waiting[False], self._waiting[True]
        if text and not (media and self._in_a_row >= IN_A_ROW):
            self._in_a_row += 1
            return text.popleft()
        self._in_a_row = 0
        return media.popleft() if media else None
