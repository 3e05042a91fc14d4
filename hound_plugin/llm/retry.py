"""Calls to a server that are repeated until they succeed: those of the Batch API, and the probe of a server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from hound_plugin.backoff import Backoff
from hound_plugin.llm.requests import TransientError

Result = TypeVar("Result")


async def call_with_retries(
    call: Callable[[], Awaitable[Result]],
    tries: int,
    backoff: Backoff,
    translate: Callable[[Exception], Exception] = lambda error: error,
) -> Result:
    """The result of ``call``, which is repeated while it fails with a :class:`TransientError`.

    Args:
        call: makes one try.
        tries: how many, at least 1.
        backoff: how long to wait between them.
        translate: turns an exception of ``call`` into one of this package's; the result is raised.

    Raises:
        TransientError: of the last try.
        Exception: any other error of ``call``, at once, as ``translate`` gives it.
    """
    for number in range(1, tries + 1):
        try:
            return await call()
        except Exception as error:
            problem = translate(error)
            if not isinstance(problem, TransientError) or number == tries:
                raise problem from None  # the original may hold the request, and with it the key
        await asyncio.sleep(backoff.delay(number, problem.retry_after))
    raise ValueError(f"tries: expected at least 1, got {tries}.")
