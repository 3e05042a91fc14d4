"""The ledger survives kill -9, shares work between processes, and changes nothing that it holds."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hound_plugin.errors import LedgerError
from hound_plugin.llm.ledger import Ledger
from hound_plugin.llm.ledger_tables import Entry
from tests.full_disk import longest_file
from tests.llm.conftest import PROTOCOL, REPO, SECRET, FaultServer, open_ledger

WORKER = """
import sys
from pathlib import Path
from tests.llm.conftest import FAST, FaultServer, make_client, make_requests, open_ledger
from hound_plugin.llm.runner import run_requests
folder, port, number = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
with open_ledger(folder) as ledger:
    print(run_requests(make_requests(number), make_client(FaultServer(port), ledger, timeout=60), ledger, FAST).sent)
"""


def start_worker(folder: Path, server: FaultServer, number: int) -> subprocess.Popen[str]:
    port = server.url.rpartition(":")[2]
    command = [sys.executable, "-c", WORKER, str(folder), port, str(number)]
    environment = {**os.environ, "OPENAI_API_KEY": SECRET}
    return subprocess.Popen(command, cwd=REPO, env=environment, stdout=subprocess.PIPE, text=True)


def test_two_runs_on_one_folder_share_the_work(server: FaultServer, tmp_path: Path) -> None:
    server.control(latency=0.02)
    workers = [start_worker(tmp_path, server, 150) for _ in range(2)]
    sent = [int(worker.communicate(timeout=60)[0]) for worker in workers]
    stats = server.stats()
    assert sum(sent) == stats["counts"]["requests"] == 150
    assert len(stats["scored"]) == 150
    assert min(sent) > 0


def test_kill_loses_only_what_was_in_flight(server: FaultServer, tmp_path: Path) -> None:
    server.control(latency=0.05)
    for _ in range(3):
        worker = start_worker(tmp_path, server, 300)
        before = server.stats()["counts"].get("requests", 0)
        while server.stats()["counts"].get("requests", 0) < before + 40:
            time.sleep(0.02)
            assert worker.poll() is None
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
    worker = start_worker(tmp_path, server, 300)
    worker.communicate(timeout=60)
    assert worker.returncode == 0
    with open_ledger(tmp_path) as ledger:
        assert ledger.count("SELECT COUNT(*) FROM answers WHERE status = 'ok'") == 300
        assert ledger.count("SELECT COUNT(*) FROM claims") == 0
        lost = ledger.count("SELECT COUNT(*) FROM sent") - 300
    stats = server.stats()
    assert len(stats["scored"]) == 300
    assert stats["counts"]["requests"] <= 300 + 3 * 8
    assert 0 <= lost <= 3 * 8
    assert max(stats["scored"].values()) <= 4


def test_answers_are_append_only(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger.record(Entry("k", 0, "ok", 4, "raw"), release=True).result()
        ledger.record(Entry("k", 0, "ok", 1, "later"), release=True).result()
        entry = ledger.entry("k")
    assert entry is not None
    assert (entry.value, entry.raw) == (4, "raw")
    database = sqlite3.connect(tmp_path / "ledger.sqlite")
    for statement in ("UPDATE answers SET value = 5", "DELETE FROM answers", "DELETE FROM sent WHERE 1"):
        if "sent" in statement:
            database.execute("INSERT INTO sent(key, attempt, owner, time) VALUES ('k', 0, 'o', 1.0)")
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            database.execute(statement)
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_claims(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as one, open_ledger(tmp_path) as two:
        assert one.claim("k", 3).result().state == "claimed"
        assert two.claim("k", 3).result().state == "busy"
        one.record(Entry("k", 0, "unparsed", None, "?"), release=True).result()
        claim = two.claim("k", 3).result()
        assert (claim.state, claim.attempt) == ("claimed", 1)
        two.record(Entry("k", 1, "ok", 2, "!"), release=True).result()
        assert one.claim("k", 3).result().entry == one.entry("k")
        assert one.claim("gone", 3).result().state == "claimed"
        one.close()
        assert two.claim("gone", 3).result().state == "claimed"


def test_another_protocol_is_refused(tmp_path: Path) -> None:
    Ledger(tmp_path / "ledger.sqlite", "caption/0/old").close()
    with open_ledger(tmp_path) as ledger:  # no request was made with the other: nothing can be mixed
        ledger.sent("k", 0).result()
    with pytest.raises(LedgerError, match=r"made with protocol caption/1/\w+; this run uses caption/2"):
        Ledger(tmp_path / "ledger.sqlite", "caption/2/abc")
    open_ledger(tmp_path).close()


def test_what_is_no_ledger_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_text("some text that is no database at all, long enough to be read as one\n" * 9)
    with pytest.raises(LedgerError, match="a writable ledger"):
        open_ledger(tmp_path)
    other = sqlite3.connect(tmp_path / "other.sqlite")
    other.execute("CREATE TABLE customers(name)")
    other.close()
    with pytest.raises(LedgerError, match="another program"):
        Ledger(tmp_path / "other.sqlite", PROTOCOL.id)


def test_a_failing_disk_stops_the_run(tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        ledger._do(lambda database: database.execute("PRAGMA max_page_count = 1")).exception()
        future = ledger.record(Entry("k", 0, "ok", 4, "x" * 3_000_000), release=True)
        assert isinstance(future.exception(), LedgerError | sqlite3.Error)
        assert ledger.entry("k") is None


def test_a_full_disk_keeps_what_was_recorded(tmp_path: Path) -> None:
    long = "x" * 200_000
    with open_ledger(tmp_path) as ledger:
        ledger.record(Entry("kept", 0, "ok", 4, "SCORE: 4"), release=True).result()
        with longest_file(100_000), pytest.raises(LedgerError, match=r"Writing .* failed: .*\. Free some disk space"):
            ledger.record(Entry("lost", 0, "ok", 4, long), release=True).result()
        ledger.record(Entry("later", 0, "ok", 5, long), release=True).result()
    with open_ledger(tmp_path) as ledger:
        found = [ledger.entry(key) for key in ("kept", "lost", "later")]
        assert [entry and entry.value for entry in found] == [4, None, 5]
        assert ledger.totals().answers == 2
