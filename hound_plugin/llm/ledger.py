"""The ledger: requests and replies, on disk before anything relies on them.

One SQLite file in WAL mode with ``synchronous=FULL``. Replies are append-only (triggers refuse anything else) and keyed
by the hash of everything that determines a request, so a request answered once is never sent again. A request's key is
claimed before it is sent; a claim belongs to a process, which locks a file for as long as it lives. Two runs on one
folder therefore share the work, and ``kill -9`` frees what was in flight and nothing else.

All writes go through one thread, which puts whatever is waiting into one transaction: one ``fsync`` serves many
requests. The file must be on a local disk (WAL does not work over a network).
"""

from __future__ import annotations

import contextlib
import json
import queue
import secrets
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from hound_plugin.errors import InUseError, LedgerError
from hound_plugin.llm.ledger_tables import APPEND_ONLY, SCHEMA, TABLES, Claim, Entry, Totals
from hound_plugin.llm.requests import FINAL, OK
from hound_plugin.records.files import hold

BATCH_OWNER = "batch:"
"""Prefix of owners that are not processes but batches."""


class Ledger:
    """An open ledger. Methods that write return futures, which are done when the data is on disk."""

    def __init__(self, path: str | Path, prompt_id: str) -> None:
        """Open or create.

        Args:
            path: the file; ``<path>.owners/`` holds the locks of running processes.
            prompt_id: name, version and digest of the prompts; those that the ledger's requests were made with.

        Raises:
            LedgerError: made with other prompts or by a newer version, not a ledger at all, or not writable.
        """
        self.path = Path(path)
        self._owners = self.path.with_name(self.path.name + ".owners")
        self.owner = uuid.uuid4().hex
        try:
            self._owners.mkdir(parents=True, exist_ok=True)
            self._lock = hold(self._owners / self.owner)  # as long as the ledger is open
            self._setup(prompt_id)
        except (sqlite3.Error, OSError) as error:
            raise LedgerError(
                f"Expected a writable ledger at {self.path}: {error}. "
                "Choose another folder, or check the disk's free space and the permissions."
            ) from error
        self._queue: queue.SimpleQueue[tuple[Callable[[sqlite3.Connection], Any], Future[Any]] | None]
        self._queue = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._write, name="ledger", daemon=True)
        self._thread.start()

    def _setup(self, prompt_id: str) -> None:
        with contextlib.closing(self._connect()) as database:
            database.execute("BEGIN IMMEDIATE")
            names = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if names and "meta" not in names:
                raise LedgerError(f"{self.path} is the database of another program. Choose another folder.")
            for statement in TABLES.split(";"):
                database.execute(statement)
            for statement in APPEND_ONLY.splitlines():
                database.execute(statement)
            add = "INSERT OR IGNORE INTO meta VALUES (?, ?)"
            fresh = (("schema", str(SCHEMA)), ("protocol", prompt_id), ("salt", secrets.token_hex(16)))
            database.executemany(add, fresh)
            if not database.execute("SELECT EXISTS (SELECT 1 FROM sent)").fetchone()[0]:
                database.execute("UPDATE meta SET value = ? WHERE name = 'protocol'", (prompt_id,))  # nothing sent yet
            meta = dict(database.execute("SELECT name, value FROM meta"))
            database.execute("COMMIT")
        if int(meta["schema"]) != SCHEMA:
            raise LedgerError(
                f"{self.path} has schema {meta['schema']}; this version reads schema {SCHEMA}. Use a new folder, or "
                "the version of hound-plugin that wrote it."
            )
        if meta["protocol"] != prompt_id:
            raise LedgerError(
                f"{self.path} was made with protocol {meta['protocol']}; this run uses {prompt_id}. Scores of two "
                "protocols must not be mixed: use a new folder, or the protocol that the ledger was made with."
            )
        self.salt: str = meta["salt"]

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(self.path, timeout=60, isolation_level=None, check_same_thread=False)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        return database

    # --- the writing thread

    def _write(self) -> None:
        with contextlib.closing(self._connect()) as database:
            while True:
                first = self._queue.get()
                if first is None:
                    return
                jobs = [first]
                last = False
                with contextlib.suppress(queue.Empty):
                    while len(jobs) < 500:
                        job = self._queue.get_nowait()
                        if job is None:
                            last = True
                            break
                        jobs.append(job)
                self._commit(database, jobs)
                if last:
                    return

    def _commit(self, database: sqlite3.Connection, jobs: list[tuple[Callable[..., Any], Future[Any]]]) -> None:
        results: list[tuple[Future[Any], Any, BaseException | None]] = []
        try:
            database.execute("BEGIN IMMEDIATE")
            for work, future in jobs:
                database.execute("SAVEPOINT one")
                try:
                    results.append((future, work(database), None))
                except Exception as error:  # goes to the future of whoever asked for it
                    database.execute("ROLLBACK TO one")
                    results.append((future, None, error))
                database.execute("RELEASE one")
            database.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                database.execute("ROLLBACK")
            failure = LedgerError(f"Writing {self.path} failed: {error}. Free some disk space and run again.")
            results = [(future, None, failure) for _, future in jobs]
        for future, value, problem in results:
            if future.set_running_or_notify_cancel():
                future.set_result(value) if problem is None else future.set_exception(problem)

    def _do(self, work: Callable[[sqlite3.Connection], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        if self._closed:
            future.set_exception(LedgerError(f"{self.path} is closed."))
        else:
            self._queue.put((work, future))
        return future

    # --- writing

    def claim(self, key: str, attempts: int) -> Future[Claim]:
        """Claim a request, unless it is answered, has used up its ``attempts``, or is claimed by another run."""

        def work(database: sqlite3.Connection) -> Claim:
            last = _last(database, key)
            if last and (last.status in FINAL or last.attempt + 1 >= attempts):
                return Claim("done", entry=last)
            row = database.execute("SELECT owner FROM claims WHERE key = ?", (key,)).fetchone()
            if row and row[0] != self.owner and self._alive(row[0]):
                return Claim("batched" if row[0].startswith(BATCH_OWNER) else "busy")
            database.execute("INSERT OR REPLACE INTO claims VALUES (?, ?)", (key, self.owner))
            return Claim("claimed", attempt=last.attempt + 1 if last else 0)

        return self._do(work)

    def sent(self, key: str, attempt: int) -> Future[None]:
        """Record that a request is being sent."""

        def work(database: sqlite3.Connection) -> None:
            row = (key, attempt, self.owner, time.time())
            database.execute("INSERT INTO sent(key, attempt, owner, time) VALUES (?, ?, ?, ?)", row)
            _add(database, "sent", 1)

        return self._do(work)

    def record(self, entry: Entry, release: bool) -> Future[Totals]:
        """Record a reply; ``release`` gives up the claim. An attempt that was recorded before stays as it is.

        The future's result is the totals of the ledger, other runs' replies included.
        """

        def work(database: sqlite3.Connection) -> Totals:
            row = (
                entry.key, entry.attempt, entry.status, None if entry.value is None else json.dumps(entry.value),
                entry.raw, entry.model, entry.fingerprint, entry.detail,
                entry.prompt_tokens, entry.completion_tokens, entry.time or time.time(),
            )  # fmt: skip
            marks = ", ".join("?" * len(row))
            if database.execute(f"INSERT OR IGNORE INTO answers VALUES ({marks})", row).rowcount:
                _add(database, "answers", 1)
                _add(database, "prompt_tokens", entry.prompt_tokens or 0)
                _add(database, "completion_tokens", entry.completion_tokens or 0)
            if release:
                database.execute("DELETE FROM claims WHERE key = ?", (entry.key,))
            return _totals(database)

        return self._do(work)

    def fail(self, key: str, kind: str, message: str, release: bool = True) -> Future[None]:
        """Record that a request got no reply; the next run may try again."""

        def work(database: sqlite3.Connection) -> None:
            row = (key, kind, message, time.time())
            database.execute("INSERT INTO failures(key, kind, message, time) VALUES (?, ?, ?, ?)", row)
            if release:
                database.execute("DELETE FROM claims WHERE key = ?", (key,))

        return self._do(work)

    def release(self, key: str) -> Future[None]:
        """Give up a claim."""
        return self._do(lambda database: _nothing(database.execute("DELETE FROM claims WHERE key = ?", (key,))))

    def set_once(self, name: str, value: str) -> Future[str]:
        """Store a named fact unless there is one of that name; the future's result is the stored one."""

        def work(database: sqlite3.Connection) -> str:
            database.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (name, value))
            return str(database.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()[0])

        return self._do(work)

    def batch_event(self, batch: str, event: str, value: str, claim: list[str] | None = None) -> Future[None]:
        """Record an event of a batch; ``claim``: keys whose claims pass from this process to the batch."""

        def work(database: sqlite3.Connection) -> None:
            row = (batch, event, value, time.time())
            database.execute("INSERT INTO batches(batch, event, value, time) VALUES (?, ?, ?, ?)", row)
            owned = [(BATCH_OWNER + batch, key) for key in claim or ()]
            database.executemany("UPDATE claims SET owner = ? WHERE key = ?", owned)
            if event == "collected":
                database.execute("DELETE FROM claims WHERE owner = ?", (BATCH_OWNER + batch,))

        return self._do(work)

    # --- reading

    def entry(self, key: str) -> Entry | None:
        """The last recorded reply to a request."""
        with self._reader() as database:
            return _last(database, key)

    def facts(self) -> dict[str, str]:
        """All named facts: ``schema``, ``protocol``, ``salt`` and those of :meth:`set_once`."""
        with self._reader() as database:
            return dict(database.execute("SELECT name, value FROM meta"))

    def totals(self) -> Totals:
        """Counts since the ledger was created."""
        with self._reader() as database:
            return _totals(database)

    def uncounted(self) -> int:
        """Replies without token counts: their cost is in no total."""
        return self.count("SELECT COUNT(*) FROM answers WHERE prompt_tokens IS NULL OR completion_tokens IS NULL")

    def last_failure(self, key: str) -> tuple[str, str] | None:
        """``(kind, message)`` of the last time that a request got no reply."""
        with self._reader() as database:
            query = "SELECT kind, message FROM failures WHERE key = ? ORDER BY number DESC LIMIT 1"
            row: tuple[str, str] | None = database.execute(query, (key,)).fetchone()
            return row

    def batches(self) -> dict[str, dict[str, str]]:
        """Events of every batch: batch -> event -> value (the last one)."""
        events: dict[str, dict[str, str]] = {}
        with self._reader() as database:
            for batch, event, value in database.execute("SELECT batch, event, value FROM batches ORDER BY number"):
                events.setdefault(batch, {})[event] = value
        return events

    def count(self, query: str) -> int:
        """The single number that a ``SELECT`` returns; for reports and tests."""
        with self._reader() as database:
            return int(database.execute(query).fetchone()[0] or 0)

    @contextlib.contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        if not hasattr(self, "_reading"):
            self._reading = self._connect()
        yield self._reading

    def _alive(self, owner: str) -> bool:
        if owner.startswith(BATCH_OWNER):
            return True
        path = self._owners / owner
        try:
            if path.exists():
                hold(path).release(remove=True)  # its process has ended; claims of missing owners count as free
        except InUseError:
            return True
        return False

    def close(self) -> None:
        """Write whatever is waiting, and give up all claims."""
        if self._closed:
            return
        self._do(lambda database: _nothing(database.execute("DELETE FROM claims WHERE owner = ?", (self.owner,))))
        self._closed = True
        self._queue.put(None)
        self._thread.join()
        if hasattr(self, "_reading"):
            self._reading.close()
        self._lock.release(remove=True)

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _nothing(_: object) -> None:
    return None


def _last(database: sqlite3.Connection, key: str) -> Entry | None:
    query = (
        "SELECT key, attempt, status, value, raw, model, fingerprint, detail, prompt_tokens, completion_tokens, time "
        "FROM answers WHERE key = ? ORDER BY status = ? DESC, attempt DESC LIMIT 1"
    )
    row = database.execute(query, (key, OK)).fetchone()
    if row is None:
        return None
    key, attempt, status, value, *rest = row
    return Entry(key, attempt, status, None if value is None else json.loads(value), *rest)


def _add(database: sqlite3.Connection, name: str, number: int) -> None:
    query = "INSERT INTO totals VALUES (?, ?) ON CONFLICT(name) DO UPDATE SET value = value + excluded.value"
    database.execute(query, (name, number))


def _totals(database: sqlite3.Connection) -> Totals:
    return Totals(**dict(database.execute("SELECT name, value FROM totals")))
