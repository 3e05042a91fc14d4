"""The Batch API: files of requests, answered within a day at a lower price.

Every step is in the ledger before the next one begins. A batch is ``building`` (its rows are claimed for it and its
file lies on disk), has a ``file`` on the server, is ``submitted``, and is ``collected``. A program that is killed in
between goes on from there. Between creating a batch and noting its id lies the one moment in which a kill could make a
second, paid batch; so a batch carries our name in its metadata, and one that is there already is taken over.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from hound_plugin.errors import JudgeError
from hound_plugin.judge.exchange import FINAL, OK, OverloadedError, RejectedError, Reply, Task, TransientError
from hound_plugin.judge.ledger import Ledger
from hound_plugin.judge.openai_client import FILTERS, OpenAIClient, read_completion
from hound_plugin.judge.prices import estimate_tokens
from hound_plugin.judge.records import Claim
from hound_plugin.judge.runner import Limits, Outcome, read_reply
from hound_plugin.records.files import locked, write_whole
from hound_plugin.records.jsonl import read_lines

ENDPOINT = "/v1/chat/completions"
NAME = "hound_batch"
OVER = ("completed", "expired", "cancelled", "failed")
EXPIRED = ("batch_expired", "batch_cancelled")


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

    async def all(self, tasks: Callable[[], Iterator[Task]]) -> Outcome:
        self.folder.mkdir(exist_ok=True)
        try:
            await self._collect_open()
            first = True
            while await self._submit_round(tasks(), first):
                first = False
                await self._collect_open()
        finally:
            await self.client.close()
        self.outcome.failed = sum(number >= self.limits.tries for number in self.failed.values())
        return self.outcome

    # --- making and submitting files

    async def _submit_round(self, tasks: Iterator[Task], first: bool) -> bool:
        """Submit everything that still needs an answer; whether there was anything."""
        building, any_sent, seen = _Building(), False, set[str]()
        self._count_cost()
        for task in tasks:
            if task.key in seen or self.failed[task.key] >= self.limits.tries:
                continue
            seen.add(task.key)
            claim: Claim = await self._on_disk(self.ledger.claim(task.key, self.limits.attempts))
            if claim.entry is not None and first:
                self.outcome.done_before += 1
                self.outcome.missing += claim.entry.status != OK
            if claim.state != "mine":
                continue
            line = self._line(task, claim.attempt)
            cost = self._cost(task, claim.attempt)
            if self._too_dear(building.cost + cost):
                await self._on_disk(self.ledger.release(task.key))
                break
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
        found = await self._created_before(name)
        if found is None:
            file = events.get("file") or await self._upload(name)
            found = await self._create(name, file)
        for key, attempt, *_ in json.loads(events["building"])["rows"]:
            self.ledger.sent(key, attempt)
            self.outcome.sent += 1
        await self._on_disk(self.ledger.batch_event(name, "submitted", found))
        (self.folder / f"{name}.jsonl").unlink(missing_ok=True)
        self.say(f"batch {found}: {len(json.loads(events['building'])['rows'])} requests submitted")
        return found

    async def _upload(self, name: str) -> str:
        path = self.folder / f"{name}.jsonl"
        server = self.client.server()
        answer = await self._call(lambda: server.files.create(file=path, purpose="batch"))
        await self._on_disk(self.ledger.batch_event(name, "file", answer.id))
        return str(answer.id)

    async def _create(self, name: str, file: str) -> str:
        server = self.client.server()
        for number in range(self.limits.tries):
            try:
                answer = await server.batches.create(
                    input_file_id=file, endpoint=ENDPOINT, completion_window="24h", metadata={NAME: name}
                )
                return str(answer.id)
            except Exception as error:
                problem = self._translated(error)
                if not isinstance(problem, TransientError):
                    raise problem from None
                await self._pause(problem, number)
                found = await self._created_before(name)  # it may exist although its answer never came
                if found is not None:
                    return found
        raise JudgeError(f"A batch could not be created in {self.limits.tries} tries. Run again to go on.")

    async def _created_before(self, name: str) -> str | None:
        server = self.client.server()

        async def look() -> str | None:
            seen = 0
            async for batch in server.batches.list(limit=100):
                if (batch.metadata or {}).get(NAME) == name:
                    return str(batch.id)
                seen += 1
                if seen >= 2000:
                    break
            return None

        return await self._call(look)

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

    async def _wait_for(self, number: str) -> Any:
        server, told = self.client.server(), 0.0
        while True:
            batch = await self._call(lambda: server.batches.retrieve(number))
            if batch.status in OVER:
                return batch
            if time.monotonic() - told > 600:
                told = time.monotonic()
                self.say(f"batch {number}: {batch.status}; it can be left alone, the same command goes on later")
            await asyncio.sleep(self.poll)

    async def _collect(self, name: str, batch: Any, rows: list[list[Any]]) -> None:
        """Keep every answer of a batch that is over; rows without one are free again."""
        wanted = {f"{row[0]}-{row[1]}": Task(row[0], row[2], row[3], row[4]) for row in rows}
        attempts = {f"{row[0]}-{row[1]}": int(row[1]) for row in rows}
        fatal: JudgeError | None = None
        for file in filter(None, (batch.output_file_id, batch.error_file_id)):
            for row in await self._read(file):
                number = row.get("custom_id")
                if number not in wanted:
                    continue
                found = self.row_reply(row)
                if isinstance(found, JudgeError):
                    fatal = fatal or found
                elif isinstance(found, TransientError):
                    continue
                else:
                    await self._keep(wanted.pop(number), attempts[number], found)
        for task in wanted.values():
            self.failed[task.key] += 1
            self.ledger.fail(task.key, "batch", f"no answer in batch {batch.id} ({batch.status})", release=False)
        await self._on_disk(self.ledger.batch_event(name, "collected", batch.status))
        self.say(f"batch {batch.id}: {batch.status}, {len(rows) - len(wanted)} of {len(rows)} answered")
        if fatal is not None:
            raise fatal
        if batch.status == "failed":
            errors = getattr(batch.errors, "data", None) or []
            text = "; ".join(str(getattr(error, "message", error)) for error in errors[:3]) or "no reason given"
            raise JudgeError(f"Batch {batch.id} failed: {self.client.clean(text)}. Nothing of it was answered.")
        if batch.status == "cancelled":
            raise JudgeError(f"Batch {batch.id} was cancelled. Its answers are kept; run again for the rest.")

    async def _keep(self, task: Task, attempt: int, reply: Reply | RejectedError) -> None:
        entry = read_reply(task, attempt, reply, self.client)
        await self._on_disk(self.ledger.record(entry, release=False))
        last = entry.status in FINAL or attempt + 1 >= self.limits.attempts
        self.outcome.answered += entry.status == OK
        self.outcome.missing += last and entry.status != OK

    def row_reply(self, row: dict[str, Any]) -> Reply | RejectedError | TransientError | JudgeError:
        """What a row of an output or error file says."""
        response, error = row.get("response"), row.get("error") or {}
        if response is None:
            return TransientError(str(error.get("message") or error.get("code") or "no response"))
        status, body = response.get("status_code"), response.get("body") or {}
        if status == 200:
            try:
                return read_completion(body)
            except TransientError as problem:
                return problem
        what = body.get("error") or error
        code, message = str(what.get("code") or ""), self.client.clean(str(what.get("message") or status))[:500]
        if code in FILTERS:
            return RejectedError(f"{status}: {message}", "filtered")
        if status in (401, 403, 404) or code == "insufficient_quota":
            return JudgeError(f"{self.client.endpoint.model}: {status}: {message}. Answers so far are kept.")
        if status in (400, 413, 422):
            return RejectedError(f"{status}: {message}")
        return TransientError(f"{status}: {message}")

    async def _read(self, file: str) -> list[dict[str, Any]]:
        server = self.client.server()
        answer = await self._call(lambda: server.files.content(file))
        return [row.value for row in read_lines(BytesIO(answer.content)) if row.value is not None]  # or unanswered

    # --- calls with retries

    async def _call(self, make: Callable[[], Awaitable[Any]]) -> Any:
        for number in range(self.limits.tries):
            try:
                return await make()
            except Exception as error:
                problem = self._translated(error)
                if not isinstance(problem, TransientError) or number + 1 == self.limits.tries:
                    raise self._final(problem) from None
                await self._pause(problem, number)
        raise AssertionError("unreachable")

    def _translated(self, error: Exception) -> Exception:
        import openai

        if isinstance(error, openai.APIStatusError):
            return self.client.translate(error)
        if isinstance(error, openai.APIConnectionError | ValueError):
            return TransientError(self.client.clean(str(error)))
        return error

    def _final(self, problem: Exception) -> Exception:
        if isinstance(problem, TransientError | RejectedError):
            return JudgeError(f"{self.client.endpoint.place}: {problem}. Run again to go on; nothing is lost.")
        return problem

    async def _pause(self, problem: TransientError, number: int) -> None:
        known = problem.retry_after if isinstance(problem, OverloadedError) else None
        await asyncio.sleep(known if known is not None else min(self.limits.backoff * 2**number, 60.0))

    async def _on_disk(self, future: Any) -> Any:
        return await asyncio.wrap_future(future)
