"""Sends what has no reply yet: claimed first, throttled, retried, recorded, and stopped when it must stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

from hound_plugin.backoff import Backoff
from hound_plugin.errors import JudgeError
from hound_plugin.llm.ledger import Ledger
from hound_plugin.llm.ledger_tables import Claim, Entry, Totals
from hound_plugin.llm.limits import Limits, Outcome
from hound_plugin.llm.pilot import Pilot
from hound_plugin.llm.prices import Price, estimate_tokens
from hound_plugin.llm.replies import to_entry, why_missing
from hound_plugin.llm.requests import (
    FINAL,
    OK,
    REJECTED,
    Client,
    OverloadedError,
    RejectedError,
    Reply,
    Request,
    TransientError,
    message_text,
)
from hound_plugin.llm.throttle import Throttle

Result = TypeVar("Result")
IN_A_BATCH = "some requests are in a batch that is paid for; run with backend openai-batch to collect it"
TRIES_AFTER_429 = 5
"""Factor on ``Limits.tries``: 429 is not a fault, so more tries may end in it."""
PROGRESS_SECONDS = 15.0
REJECTED_IN_A_ROW = 10
"""Rejections in a row, with no reply at all, after which the settings must be wrong, not the requests."""


def run_requests(
    requests: Iterable[Request],
    client: Client,
    ledger: Ledger,
    limits: Limits,
    say: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Send requests until each has a value or counts as missing; ``say`` gets a progress line every 15 seconds.

    What the ledger has is not sent again. Replies are on disk when this returns, and also when it raises.

    Raises:
        JudgeError: bad key, unknown model, quota or the like, or the first requests gave nothing usable; nothing is
            sent after that.
        LedgerError: the ledger cannot be written.
    """
    return asyncio.run(_Run(client, ledger, limits, say).all(requests))


class _Run:
    def __init__(self, client: Client, ledger: Ledger, limits: Limits, say: Callable[[str], None]) -> None:
        self.client, self.ledger, self.limits, self.say = client, ledger, limits, say
        self.throttle = Throttle(most=limits.concurrency)
        self.backoff = Backoff(limits.backoff, limits.longest_wait, limits.longest_retry_after, say)
        self.pilot = Pilot(limits.pilot, lambda: client.prompt.expects)
        self.outcome = Outcome()
        self.error: BaseException | None = None
        self.reserved: dict[str, float] = {}  # estimated cost of requests in flight
        self.in_flight: set[str] = set()
        self._used: Totals = ledger.totals()
        self.uncounted = 0.0  # estimated cost of replies without token counts
        self.unpriced = ledger.uncounted()  # such replies of earlier runs
        self.rejected_in_a_row = 0
        self.interrupted = False

    async def all(self, requests: Iterable[Request]) -> Outcome:
        source, later = iter(requests), list[Request]()
        with self._soft_interrupt():
            reporter = asyncio.create_task(self._report())
            try:
                await self._drain(source, later)
                while later and not self._stopping:  # claimed by another run: wait for its replies
                    await asyncio.sleep(0.5)
                    waiting, later = later, []
                    await self._drain(iter(waiting), later)
            finally:
                reporter.cancel()
                await self.client.close()
        if self.error is not None:
            raise self.error
        if self.interrupted:
            raise KeyboardInterrupt
        return self.outcome

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            counts, price = self.outcome, self.limits.price
            cost = f", cost of this folder {self._spent(price):.4f}" if price else ""
            self.say(
                f"{counts.answered} answered, {counts.missing} missing, {counts.failed} failed, {counts.sent} requests "
                f"sent, up to {int(self.throttle.limit)} at a time{cost}"
            )

    @property
    def _stopping(self) -> bool:
        return self.error is not None or self.interrupted or bool(self.outcome.stopped)

    async def _drain(self, source: Iterator[Request], later: list[Request]) -> None:
        workers = [asyncio.create_task(self._work(source, later)) for _ in range(2 * self.limits.concurrency)]
        await asyncio.gather(*workers)

    async def _work(self, source: Iterator[Request], later: list[Request]) -> None:
        while not self._stopping:
            try:
                request = next(source, None)
                if request is None:
                    return
                if request.key in self.in_flight:  # the same request under another id
                    later.append(request)
                    continue
                self.in_flight.add(request.key)
                claim: Claim = await self._on_disk(self.ledger.claim(request.key, self.limits.attempts))
                if claim.state == "busy":
                    later.append(request)
                elif claim.state == "batched":
                    self.outcome.failed += 1
                    if IN_A_BATCH not in self.outcome.warnings:
                        self.outcome.warnings.append(IN_A_BATCH)
                elif claim.entry is not None:
                    self.outcome.done_before += 1
                    self.outcome.missing += claim.entry.status != OK
                    if claim.entry.status == OK:
                        self.pilot.known_good()
                elif await self.pilot.enter(request.key, lambda: self._stopping):
                    await self._settle(request, claim.attempt)
                else:
                    await self._on_disk(self.ledger.release(request.key))
                self.in_flight.discard(request.key)
            except Exception as error:  # whatever it is, stop sending; all() raises it
                self.error = self.error or error
                return

    async def _settle(self, request: Request, attempt: int) -> None:
        """Make attempts on one request until it has a value or is missing; gives up its claim in any case."""
        while True:
            try:
                reply = await self._send(request, attempt)
                if reply is None:
                    return
                entry = to_entry(request, attempt, reply, self.client.prompt)
                last = entry.status in FINAL or attempt + 1 >= self.limits.attempts
                stop = last or self._stopping
                self._used = await self._on_disk(self.ledger.record(entry, release=stop))
                if entry.status != REJECTED and None in (entry.prompt_tokens, entry.completion_tokens):
                    self.uncounted += self.reserved.get(request.key, 0.0)
            finally:
                self.reserved.pop(request.key, None)
            self._count(entry, last)
            if last:
                self.pilot.settle(entry, why_missing(entry), request.name)
                self.pilot.check()
            if stop:
                return
            attempt += 1

    def _count(self, entry: Entry, last: bool) -> None:
        self.rejected_in_a_row = self.rejected_in_a_row + 1 if entry.status == REJECTED else 0
        self.outcome.answered += entry.status == OK
        self.outcome.missing += last and entry.status != OK
        if self.rejected_in_a_row >= REJECTED_IN_A_ROW and not self.outcome.answered:
            raise JudgeError(
                f"The server rejected {self.rejected_in_a_row} requests in a row and answered none; the last reason: "
                f"{entry.raw[:300]}. Check `model` and `parameters`."
            )

    async def _send(self, request: Request, attempt: int) -> Reply | RejectedError | None:
        """One reply, with retries; None if there is none now (recorded as a failure)."""
        problem: TransientError | None = None
        faults = overloads = 0
        while faults < self.limits.tries and overloads < TRIES_AFTER_429 * self.limits.tries:
            if problem is not None:
                await self._pause(self.backoff.delay(max(faults, overloads), problem.retry_after))
            started = await self.throttle.enter(lambda: self._stopping)
            try:
                if self._stopping or not await self._may_send(request, attempt):
                    await self._on_disk(self.ledger.release(request.key))
                    return None
                started = self.throttle.now()
                reply = await self.client.send(request, attempt)
                self.throttle.succeeded(started)
                if reply.warning and reply.warning not in self.outcome.warnings:
                    self.outcome.warnings.append(reply.warning)
                return reply
            except OverloadedError as error:
                problem, overloads = error, overloads + 1
                self.throttle.overloaded(started, self.backoff.capped(error.retry_after))
            except TransientError as error:
                problem, faults = error, faults + 1
            except RejectedError as error:
                return error
            except JudgeError as error:
                await self._on_disk(self.ledger.fail(request.key, "fatal", str(error)))
                raise
            finally:
                self.throttle.leave()
        self.outcome.failed += 1
        await self._on_disk(self.ledger.fail(request.key, problem.kind if problem else "server", str(problem)))
        self.pilot.fail(request.key, request.name, str(problem))
        self.pilot.check()
        return None

    async def _may_send(self, request: Request, attempt: int) -> bool:
        """Record the request as sent; False if it could exceed ``max_cost``, whatever those in flight will cost."""
        limit, price = self.limits.max_cost, self.limits.price
        if limit is not None and price is not None and request.key not in self.reserved:
            prompt = message_text(self.client.prompt.messages(request, attempt))
            cost = price.cost(estimate_tokens(prompt) + self.limits.image_tokens, self.limits.output_tokens)
            self.uncounted += self.unpriced * cost
            self.unpriced = 0
            while (spent := self._spent(price)) + sum(self.reserved.values()) + cost > limit:
                if not self.reserved or self._stopping:
                    self.outcome.stopped = f"max_cost {limit:g} reached: {spent:.4f} spent"
                    return False
                await asyncio.sleep(0.02)
            self.reserved[request.key] = cost
        await self._on_disk(self.ledger.sent(request.key, attempt))
        self.outcome.sent += 1
        return True

    def _spent(self, price: Price) -> float:
        return price.cost(self._used.prompt_tokens, self._used.completion_tokens) + self.uncounted

    async def _pause(self, seconds: float) -> None:
        while seconds > 0 and not self._stopping:
            step = min(seconds, 0.5)
            await asyncio.sleep(step)
            seconds -= step

    async def _on_disk(self, future: Future[Result]) -> Result:
        return await asyncio.wrap_future(future)

    @contextlib.contextmanager
    def _soft_interrupt(self) -> Iterator[None]:
        """The first Ctrl-C lets requests in flight (they are paid for) finish; the second stops at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()

        def on_first() -> None:
            self.interrupted = True
            loop.remove_signal_handler(signal.SIGINT)
            signal.signal(signal.SIGINT, signal.default_int_handler)

        before = signal.getsignal(signal.SIGINT)
        loop.add_signal_handler(signal.SIGINT, on_first)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            signal.signal(signal.SIGINT, before)
