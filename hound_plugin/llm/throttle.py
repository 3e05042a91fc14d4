"""How many requests are in flight: more while all goes well, fewer after 429 or when replies slow down."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

FIRST_CUT, CUT, SLOWED_CUT = 0.5, 0.9, 0.95
NEAR, SLOW_STEPS = 0.95, 0.5
CROWDED = 0.2


class Throttle:
    """Additive increase, multiplicative decrease (AIMD) of the number of requests in flight.

    The limit doubles per round until the first 429, then grows by one per round, and by a half near the limit at
    which the last 429 came, so that few requests are spent on finding the edge. A 429 takes 10% off, once per round;
    the first one takes off half, since doubling may have overshot by a factor of two.
    When replies take more than twice as long as the fastest typical ones, the limit shrinks by 5% per round: the server
    queues them, and more requests would only wait there.

    ``Retry-After`` always applies to the request that got it. When a fifth of the recent replies were 429, it applies
    to all. Not thread-safe: for one event loop.
    """

    def __init__(self, start: int = 4, most: int = 64, clock: Callable[[], float] = time.monotonic) -> None:
        """``start`` and ``most``: requests in flight at first and at most, each at least 1."""
        self.limit = float(min(start, most))
        self.most = most
        self.running = 0
        self._clock = clock
        self._gate = 0.0  # no request starts before this time
        self._edge: float | None = None  # the limit at which the last 429 came
        self._last_cut = 0.0
        self._recent: deque[bool] = deque(maxlen=20)
        self._best: deque[float] = deque(maxlen=50)  # lowest latency of each round of 20
        self._round: list[float] = []
        self._waiting: deque[asyncio.Future[None]] = deque()

    def now(self) -> float:
        """The time by this throttle's clock, in seconds."""
        return self._clock()

    async def enter(self, stopping: Callable[[], bool] = lambda: False) -> float:
        """Wait for a slot; returns the time at which the request starts. If ``stopping``, a closed gate is ignored."""
        while True:
            delay = 0.0 if stopping() else self._gate - self._clock()
            if delay <= 0 and self.running < int(self.limit):
                break
            if delay > 0:
                await asyncio.sleep(min(delay, 0.5))
                continue
            slot: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(slot)
            await slot
        self.running += 1
        return self._clock()

    def leave(self) -> None:
        """Give the slot back."""
        self.running -= 1
        free = int(self.limit) - self.running
        while free > 0 and self._waiting:
            slot = self._waiting.popleft()
            if not slot.done():
                slot.set_result(None)
                free -= 1

    def succeeded(self, started: float) -> None:
        """A reply came to a request that started then."""
        self._recent.append(False)
        if self.running < int(self.limit):
            return  # the limit is not the bottleneck
        if self._slow(self._clock() - started):
            self._cut(started, SLOWED_CUT)
        elif self._edge is None:
            self.limit += 1
        else:
            self.limit += (SLOW_STEPS if self.limit >= NEAR * self._edge else 1.0) / self.limit
        self.limit = min(self.limit, float(self.most))

    def overloaded(self, started: float, retry_after: float | None) -> None:
        """429 came to a request that started then."""
        self._recent.append(True)
        factor = FIRST_CUT if self._edge is None else CUT
        if started >= self._last_cut:  # a single 429 far below the edge does not move it much
            self._edge = 0.75 * self.limit if self._edge is None else max(self.limit, 0.9 * self._edge)
        self._cut(started, factor)
        if retry_after and len(self._recent) >= 5 and sum(self._recent) >= CROWDED * len(self._recent):
            self._gate = max(self._gate, self._clock() + retry_after)

    def _cut(self, started: float, factor: float) -> None:
        if started >= self._last_cut:  # requests of the round before the last cut say nothing new
            self.limit = max(1.0, self.limit * factor)
            self._last_cut = self._clock()

    def _slow(self, latency: float) -> bool:
        self._round.append(latency)
        if len(self._round) < 20:
            return False
        middle = sorted(self._round)[len(self._round) // 2]
        self._best.append(min(self._round))
        self._round.clear()
        usual = sorted(self._best)[len(self._best) // 4]
        return len(self._best) >= 3 and middle > 2 * usual and self.limit > 2
