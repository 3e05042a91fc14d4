"""Requests through the Batch API: files of requests, answered within a day at a lower price.

Every step is in the ledger before the next one begins. A batch is ``building`` (its rows are claimed for it and its
file is on disk), has a ``file`` on the server, is ``submitted``, and is ``collected``. A program that is killed
continues from there. Only between creating a batch and recording its id could a kill lead to a second, paid batch;
so a batch carries our name in its metadata, and one that exists already is adopted.

The first requests (``Limits.pilot``) go as a batch of their own, and the rest follow when one of them has a value: a
second wait in the queue, at the same price, before everything is spent on a model whose replies cannot be parsed.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

from hound_plugin.backoff import Backoff
from hound_plugin.errors import JudgeError
from hound_plugin.llm.batch_api import OVER, BatchAPI, BatchStatus
from hound_plugin.llm.batch_files import BatchDraft, BatchRecord, BatchRow
from hound_plugin.llm.ledger import Ledger
from hound_plugin.llm.ledger_tables import Claim, Entry
from hound_plugin.llm.limits import Limits, Outcome
from hound_plugin.llm.openai_client import OpenAIClient
from hound_plugin.llm.pilot import Pilot
from hound_plugin.llm.prices import estimate_tokens
from hound_plugin.llm.replies import read_row, to_entry, why_missing
from hound_plugin.llm.requests import FINAL, OK, RejectedError, Reply, Request, TransientError, message_text
from hound_plugin.records.files import locked, write_whole

Result = TypeVar("Result")
STATUS_SECONDS = 600.0


@dataclass(frozen=True)
class BatchLimits:
    """Limits of one file, and seconds between two looks at a batch."""

    rows: int = 50_000
    bytes: int = 150_000_000
    poll: float = 60.0


def run_batches(
    requests: Callable[[], Iterator[Request]],
    client: OpenAIClient,
    ledger: Ledger,
    limits: Limits,
    batch_limits: BatchLimits,
    say: Callable[[str], None],
) -> Outcome:
    """Send requests in batches until each has a value or counts as missing; raises as :func:`runner.run_requests`.

    Args:
        requests: yields all requests from the start, each time it is called.
        client: for the server and the wording of a request.
        ledger: as for single requests; both share their keys, so what is answered there is not sent here.
        limits: ``attempts`` per request; ``tries`` for rows that failed or expired.
        batch_limits: size of a file, and how often to look.
        say: receives a line on each batch.
    """
    waiting = "another run is using the batches of this folder; waiting for it"
    with locked(f"{ledger.path}.batch.lock", lambda: say(waiting)):
        return asyncio.run(_Batches(client, ledger, limits, batch_limits, say).all(requests))


class _Batches:
    def __init__(
        self,
        client: OpenAIClient,
        ledger: Ledger,
        limits: Limits,
        batch_limits: BatchLimits,
        say: Callable[[str], None],
    ) -> None:
        self.client, self.ledger, self.limits, self.batch_limits, self.say = client, ledger, limits, batch_limits, say
        self.folder = ledger.path.with_name("batches")
        self.outcome = Outcome()
        self.failed: Counter[str] = Counter()
        self.spent = 0.0
        self.pilot = Pilot(limits.pilot, lambda: client.prompt.expects)
        backoff = Backoff(limits.backoff, limits.longest_wait, limits.longest_retry_after, say)
        self.api = BatchAPI(client, limits.tries, backoff)
        self.counted: set[str] = set()  # sent in this run, or answered before it and counted
        self.unpriced = 0  # replies without token counts; each is taken to cost what the next one does

    async def all(self, requests: Callable[[], Iterator[Request]]) -> Outcome:
        self.folder.mkdir(exist_ok=True)
        try:
            await self._collect_open()
            while await self._submit_round(requests()):
                await self._collect_open()
        finally:
            await self.client.close()
        self.outcome.failed = sum(number >= self.limits.tries for number in self.failed.values())
        return self.outcome

    # --- building and submitting

    async def _submit_round(self, requests: Iterator[Request]) -> bool:
        """Submit everything that still needs a reply, or of that the pilot; returns whether there was anything."""
        draft, any_sent, seen = BatchDraft(), False, set[str]()
        self.outcome.stopped = ""  # replies that came in the meantime may have cost less than was estimated
        self._count_cost()
        for request in requests:
            if request.key in seen or self.failed[request.key] >= self.limits.tries:
                continue
            seen.add(request.key)
            if not self.pilot.admits(request.key) and not self._is_answered(request.key):
                self.say(f"the first {self.pilot.size} requests go ahead; the others follow when one has a value")
                break
            row = await self._claim(request)
            if row is None:
                continue
            line, cost = row.line(self.client.body(request, row.attempt)), self._cost(row)
            if self._exceeds_budget(draft.cost + cost + self.unpriced * cost):
                await self._on_disk(self.ledger.release(request.key))
                break
            self.pilot.begin(request.key)
            self.counted.add(request.key)
            if draft.is_full(line, self.batch_limits.rows, self.batch_limits.bytes):
                await self._submit(draft)
                draft, any_sent = BatchDraft(), True
                self._count_cost()
            draft.add(row, line, cost)
        if draft.rows:
            await self._submit(draft)
            any_sent = True
        return any_sent

    async def _claim(self, request: Request) -> BatchRow | None:
        """A row for the request, unless it is answered or claimed elsewhere."""
        claim: Claim = await self._on_disk(self.ledger.claim(request.key, self.limits.attempts))
        if claim.entry is not None:
            self._count_done(claim.entry)
        return BatchRow(request, claim.attempt) if claim.state == "claimed" else None

    def _is_answered(self, key: str) -> bool:
        entry = self.ledger.entry(key)
        return entry is not None and entry.status == OK

    def _count_done(self, entry: Entry) -> None:
        """Count a reply that was there before this run."""
        if entry.key not in self.counted:
            self.counted.add(entry.key)
            self.outcome.done_before += 1
            self.outcome.missing += entry.status != OK
            if entry.status == OK:
                self.pilot.known_good()

    def _cost(self, row: BatchRow) -> float:
        if self.limits.price is None or self.limits.max_cost is None:
            return 0.0
        prompt = message_text(self.client.prompt.messages(row.request, row.attempt))
        return self.limits.price.cost(estimate_tokens(prompt), self.limits.output_tokens)

    def _exceeds_budget(self, more: float) -> bool:
        limit = self.limits.max_cost
        if limit is None or self.spent + more <= limit:
            return False
        self.outcome.stopped = f"max_cost {limit:g} reached: {self.spent:.4f} spent or in batches"
        return True

    def _count_cost(self) -> None:
        """What is spent, and estimated for batches that are not collected."""
        if self.limits.max_cost is not None and self.limits.price is not None:
            totals = self.ledger.totals()
            self.unpriced = self.ledger.uncounted()
            self.spent = self.limits.price.cost(totals.prompt_tokens, totals.completion_tokens)
            self.spent += sum(batch.cost for batch in self._open())

    async def _submit(self, draft: BatchDraft) -> None:
        name = uuid.uuid4().hex
        write_whole(self.folder / f"{name}.jsonl", b"".join(draft.lines))
        keys = [row.request.key for row in draft.rows]
        await self._on_disk(self.ledger.batch_event(name, "building", draft.to_json(), claim=keys))
        await self._send_off(BatchRecord(name, tuple(draft.rows), draft.cost, None, None, False))

    async def _send_off(self, batch: BatchRecord) -> str:
        """Upload and create a batch, or adopt the one that an earlier process created; returns the server's id."""
        if batch.batch_id is not None:
            return batch.batch_id
        batch_id = await self.api.find(batch.name)
        if batch_id is None:
            file_id = batch.file_id
            if file_id is None:
                file_id = await self.api.upload(self.folder / f"{batch.name}.jsonl")
                await self._on_disk(self.ledger.batch_event(batch.name, "file", file_id))
            batch_id = await self.api.create(batch.name, file_id)
        for row in batch.rows:
            self.ledger.sent(row.request.key, row.attempt)
            self.outcome.sent += 1
        await self._on_disk(self.ledger.batch_event(batch.name, "submitted", batch_id))
        (self.folder / f"{batch.name}.jsonl").unlink(missing_ok=True)
        self.say(f"batch {batch_id}: {len(batch.rows)} requests submitted")
        return batch_id

    # --- waiting and collecting

    def _open(self) -> list[BatchRecord]:
        """Batches that are not collected."""
        batches = (BatchRecord.from_events(name, events) for name, events in self.ledger.batches().items())
        return [batch for batch in batches if not batch.collected]

    async def _collect_open(self) -> None:
        """Wait for every batch that is not collected, and record its replies."""
        problem: JudgeError | None = None
        for batch in self._open():
            is_here = (self.folder / f"{batch.name}.jsonl").is_file()
            if batch.batch_id is None and batch.file_id is None and not is_here:
                await self._on_disk(self.ledger.batch_event(batch.name, "collected", "given up: its file is gone"))
                continue
            status = await self._wait_for(await self._send_off(batch))
            try:
                await self._collect(batch, status)
            except JudgeError as error:
                problem = problem or error
        if problem is not None:
            raise problem
        self.pilot.check()

    async def _wait_for(self, batch_id: str) -> BatchStatus:
        last_line = 0.0
        while True:
            batch = await self.api.retrieve(batch_id)
            if batch.status in OVER:
                return batch
            if time.monotonic() - last_line > STATUS_SECONDS:
                last_line = time.monotonic()
                self.say(f"batch {batch_id}: {batch.status}; you can stop here, the same command continues later")
            await asyncio.sleep(self.batch_limits.poll)

    async def _collect(self, batch: BatchRecord, status: BatchStatus) -> None:
        """Record every reply of a batch that is over; rows without one, or with two that differ, are free again."""
        unanswered = {row.custom_id: row for row in batch.rows}
        replies, reasons, fatal = await self._read_replies(status, unanswered.keys())
        for custom_id, reply in replies.items():
            if custom_id not in reasons:
                await self._record(unanswered.pop(custom_id), reply)
        for custom_id, row in unanswered.items():
            reason = reasons.get(custom_id, f"no reply in batch {status.id} ({status.status})")
            self._fail(row.request, reason)
            if custom_id in replies:
                self.say(f"warning: {row.request.name}: {reason}; neither is used")
        await self._on_disk(self.ledger.batch_event(batch.name, "collected", status.status))
        answered = len(batch.rows) - len(unanswered)
        self.say(f"batch {status.id}: {status.status}, {answered} of {len(batch.rows)} answered")
        if fatal is not None:
            raise fatal
        if status.status == "failed":
            raise JudgeError(f"Batch {status.id} failed: {status.problems}. It returned no replies.")
        if status.status == "cancelled":
            raise JudgeError(f"Batch {status.id} was cancelled. Its replies are kept; run again for the rest.")

    async def _read_replies(
        self, status: BatchStatus, wanted: Collection[str]
    ) -> tuple[dict[str, Reply | RejectedError], dict[str, str], JudgeError | None]:
        """Replies by ``custom_id``, why the others have none or cannot be used, and what would stop every request."""
        replies: dict[str, Reply | RejectedError] = {}
        failures: dict[str, str] = {}
        fatal: JudgeError | None = None
        where = f"batch {status.id} ({status.status})"
        differing: dict[str, str] = {}
        for file_id in status.files:
            async for content in self.api.rows(file_id, self.folder):
                custom_id = content.get("custom_id")
                if not isinstance(custom_id, str) or custom_id not in wanted:
                    continue
                reply = read_row(content, self.client.redactor, self.client.endpoint.model)
                if isinstance(reply, JudgeError):
                    fatal = fatal or reply
                elif isinstance(reply, TransientError):
                    failures[custom_id] = f"no reply in {where}: {reply}"
                elif _content(replies.setdefault(custom_id, reply)) != _content(reply):
                    differing[custom_id] = f"two different replies in {where}"
        unanswered = {custom_id: why for custom_id, why in failures.items() if custom_id not in replies}
        return replies, {**unanswered, **differing}, fatal

    def _fail(self, request: Request, reason: str) -> None:
        self.failed[request.key] += 1
        self.ledger.fail(request.key, "batch", reason, release=False)
        if self.failed[request.key] >= self.limits.tries:
            self.pilot.fail(request.key, request.name, reason)

    async def _record(self, row: BatchRow, reply: Reply | RejectedError) -> None:
        entry = to_entry(row.request, row.attempt, reply, self.client.prompt)
        self.counted.add(row.request.key)
        self.pilot.begin(row.request.key)
        await self._on_disk(self.ledger.record(entry, release=False))
        last = entry.status in FINAL or row.attempt + 1 >= self.limits.attempts
        self.outcome.answered += entry.status == OK
        self.outcome.missing += last and entry.status != OK
        if last:
            self.pilot.settle(entry, why_missing(entry), row.request.name)

    async def _on_disk(self, future: Future[Result]) -> Result:
        return await asyncio.wrap_future(future)


def _content(reply: Reply | RejectedError) -> tuple[str, ...]:
    """What two rows of one reply have in common."""
    if isinstance(reply, Reply):
        return reply.text, reply.refusal, reply.finish
    return reply.status, str(reply)
