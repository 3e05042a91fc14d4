"""When requests are sent: more at once while all goes well, fewer after 429 or when answers slow down, and how long a
server's ``Retry-After`` is obeyed.
"""

from __future__ import annotations

import asyncio
import email.utils
import math
import time
from collections import deque
from collections.abc import Callable, Mapping

FIRST_CUT, CUT, SLOWED_CUT = 0.5, 0.9, 0.95
NEAR, SLOW_STEPS = 0.95, 0.5
CROWDED = 0.2
LONGEST_WAIT = 300.0
"""Seconds that a server's ``Retry-After`` is obeyed at most."""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by ``Retry-After`` (seconds or a date) or ``retry-after-ms``; None if not given or unreadable.

    A time that has passed is 0. The number is as the server said; :class:`ServerWaits` caps it.
    """
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        text = headers.get(name)
        if not text:
            continue
        try:
            seconds = float(text) / scale
        except ValueError:
            try:
                seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
            except (TypeError, ValueError, OverflowError):
                continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    return None


class ServerWaits:
    """Caps what servers ask to wait, and says once that it did."""

    def __init__(self, say: Callable[[str], None] = lambda _: None, longest: float = LONGEST_WAIT) -> None:
        """``say`` takes the line; ``longest`` is in seconds."""
        self._say = say
        self.longest = longest
        self._said = False

    def __call__(self, seconds: float | None) -> float | None:
        """The seconds to wait; None for None."""
        if seconds is None or seconds <= self.longest:
            return seconds
        if not self._said:
            self._said = True
            self._say(
                f"warning: the server asks to wait {seconds:.0f} s (Retry-After); {self.longest:g} s are waited at most"
            )
        return self.longest


class Throttle:
    """Additive increase, multiplicative decrease (AIMD) of the number of requests under way.

    The limit doubles per round until the first 429, then grows by one per round, and by a half near the limit at
    which the last 429 came, so that few requests are spent on finding the edge. A 429 takes 10% off, once per round;
    the first one half, since doubling has gone up to twice too far.
    When answers take more than twice as long as the quickest usual ones, the limit shrinks by 5% per round: the server
    queues, and more requests would only wait there.

    ``Retry-After`` always holds for the request that got it. When a fifth of the recent answers were 429, it holds for
    all. Not thread-safe: for one event loop.
    """

    def __init__(self, start: int = 4, most: int = 64, clock: Callable[[], float] = time.monotonic) -> None:
        """``start`` and ``most``: requests under way at first and at most, each at least 1."""
        self.limit = float(min(start, most))
        self.most = most
        self.running = 0
        self._clock = clock
        self._gate = 0.0  # nobody starts before this time
        self._edge: float | None = None  # the limit at which the last 429 came
        self._last_cut = 0.0
        self._recent: deque[bool] = deque(maxlen=20)
        self._best: deque[float] = deque(maxlen=50)  # quickest latency of each round of 20
        self._round: list[float] = []
        self._waiting: deque[asyncio.Future[None]] = deque()

    def now(self) -> float:
        """The time by this throttle's clock, in seconds."""
        return self._clock()

    async def enter(self, stopping: Callable[[], bool] = lambda: False) -> float:
        """Wait for a place; gives the time at which the request starts. When ``stopping``, a closed gate is passed."""
        while True:
            delay = 0.0 if stopping() else self._gate - self._clock()
            if delay <= 0 and self.running < int(self.limit):
                break
            if delay > 0:
                await asyncio.sleep(min(delay, 0.5))
                continue
            place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(place)
            await place
        self.running += 1
        return self._clock()

    def leave(self) -> None:
        """Give the place back."""
        self.running -= 1
        free = int(self.limit) - self.running
        while free > 0 and self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                free -= 1

    def succeeded(self, started: float) -> None:
        """An answer came to a request that started then."""
        self._recent.append(False)
        if self.running < int(self.limit):
            return  # the limit is not what holds us back
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
