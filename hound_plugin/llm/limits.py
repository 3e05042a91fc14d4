"""How hard a run tries and when it stops, and the counts that it ends with."""

from __future__ import annotations

from dataclasses import dataclass, field

from hound_plugin.backoff import LONGEST_RETRY_AFTER, LONGEST_WAIT
from hound_plugin.llm.prices import Price

PILOT = 20
"""Distinct requests that may fail before a run stops, each after all its attempts."""


@dataclass(frozen=True)
class Limits:
    """How hard to try, and when to stop.

    Attributes:
        attempts: replies without a value after which a request counts as missing, at least 1.
        tries: sends per attempt that end without any reply, at least 1; five times as many after 429.
        backoff: seconds before the second try; doubles each time, with jitter, up to ``longest_wait``.
        longest_retry_after: a server's ``Retry-After`` is followed up to this, in seconds.
        pilot: distinct requests without a value after which a run that has none stops; 0 for no limit.
        concurrency: requests in flight at most.
        max_cost: stop before the ledger's total cost would exceed this.
        price: what tokens cost; needed for ``max_cost``.
        output_tokens: tokens of a reply at most, for estimates.
        image_tokens: tokens of a request's images, for estimates.
    """

    attempts: int = 3
    tries: int = 6
    backoff: float = 1.0
    longest_wait: float = LONGEST_WAIT
    longest_retry_after: float = LONGEST_RETRY_AFTER
    pilot: int = PILOT
    concurrency: int = 64
    max_cost: float | None = None
    price: Price | None = None
    output_tokens: int = 300
    image_tokens: int = 0


@dataclass
class Outcome:
    """Counts of one run; ``stopped`` says why it ended early, or is empty."""

    done_before: int = 0
    answered: int = 0
    missing: int = 0
    failed: int = 0
    sent: int = 0
    stopped: str = ""
    warnings: list[str] = field(default_factory=list)
