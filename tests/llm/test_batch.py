"""The Batch API: limits of files, failed and expired rows, kills at every step, and never a second batch."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hound_plugin.backoff import Backoff
from hound_plugin.errors import JudgeError
from hound_plugin.llm.batch import BatchLimits, run_batches
from hound_plugin.llm.batch_api import BatchAPI
from hound_plugin.llm.ledger import Ledger
from hound_plugin.llm.limits import Outcome
from hound_plugin.llm.prices import Price
from hound_plugin.llm.runner import run_requests
from tests.llm.conftest import FAST, FaultServer, make_client, make_requests, open_ledger
from tests.llm.fault_server import grade


def go(server: FaultServer, ledger: Ledger, number: int, rows: int = 100, size: int = 10**6, **changes: Any) -> Outcome:
    limits = replace(FAST, **changes)
    client = make_client(server, ledger)
    files = BatchLimits(rows, size, 0.01)
    return run_batches(lambda: iter(make_requests(number)), client, ledger, limits, files, lambda _: None)


def values(ledger: Ledger, number: int) -> list[Any]:
    entries = [ledger.entry(request.key) for request in make_requests(number)]
    return [entry.value if entry else None for entry in entries]


def test_files_keep_their_limits(server: FaultServer, tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        outcome = go(server, ledger, 25, rows=10)
        assert outcome.answered == 25
        assert values(ledger, 25) == [grade(item) for item in range(25)]
        assert ledger.count("SELECT COUNT(*) FROM claims") == 0
        assert go(server, ledger, 25).sent == 0
    counts = server.stats()["counts"]
    assert (counts["batches"], counts["rows"], counts.get("requests", 0)) == (3, 25, 0)
    assert not list((tmp_path / "batches").iterdir())
    with open_ledger(tmp_path / "small") as ledger:
        assert go(server, ledger, 25, size=20_000).answered == 25
    assert server.stats()["counts"]["batches"] > 5


def test_a_separator_inside_an_answer_does_not_end_its_row(server: FaultServer, tmp_path: Path) -> None:
    """U+2028 and U+0085 end a line for ``str.splitlines``, not in JSON: such answers were paid for and thrown away."""
    rows = [{"custom_id": "a", "response": "one\u2028two\x85three"}, {"custom_id": "b"}]
    text = "\n".join(["{broken", *(json.dumps(row, ensure_ascii=False) for row in rows)])
    (tmp_path / "rows.jsonl").write_text(text)

    async def there_and_back() -> list[dict[str, Any]]:
        with open_ledger(tmp_path) as ledger:
            calls = BatchAPI(make_client(server, ledger), 3, Backoff(0.01))
            file = await calls.upload(tmp_path / "rows.jsonl")
            return [row async for row in calls.rows(file, tmp_path)]

    assert asyncio.run(there_and_back()) == rows


def test_rows_that_failed_or_expired_are_asked_again(server: FaultServer, tmp_path: Path) -> None:
    server.control(script=["ok", "expired", "500", "bad", "prose", "429", "refusal", "expired"])
    with open_ledger(tmp_path) as ledger:
        outcome = go(server, ledger, 10)
        expected = [grade(item) for item in range(10)]
        expected[3] = None  # refused by the server for good
        assert values(ledger, 10) == expected
        entry = ledger.entry(make_requests(4)[3].key)
        assert entry is not None
        assert entry.status == "rejected"
        assert ledger.count("SELECT COUNT(*) FROM answers WHERE status = 'unparsed'") == 1
    assert (outcome.answered, outcome.missing, outcome.failed) == (9, 1, 0)
    stats = server.stats()
    assert stats["counts"]["rows"] == 10 + 6
    assert set(stats["scored"].values()) == {1}


def test_what_expires_again_and_again_is_left_for_later(server: FaultServer, tmp_path: Path) -> None:
    server.control(script=["expired"] * 8)
    with open_ledger(tmp_path) as ledger:
        outcome = go(server, ledger, 2, tries=2)
        assert (outcome.answered, outcome.failed) == (0, 2)
        server.control(script=[])
        assert go(server, ledger, 2).answered == 2


def test_two_replies_under_one_name(server: FaultServer, tmp_path: Path) -> None:
    """Two rows of one request: the same reply twice is that reply; replies that differ are not used but asked again."""
    names = [f"{request.key}-0" for request in make_requests(6)]
    again = {names[0]: "ok", names[1]: "filter", names[2]: "say", names[3]: "prose"}
    server.control(again=again, also={names[4]: "bad", names[5]: "500"}, text="SCORE: 1")
    said: list[str] = []
    with open_ledger(tmp_path) as ledger:
        requests = lambda: iter(make_requests(6))  # noqa: E731
        files = BatchLimits(100, 10**6, 0.01)
        outcome = run_batches(requests, make_client(server, ledger), ledger, FAST, files, said.append)
        assert values(ledger, 6) == [grade(item) for item in range(6)]
        failures = {request.id: ledger.last_failure(request.key) for request in make_requests(6)}
        assert ledger.count("SELECT COUNT(*) FROM answers") == 6
    differing = [request.name for request in make_requests(6)[1:5]]
    assert [line.partition(":")[2].partition(":")[0].strip() for line in said if "two different" in line] == differing
    assert [name for name, failure in failures.items() if failure and "two different replies" in failure[1]] == [
        request.id for request in make_requests(6)[1:5]
    ]
    assert (outcome.answered, server.stats()["counts"]["rows"]) == (6, 6 + 4)


def test_a_reply_that_is_never_the_same_twice_is_left_out_by_name(server: FaultServer, tmp_path: Path) -> None:
    server.control(also={f"{make_requests(2)[1].key}-0": "bad"})
    with open_ledger(tmp_path) as ledger:
        outcome = go(server, ledger, 2, tries=1)
        assert values(ledger, 2) == [grade(0), None]
        assert (outcome.answered, outcome.failed) == (1, 1)
        assert "two different replies" in str(ledger.last_failure(make_requests(2)[1].key))


class Killed(BaseException):
    """Stands for kill -9 at one point: nothing that follows runs."""


@pytest.mark.parametrize("event", ["building", "file", "submitted", "collected"])
@pytest.mark.parametrize("before", [True, False])
def test_a_kill_at_any_step_never_makes_a_second_batch(
    server: FaultServer, tmp_path: Path, event: str, before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Ledger.batch_event

    def kill(self: Ledger, batch: str, name: str, value: str, claim: list[str] | None = None) -> Any:
        if name == event and before:
            raise Killed
        future = real(self, batch, name, value, claim)
        if name == event:
            future.result()
            raise Killed
        return future

    with open_ledger(tmp_path) as ledger:
        monkeypatch.setattr(Ledger, "batch_event", kill)
        with pytest.raises(Killed):
            go(server, ledger, 5)
        monkeypatch.setattr(Ledger, "batch_event", real)
    with open_ledger(tmp_path) as ledger:
        go(server, ledger, 5)
        assert values(ledger, 5) == [grade(item) for item in range(5)]
        assert ledger.count("SELECT COUNT(*) FROM claims") == 0
    assert server.stats()["counts"]["batches"] == 1
    assert set(server.stats()["scored"].values()) == {1}


def test_a_batch_whose_answer_was_lost_is_taken_over(server: FaultServer, tmp_path: Path) -> None:
    server.control(die_after_batch=True)
    with open_ledger(tmp_path) as ledger:
        assert go(server, ledger, 5).answered == 5
    assert server.stats()["counts"]["batches"] == 1


def test_single_requests_leave_a_batch_alone(server: FaultServer, tmp_path: Path) -> None:
    server.control(hold=True)
    with open_ledger(tmp_path) as ledger:
        client, say = make_client(server, ledger), _kill_on("submitted")
        with pytest.raises(Killed):
            run_batches(lambda: iter(make_requests(3)), client, ledger, FAST, BatchLimits(9, 10**6, 0.01), say)
    with open_ledger(tmp_path) as ledger:
        outcome = run_requests(make_requests(4), make_client(server, ledger), ledger, FAST)
        assert (outcome.answered, outcome.failed) == (1, 3)
        assert "are in a batch" in outcome.warnings[0]
        server.control(hold=False)
        go(server, ledger, 4)
        assert values(ledger, 4) == [grade(item) for item in range(4)]
    assert set(server.stats()["scored"].values()) == {1}


def _kill_on(word: str) -> Callable[[str], None]:
    def say(text: str) -> None:
        if word in text:
            raise Killed

    return say


def test_fatal_rows_stop_it_and_keep_the_rest(server: FaultServer, tmp_path: Path) -> None:
    server.control(script=["ok", "quota", "ok"])
    with open_ledger(tmp_path) as ledger:
        with pytest.raises(JudgeError, match="exceeded your current quota"):
            go(server, ledger, 3)
        assert values(ledger, 3) == [grade(0), None, grade(2)]
    assert server.stats()["counts"]["batches"] == 1


def test_max_cost_counts_what_lies_in_batches(server: FaultServer, tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        outcome = go(server, ledger, 100, rows=2, max_cost=5.0, price=Price(input=1000, output=1000), output_tokens=300)
        totals = ledger.totals()
    assert "max_cost 5 reached" in outcome.stopped
    assert 0 < Price(input=1000, output=1000).cost(totals.prompt_tokens, totals.completion_tokens) <= 5.0


def test_requests_in_a_file_are_those_of_single_requests(server: FaultServer, tmp_path: Path) -> None:
    with open_ledger(tmp_path) as ledger:
        client = make_client(server, ledger)
        (request,) = make_requests(1)
        body = json.loads(json.dumps(client.body(request, 0)))
        run_requests([request], client, ledger, FAST)
    assert server.stats()["bodies"][0]["body"] == body
