"""How long to wait before another try, and the one place where that is decided."""

from __future__ import annotations

import asyncio
import time
from email.utils import formatdate

import pytest

from hound_plugin.backoff import LONGEST_RETRY_AFTER, Backoff, parse_retry_after
from hound_plugin.llm.requests import OverloadedError, RejectedError, TransientError
from hound_plugin.llm.retry import call_with_retries


@pytest.mark.parametrize(
    ("retry", "lowest", "highest"), [(1, 0.5, 1.5), (2, 1.0, 3.0), (4, 4.0, 12.0), (9, 30.0, 90.0), (5000, 30.0, 90.0)]
)
def test_it_doubles_up_to_a_limit_with_jitter(retry: int, lowest: float, highest: float) -> None:
    delays = [Backoff(first=1.0, longest=60.0).delay(retry) for _ in range(200)]
    assert lowest <= min(delays) < max(delays) <= highest
    assert max(delays) - min(delays) > 0.5 * (highest - lowest), "clients must not come back all at once"


def test_retry_after_comes_first() -> None:
    backoff = Backoff(first=1.0)
    assert all(7.0 <= backoff.delay(6, 7.0) <= 8.0 for _ in range(100))
    assert 0.0 <= Backoff(first=0.01).delay(1, 0.0) <= 0.01
    assert LONGEST_RETRY_AFTER <= backoff.delay(1, 1e9) <= LONGEST_RETRY_AFTER + 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7), ({"retry-after": "0.5"}, 0.5), ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "-3"}, 0), ({"retry-after": "soon"}, None), ({}, None), ({"retry-after": "nan"}, None),
        ({"retry-after": "1e9"}, 1e9), ({"retry-after": "inf"}, None), ({"retry-after": "1e999"}, None),
        ({"retry-after": "Fri, 31 Dec 99999 23:59:59 GMT"}, None), ({"retry-after": ""}, None),
    ],
)  # fmt: skip
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert parse_retry_after(headers) == seconds


def test_retry_after_as_a_date() -> None:
    seconds = parse_retry_after({"retry-after": formatdate(time.time() + 30, usegmt=True)})
    assert seconds is not None
    assert 27 < seconds <= 30


def test_a_long_wait_is_capped_and_reported_once() -> None:
    lines: list[str] = []
    backoff = Backoff(warn=lines.append)
    asked = (None, 0.0, 7.5, LONGEST_RETRY_AFTER)
    assert [backoff.capped(seconds) for seconds in asked] == list(asked)
    assert lines == []
    assert [backoff.capped(seconds) for seconds in (LONGEST_RETRY_AFTER + 1, 1e9, 86400.0)] == [LONGEST_RETRY_AFTER] * 3
    assert lines == ["warning: the server asks to wait 301 s (Retry-After); waiting 300 s at most"]


class Server:
    """Fails as it is told to, then answers."""

    def __init__(self, *problems: Exception) -> None:
        self.problems = list(problems)
        self.calls = 0

    async def call(self) -> str:
        self.calls += 1
        if self.problems:
            raise self.problems.pop(0)
        return "done"


def test_a_call_is_repeated_until_it_succeeds() -> None:
    server = Server(TransientError("500"), OverloadedError("429", retry_after=0.2))
    started = time.monotonic()
    assert asyncio.run(call_with_retries(server.call, 3, Backoff(0.01))) == "done"
    assert server.calls == 3
    assert time.monotonic() - started >= 0.2


def test_the_last_error_is_raised() -> None:
    server = Server(*(TransientError(f"{number}") for number in range(9)))
    with pytest.raises(TransientError, match=r"^2$"):
        asyncio.run(call_with_retries(server.call, 3, Backoff(0.001)))
    assert server.calls == 3


@pytest.mark.parametrize("problem", [RejectedError("400"), KeyError("not ours"), RecursionError()])
def test_what_no_other_try_can_mend_is_raised_at_once(problem: Exception) -> None:
    server = Server(problem)
    with pytest.raises(type(problem)):
        asyncio.run(call_with_retries(server.call, 3, Backoff(5.0)))
    assert server.calls == 1


def test_errors_are_translated() -> None:
    server = Server(ConnectionError("cut"), ConnectionError("cut"))
    translate = lambda error: TransientError(f"translated {error}")  # noqa: E731
    assert asyncio.run(call_with_retries(server.call, 3, Backoff(0.001), translate)) == "done"
    server = Server(ConnectionError("cut"))
    with pytest.raises(TransientError, match="translated cut"):
        asyncio.run(call_with_retries(server.call, 1, Backoff(0.001), translate))
