"""The Batch API: files of requests, answered within a day at a lower price.

Every step is in the ledger before the next one begins. A batch is ``building`` (its rows are claimed for it and its
file lies on disk), has a ``file`` on the server, is ``submitted``, and is ``collected``. A program that is killed in
between goes on from there. Between creating a batch and noting its id lies the one moment in which a kill could make a
second, paid batch; so a batch carries our name in its metadata, and one that is there already is taken over.

The first requests (``Limits.pilot``) go as a batch of their own, and the rest when one of them has a value: a second
turn of the queue, at the same price, before everything is spent on a judge that cannot be read.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from hound_plugin.errors import JudgeError
from hound_plugin.llm.batch_api import ENDPOINT, OVER, BatchServer, BatchState
from hound_plugin.llm.requests import FINAL, OK, RejectedError, Reply, Task, TransientError
from hound_plugin.llm.ledger import Ledger
from hound_plugin.llm.openai_client import OpenAIClient
from hound_plugin.llm.pilot import Pilot
from hound_plugin.llm.prices import estimate_tokens
from hound_plugin.llm.ledger_tables import Claim, Entry
from hound_plugin.llm.replies import read_row
from hound_plugin.llm.runner import Limits, Outcome, read_reply, why_missing
from hound_plugin.llm.throttle import ServerWaits
from hound_plugin.records.files import locked, write_whole


@dataclass
class _Building:
    """Rows for the next file."""

    lines: list[bytes] = field(default_factory=list)
    rows: list[list[Any]] = field(default_factory=list)
    size: int = 0
    cost: float = 0.0


def run_batches(
    tasks: Callable[[], Iterator[Task]],
    client: OpenAIClient,
    ledger: Ledger,
    limits: Limits,
    most_rows: int,
    most_bytes: int,
    poll: float,
    say: Callable[[str], None],
) -> Outcome:
    """Get every task answered through batches, or listed as missing; errors as :func:`runner.run_tasks`.

    Args:
        tasks: gives all tasks from the start, as often as called.
        client: for the server and the words of a request.
        ledger: as for single requests; both share their keys, so what is answered there is not asked here.
        limits: ``attempts`` per request; ``tries`` for rows that failed or expired.
        most_rows, most_bytes: limits of one file.
        poll: seconds between two looks at a batch.
        say: takes a line on each batch.
    """
    waiting = "another run is at the batches of this folder; waiting for it"
    with locked(f"{ledger.path}.batch.lock", lambda: say(waiting)):
        return asyncio.run(_Batches(client, ledger, limits, most_rows, most_bytes, poll, say).all(tasks))


class _Batches:
    def __init__(
        self,
        client: OpenAIClient,
        ledger: Ledger,
        limits: Limits,
        most_rows: int,
        most_bytes: int,
        poll: float,
        say: Callable[[str], None],
    ) -> None:
        self.client, self.ledger, self.limits, self.poll, self.say = client, ledger, limits, poll, say
        self.most_rows, self.most_bytes = most_rows, most_bytes
        self.folder = ledger.path.with_name("batches")
        self.outcome = Outcome()
        self.failed: Counter[str] = Counter()
        self.spent = 0.0
        self.pilot = Pilot(limits.pilot, lambda: client.conversation.expects)
        self.server = BatchServer(client, limits.tries, limits.backoff, ServerWaits(say, limits.longest_retry_after))
        self.asked: set[str] = set()  # answered in this run, or before it and counted
        self.unpriced = 0  # answers whose tokens the server did not tell; each is taken to cost what the next one does

    async def all(self, tasks: Callable[[], Iterator[Task]]) -> Outcome:
        self.folder.mkdir(exist_ok=True)
        try:
            await self._collect_open()
            while await self._submit_round(tasks()):
                await self._collect_open()
        finally:
            await self.client.close()
        self.outcome.failed = sum(number >= self.limits.tries for number in self.failed.values())
        return self.outcome

    # --- making and submitting files

    async def _submit_round(self, tasks: Iterator[Task]) -> bool:
        """Submit everything that still needs an answer, or of that the pilot; whether there was anything."""
        building, any_sent, seen = _Building(), False, set[str]()
        self.outcome.stopped = ""  # answers that came in the meantime may have cost less than was estimated
        self._count_cost()
        for task in tasks:
            if task.key in seen or self.failed[task.key] >= self.limits.tries:
                continue
            seen.add(task.key)
            if not self.pilot.admits(task.key) and not self._is_answered(task.key):
                self.say(f"the first {self.pilot.size} requests go ahead; the others follow when one has a value")
                break
            claim: Claim = await self._on_disk(self.ledger.claim(task.key, self.limits.attempts))
            if claim.entry is not None:
                self._count_done(claim.entry)
            if claim.state != "mine":
                continue
            line = self._line(task, claim.attempt)
            cost = self._cost(task, claim.attempt)
            if self._too_dear(building.cost + cost + self.unpriced * cost):
                await self._on_disk(self.ledger.release(task.key))
                break
            self.pilot.begin(task.key)
            self.asked.add(task.key)
            full = len(building.rows) >= self.most_rows or building.size + len(line) > self.most_bytes
            if building.rows and full:
                await self._submit(building)
                building, any_sent = _Building(), True
                self._count_cost()
            building.lines.append(line)
            building.rows.append([task.key, claim.attempt, task.id, task.candidate, task.draw])
            building.size += len(line)
            building.cost += cost
        if building.rows:
            await self._submit(building)
            any_sent = True
        return any_sent

    def _is_answered(self, key: str) -> bool:
        entry = self.ledger.entry(key)
        return entry is not None and entry.status == OK

    def _count_done(self, entry: Entry) -> None:
        """Count an answer that was there before this run."""
        if entry.key not in self.asked:
            self.asked.add(entry.key)
            self.outcome.done_before += 1
            self.outcome.missing += entry.status != OK
            if entry.status == OK:
                self.pilot.known_good()

    def _line(self, task: Task, attempt: int) -> bytes:
        row = {
            "custom_id": f"{task.key}-{attempt}",
            "method": "POST",
            "url": ENDPOINT,
            "body": self.client.body(task, attempt),
        }
        return (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "replace")

    def _cost(self, task: Task, attempt: int) -> float:
        if self.limits.price is None or self.limits.max_cost is None:
            return 0.0
        prompt = json.dumps(self.client.conversation.messages(task, attempt))
        return self.limits.price.cost(estimate_tokens(prompt), self.limits.output_tokens)

    def _too_dear(self, more: float) -> bool:
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
            self.spent += sum(float(json.loads(events["building"])["cost"]) for events in self._open().values())

    async def _submit(self, building: _Building) -> None:
        name = uuid.uuid4().hex
        write_whole(self.folder / f"{name}.jsonl", b"".join(building.lines))
        note = json.dumps({"rows": building.rows, "cost": building.cost})
        keys = [row[0] for row in building.rows]
        await self._on_disk(self.ledger.batch_event(name, "building", note, claim=keys))
        await self._send_off(name)

    async def _send_off(self, name: str) -> str:
        """Upload and create, or take over what an earlier process created; gives the server's id."""
        events = self.ledger.batches()[name]
        if "submitted" in events:
            return events["submitted"]
        found = await self.server.find(name)
        if found is None:
            file = events.get("file")
            if file is None:
                file = await self.server.upload(self.folder / f"{name}.jsonl")
                await self._on_disk(self.ledger.batch_event(name, "file", file))
            found = await self.server.create(name, file)
        for key, attempt, *_ in json.loads(events["building"])["rows"]:
            self.ledger.sent(key, attempt)
            self.outcome.sent += 1
        await self._on_disk(self.ledger.batch_event(name, "submitted", found))
        (self.folder / f"{name}.jsonl").unlink(missing_ok=True)
        self.say(f"batch {found}: {len(json.loads(events['building'])['rows'])} requests submitted")
        return found

    # --- waiting and collecting

    def _open(self) -> dict[str, dict[str, str]]:
        return {name: events for name, events in self.ledger.batches().items() if "collected" not in events}

    async def _collect_open(self) -> None:
        """Wait for every batch that is not collected, and read its answers."""
        problem: JudgeError | None = None
        for name, events in self._open().items():
            if "submitted" not in events and "file" not in events and not (self.folder / f"{name}.jsonl").is_file():
                await self._on_disk(self.ledger.batch_event(name, "collected", "given up: its file is gone"))
                continue
            batch = await self._wait_for(await self._send_off(name))
            try:
                await self._collect(name, batch, json.loads(self.ledger.batches()[name]["building"])["rows"])
            except JudgeError as error:
                problem = problem or error
        if problem is not None:
            raise problem
        self.pilot.check()

    async def _wait_for(self, number: str) -> BatchState:
        told = 0.0
        while True:
            batch = await self.server.look(number)
            if batch.status in OVER:
                return batch
            if time.monotonic() - told > 600:
                told = time.monotonic()
                self.say(f"batch {number}: {batch.status}; it can be left alone, the same command goes on later")
            await asyncio.sleep(self.poll)

    async def _collect(self, name: str, batch: BatchState, rows: list[list[Any]]) -> None:
        """Keep every answer of a batch that is over; rows without one are free again."""
        wanted = {f"{row[0]}-{row[1]}": Task(row[0], row[2], row[3], row[4]) for row in rows}
        attempts = {f"{row[0]}-{row[1]}": int(row[1]) for row in rows}
        fatal: JudgeError | None = None
        reasons: dict[str, str] = {}
        for file in batch.files:
            async for row in self.server.rows(file, self.folder):
                number = row.get("custom_id")
                if not isinstance(number, str) or number not in wanted:
                    continue
                found = read_row(row, self.client.redactor, self.client.endpoint.model)
                if isinstance(found, JudgeError):
                    fatal = fatal or found
                elif isinstance(found, TransientError):
                    reasons[number] = f": {found}"
                else:
                    await self._keep(wanted.pop(number), attempts[number], found)
        for number, task in wanted.items():
            self.failed[task.key] += 1
            reason = f"no answer in batch {batch.id} ({batch.status}){reasons.get(number, '')}"
            self.ledger.fail(task.key, "batch", reason, release=False)
            if self.failed[task.key] >= self.limits.tries:
                self.pilot.fail(task.key, task.name, reason)
        await self._on_disk(self.ledger.batch_event(name, "collected", batch.status))
        self.say(f"batch {batch.id}: {batch.status}, {len(rows) - len(wanted)} of {len(rows)} answered")
        if fatal is not None:
            raise fatal
        if batch.status == "failed":
            raise JudgeError(f"Batch {batch.id} failed: {batch.problems}. Nothing of it was answered.")
        if batch.status == "cancelled":
            raise JudgeError(f"Batch {batch.id} was cancelled. Its answers are kept; run again for the rest.")

    async def _keep(self, task: Task, attempt: int, reply: Reply | RejectedError) -> None:
        entry = read_reply(task, attempt, reply, self.client)
        self.asked.add(task.key)
        self.pilot.begin(task.key)
        await self._on_disk(self.ledger.record(entry, release=False))
        last = entry.status in FINAL or attempt + 1 >= self.limits.attempts
        self.outcome.answered += entry.status == OK
        self.outcome.missing += last and entry.status != OK
        if last:
            self.pilot.settle(entry, why_missing(entry), task.name)

    async def _on_disk(self, future: Any) -> Any:
        return await asyncio.wrap_future(future)
