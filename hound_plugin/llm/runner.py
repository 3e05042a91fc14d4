"""Sending what is not answered yet: claimed first, throttled, retried, recorded, and stopped when it must stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hound_plugin.errors import JudgeError
from hound_plugin.llm.requests import (
    EMPTY,
    FILTERED,
    FINAL,
    OK,
    REFUSED,
    REJECTED,
    TRUNCATED,
    UNPARSED,
    Client,
    OverloadedError,
    RejectedError,
    Reply,
    Task,
    TransientError,
)
from hound_plugin.llm.ledger import Ledger
from hound_plugin.llm.pilot import PILOT, Pilot
from hound_plugin.llm.prices import Price, estimate_tokens
from hound_plugin.llm.ledger_tables import Claim, Entry, Totals
from hound_plugin.llm.throttle import LONGEST_WAIT, ServerWaits, Throttle

Result = TypeVar("Result")
IN_A_BATCH = "requests lie in a batch that is paid for; run with judge.backend=openai-batch to collect it"
PATIENCE = 5
"""So many times more often than after a fault is a request sent again after 429, which is no fault."""
PROGRESS = 15.0
REJECTED_IN_A_ROW = 10
"""So many requests refused one after another, and none answered: it is not the requests."""


@dataclass(frozen=True)
class Limits:
    """How hard to try, and when to stop.

    Attributes:
        attempts: answers without a value after which a request counts as missing, at least 1.
        tries: sends per attempt that end without any answer, at least 1; five times as many for 429.
        backoff: seconds before the second try; doubles each time, with jitter, up to ``longest_wait``.
        longest_retry_after: seconds that a server's ``Retry-After`` is obeyed at most.
        pilot: distinct requests without a value after which a run without any stops; 0 for no limit.
        concurrency: requests under way at most.
        max_cost: stop before the ledger's total cost would pass this.
        price: what tokens cost; needed for ``max_cost``.
        output_tokens: tokens of an answer at most, for estimates.
        image_tokens: tokens of a request's images, for estimates.
    """

    attempts: int = 3
    tries: int = 6
    backoff: float = 1.0
    longest_wait: float = 120.0
    longest_retry_after: float = LONGEST_WAIT
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


def run_tasks(
    tasks: Iterable[Task],
    client: Client,
    ledger: Ledger,
    limits: Limits,
    say: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Get every task answered or listed as missing; ``say`` gets a line every 15 seconds.

    What is in the ledger is not sent again. Answers are on disk when this returns, also when it raises.

    Raises:
        JudgeError: bad key, unknown model, quota or the like, or the first requests gave nothing that can be used;
            nothing more is sent after it.
        LedgerError: the ledger cannot be written.
    """
    return asyncio.run(_Run(client, ledger, limits, say).all(tasks))


class _Run:
    def __init__(self, client: Client, ledger: Ledger, limits: Limits, say: Callable[[str], None]) -> None:
        self.client, self.ledger, self.limits, self.say = client, ledger, limits, say
        self.throttle = Throttle(most=limits.concurrency)
        self.server_wait = ServerWaits(say, limits.longest_retry_after)
        self.pilot = Pilot(limits.pilot, lambda: client.conversation.expects)
        self.outcome = Outcome()
        self.error: BaseException | None = None
        self.reserved: dict[str, float] = {}  # estimated cost of what is under way
        self.in_hand: set[str] = set()
        self._used: Totals = ledger.totals()
        self.uncounted = 0.0  # estimated cost of answers whose tokens the server does not tell
        self.unpriced = ledger.uncounted()  # such answers of earlier runs
        self.rejected_in_a_row = 0
        self.jitter = random.Random()
        self.interrupted = False

    async def all(self, tasks: Iterable[Task]) -> Outcome:
        source, later = iter(tasks), list[Task]()
        with self._soft_interrupt():
            reporter = asyncio.create_task(self._report())
            try:
                await self._drain(source, later)
                while later and not self._stopping:  # in another run's hands: wait for its answers
                    await asyncio.sleep(0.5)
                    again, later = later, []
                    await self._drain(iter(again), later)
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
            await asyncio.sleep(PROGRESS)
            now, price = self.outcome, self.limits.price
            cost = f", cost of this folder {self._spent(price):.4f}" if price else ""
            self.say(
                f"{now.answered} answered, {now.missing} missing, {now.failed} failed, {now.sent} requests sent, "
                f"{int(self.throttle.limit)} at once{cost}"
            )

    @property
    def _stopping(self) -> bool:
        return self.error is not None or self.interrupted or bool(self.outcome.stopped)

    async def _drain(self, source: Iterator[Task], later: list[Task]) -> None:
        workers = [asyncio.create_task(self._work(source, later)) for _ in range(2 * self.limits.concurrency)]
        await asyncio.gather(*workers)

    async def _work(self, source: Iterator[Task], later: list[Task]) -> None:
        while not self._stopping:
            try:
                task = next(source, None)
                if task is None:
                    return
                if task.key in self.in_hand:  # the same request under another name
                    later.append(task)
                    continue
                self.in_hand.add(task.key)
                claim: Claim = await self._on_disk(self.ledger.claim(task.key, self.limits.attempts))
                if claim.state == "busy":
                    later.append(task)
                elif claim.state == "batched":
                    self.outcome.failed += 1
                    if IN_A_BATCH not in self.outcome.warnings:
                        self.outcome.warnings.append(IN_A_BATCH)
                elif claim.entry is not None:
                    self.outcome.done_before += 1
                    self.outcome.missing += claim.entry.status != OK
                    if claim.entry.status == OK:
                        self.pilot.known_good()
                elif await self.pilot.enter(task.key, lambda: self._stopping):
                    await self._settle(task, claim.attempt)
                else:
                    await self._on_disk(self.ledger.release(task.key))
                self.in_hand.discard(task.key)
            except Exception as error:  # whatever it is, nothing more may be sent
                self.error = self.error or error
                return

    async def _settle(self, task: Task, attempt: int) -> None:
        """Attempts on one task until it has a value or is missing; its claim is given back in any case."""
        while True:
            try:
                reply = await self._answer(task, attempt)
                if reply is None:
                    return
                entry = read_reply(task, attempt, reply, self.client)
                last = entry.status in FINAL or attempt + 1 >= self.limits.attempts
                stop = last or self._stopping
                self._used = await self._on_disk(self.ledger.record(entry, release=stop))
                if entry.status != REJECTED and None in (entry.prompt_tokens, entry.completion_tokens):
                    self.uncounted += self.reserved.get(task.key, 0.0)
            finally:
                self.reserved.pop(task.key, None)
            self._count(entry, last)
            if last:
                self.pilot.settle(entry, why_missing(entry), task.name)
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
                f"{self.rejected_in_a_row} requests were refused one after another and none was answered; the last "
                f"time because of: {entry.raw[:300]}. Look at `model` and `parameters`."
            )

    async def _answer(self, task: Task, attempt: int) -> Reply | RejectedError | None:
        """One answer, with retries; None if there is none to be had now (noted as a failure)."""
        problem: TransientError | None = None
        faults = turned_away = 0
        while faults < self.limits.tries and turned_away < PATIENCE * self.limits.tries:
            if problem is not None:
                await self._pause(self._wait(problem, max(faults, turned_away)))
            started = await self.throttle.enter(lambda: self._stopping)
            try:
                if self._stopping or not await self._may_send(task, attempt):
                    await self._on_disk(self.ledger.release(task.key))
                    return None
                started = self.throttle.now()
                reply = await self.client.send(task, attempt)
                self.throttle.succeeded(started)
                if reply.warning and reply.warning not in self.outcome.warnings:
                    self.outcome.warnings.append(reply.warning)
                return reply
            except OverloadedError as error:
                problem, turned_away = error, turned_away + 1
                self.throttle.overloaded(started, self.server_wait(error.retry_after))
            except TransientError as error:
                problem, faults = error, faults + 1
            except RejectedError as error:
                return error
            except JudgeError as error:
                await self._on_disk(self.ledger.fail(task.key, "fatal", str(error)))
                raise
            finally:
                self.throttle.leave()
        self.outcome.failed += 1
        await self._on_disk(self.ledger.fail(task.key, problem.kind if problem else "server", str(problem)))
        self.pilot.fail(task.key, task.name, str(problem))
        self.pilot.check()
        return None

    async def _may_send(self, task: Task, attempt: int) -> bool:
        """Note the request; False if it would pass ``max_cost``, whatever those under way turn out to cost."""
        limit, price = self.limits.max_cost, self.limits.price
        if limit is not None and price is not None and task.key not in self.reserved:
            prompt = json.dumps(self.client.conversation.messages(task, attempt))
            cost = price.cost(estimate_tokens(prompt) + self.limits.image_tokens, self.limits.output_tokens)
            self.uncounted += self.unpriced * cost
            self.unpriced = 0
            while (spent := self._spent(price)) + sum(self.reserved.values()) + cost > limit:
                if not self.reserved or self._stopping:
                    self.outcome.stopped = f"max_cost {limit:g} reached: {spent:.4f} spent"
                    return False
                await asyncio.sleep(0.02)
            self.reserved[task.key] = cost
        await self._on_disk(self.ledger.sent(task.key, attempt))
        self.outcome.sent += 1
        return True

    def _spent(self, price: Price) -> float:
        return price.cost(self._used.prompt_tokens, self._used.completion_tokens) + self.uncounted

    def _wait(self, problem: TransientError, number: int) -> float:
        base = min(self.limits.backoff * 2 ** (number - 1), self.limits.longest_wait)
        own = base * self.jitter.uniform(0.5, 1.5)
        asked = self.server_wait(problem.retry_after)
        return own if asked is None else asked + min(own, 1.0) * self.jitter.random()

    async def _pause(self, seconds: float) -> None:
        while seconds > 0 and not self._stopping:
            step = min(seconds, 0.5)
            await asyncio.sleep(step)
            seconds -= step

    async def _on_disk(self, future: Future[Result]) -> Result:
        return await asyncio.wrap_future(future)

    @contextlib.contextmanager
    def _soft_interrupt(self) -> Iterator[None]:
        """The first Ctrl-C lets what is under way (and paid) finish; the second ends at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()

        def first() -> None:
            self.interrupted = True
            loop.remove_signal_handler(signal.SIGINT)
            signal.signal(signal.SIGINT, signal.default_int_handler)

        before = signal.getsignal(signal.SIGINT)
        loop.add_signal_handler(signal.SIGINT, first)
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            signal.signal(signal.SIGINT, before)


def read_reply(task: Task, attempt: int, reply: Reply | RejectedError, client: Client) -> Entry:
    """What an answer is worth: a value only if it is plainly there."""
    if isinstance(reply, RejectedError):
        return Entry(task.key, attempt, reply.status, None, str(reply), prompt_tokens=0, completion_tokens=0)
    value: Any = None
    why: dict[str, str] = {}
    if reply.refusal:
        status = REFUSED
    elif reply.finish == "content_filter":
        status = FILTERED
    elif reply.finish == "length" and not client.conversation.keeps_truncated:
        status = TRUNCATED
    elif not reply.text.strip():
        status = EMPTY
    else:
        value = client.conversation.parse(reply.text)
        status = OK if value is not None else UNPARSED
        why = {"why": client.conversation.why_missing(reply.text)} if value is None else {}
    detail = json.dumps({"finish": reply.finish, "id": task.id, "candidate": task.candidate, "draw": task.draw, **why})
    return Entry(
        task.key, attempt, status, value, reply.refusal or reply.text, reply.model, reply.fingerprint, detail,
        reply.prompt_tokens, reply.completion_tokens,
    )  # fmt: skip


def why_missing(entry: Entry) -> str:
    """Why an answer has no value, as :func:`read_reply` noted it; empty if it has one or its status says all."""
    return str(json.loads(entry.detail or "{}").get("why", ""))
