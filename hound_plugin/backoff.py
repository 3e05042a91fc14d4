"""How long to wait before another try: one rule for requests, batches, probes and downloads."""

from __future__ import annotations

import email.utils
import math
import random
import time
from collections.abc import Callable, Mapping

LONGEST_WAIT = 120.0
"""Seconds between two tries at most, unless the server asks for more."""
LONGEST_RETRY_AFTER = 300.0
"""Seconds of a server's ``Retry-After`` that are waited at most."""


class Backoff:
    """Exponential back-off with jitter, in which a server's ``Retry-After`` comes first."""

    def __init__(
        self,
        first: float = 1.0,
        longest: float = LONGEST_WAIT,
        longest_retry_after: float = LONGEST_RETRY_AFTER,
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        """All times are in seconds.

        Args:
            first: before the second try; doubles with each further one.
            longest: between two tries at most.
            longest_retry_after: ``Retry-After`` is followed up to this.
            warn: receives one line, the first time that a server asks for more than that.
        """
        self.first, self.longest, self.longest_retry_after = first, longest, longest_retry_after
        self._warn = warn
        self._warned = False
        self._random = random.Random()

    def delay(self, retry: int, retry_after: float | None = None) -> float:
        """Seconds to wait before a retry.

        Without ``retry_after``: ``first * 2 ** (retry - 1)``, at most ``longest``, times 0.5 to 1.5. With it: that
        time, and up to a second more, so that not all clients come back at once.

        Args:
            retry: 1 for the first one.
            retry_after: what the server asked for.
        """
        own = min(self.first * 2.0 ** min(retry - 1, 60), self.longest)
        asked = self.capped(retry_after)
        if asked is None:
            return own * self._random.uniform(0.5, 1.5)
        return asked + min(own, 1.0) * self._random.random()

    def capped(self, retry_after: float | None) -> float | None:
        """A server's ``Retry-After``, at most ``longest_retry_after``; None if it named no time."""
        if retry_after is None or retry_after <= self.longest_retry_after:
            return retry_after
        if not self._warned:
            self._warned = True
            self._warn(
                f"warning: the server asks to wait {retry_after:.0f} s (Retry-After); waiting "
                f"{self.longest_retry_after:g} s at most"
            )
        return self.longest_retry_after


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by ``Retry-After`` (seconds or a date) or ``retry-after-ms``; None if absent or unreadable.

    A time that has passed is 0. The number is what the server said; :meth:`Backoff.capped` limits it.
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
