"""How the number of requests in flight follows 429, Retry-After and latency, on a simulated clock."""

from __future__ import annotations

import asyncio
import heapq
import random
import time

import pytest

from hound_plugin.llm.throttle import Throttle


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def busy(throttle: Throttle) -> None:
    throttle.running = int(throttle.limit)


def answer(throttle: Throttle, clock: Clock, seconds: float = 0.1) -> None:
    busy(throttle)
    started = clock.now
    clock.now += seconds
    throttle.succeeded(started)


def test_it_grows_until_the_first_429_and_slower_after_it() -> None:
    clock = Clock()
    throttle = Throttle(start=4, most=64, clock=clock)
    answer(throttle, clock)
    assert throttle.limit == 5
    throttle.overloaded(clock.now, None)
    assert throttle.limit == pytest.approx(2.5)
    before = throttle.limit
    answer(throttle, clock)
    assert before < throttle.limit <= before + 1 / before


def test_one_cut_for_the_requests_of_one_round() -> None:
    clock = Clock()
    throttle = Throttle(start=10, clock=clock)
    clock.now = 1.0
    for _ in range(5):
        throttle.overloaded(0.5, None)  # all of them started before the first cut
    assert throttle.limit == pytest.approx(5.0)
    throttle.overloaded(1.5, None)
    assert throttle.limit == pytest.approx(4.5)


def test_it_keeps_within_its_bounds() -> None:
    clock = Clock()
    throttle = Throttle(start=2, most=6, clock=clock)
    for _ in range(50):
        answer(throttle, clock)
    assert throttle.limit == 6
    for _ in range(100):
        clock.now += 1
        throttle.overloaded(clock.now, None)
    assert throttle.limit == 1


def test_slow_answers_shrink_it() -> None:
    clock = Clock()
    throttle = Throttle(start=20, most=20, clock=clock)
    for _ in range(100):
        answer(throttle, clock)
    assert throttle.limit == 20
    for _ in range(60):
        answer(throttle, clock, 0.5)
    assert throttle.limit < 20


def test_idle_requests_do_not_raise_it() -> None:
    clock = Clock()
    throttle = Throttle(start=8, clock=clock)
    throttle.running = 1
    throttle.succeeded(clock.now)
    assert throttle.limit == 8


def requests_for(items: int, rate: float, latency: float, burst: float = 10.0) -> tuple[int, float]:
    """Requests and seconds that ``items`` answers take of a server with a token bucket; nothing but arithmetic."""
    clock, uneven = Clock(), random.Random(0)
    throttle = Throttle(most=64, clock=clock)
    tokens, filled, sent, done, ready = burst, 0.0, 0, 0, items
    events: list[tuple[float, int, str, float]] = []  # time, number, what happens, start of its request
    while done < items:
        while ready and throttle.running < int(throttle.limit) and throttle._gate <= clock.now:
            tokens, filled = min(burst, tokens + (clock.now - filled) * rate), clock.now
            accepted = tokens >= 1
            tokens -= accepted
            ready, sent, throttle.running = ready - 1, sent + 1, throttle.running + 1
            answer_at = clock.now + (latency * uneven.uniform(0.7, 1.3) if accepted else 0.001)
            heapq.heappush(events, (answer_at, sent, "answer" if accepted else "429", clock.now))
        if ready and throttle._gate > clock.now:
            heapq.heappush(events, (throttle._gate, -1, "gate", 0.0))
        clock.now, number, kind, started = heapq.heappop(events)
        if kind == "answer":
            throttle.succeeded(started)
            throttle.running, done = throttle.running - 1, done + 1
        elif kind == "429":
            wait = max(0.0, (1 - tokens) / rate)
            throttle.overloaded(started, wait)
            throttle.running -= 1
            heapq.heappush(events, (clock.now + wait, number, "again", 0.0))
        ready += kind == "again"
    return sent, clock.now


@pytest.mark.parametrize(("rate", "latency"), [(100, 0.3), (60, 0.3), (20, 1.0)])
@pytest.mark.parametrize("items", [200, 2000])
def test_few_requests_are_spent_on_finding_the_edge(items: int, rate: float, latency: float) -> None:
    sent, seconds = requests_for(items, rate, latency)
    assert sent <= 1.1 * items
    assert seconds <= 1.1 * items / rate + 5 * latency


def test_a_crowd_of_429_closes_the_gate_for_all() -> None:
    async def wait(throttle: Throttle) -> float:
        started = time.monotonic()
        await throttle.enter()
        return time.monotonic() - started

    alone, crowd = Throttle(start=8), Throttle(start=8)
    for throttle, many in ((alone, 1), (crowd, 6)):
        for _ in range(10):
            throttle.succeeded(throttle.now())
        for _ in range(many):
            throttle.overloaded(throttle.now(), 0.3)
    assert asyncio.run(wait(alone)) < 0.2
    assert asyncio.run(wait(crowd)) >= 0.25
