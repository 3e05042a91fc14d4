"""A judge that cannot be read is found out in its first requests, and says what it said."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hound_plugin import cli
from hound_plugin.errors import JudgeError
from hound_plugin.llm.batch import BatchLimits, run_batches
from hound_plugin.llm.ledger import Ledger
from hound_plugin.llm.limits import Outcome
from hound_plugin.llm.prices import Price
from hound_plugin.llm.runner import run_requests
from tests.llm.conftest import FAST, SECRET, FaultServer, make_client, make_requests, open_ledger
from tests.llm.fault_server import grade
from tests.reward.conftest import questions_file as questions_file
from tests.reward.conftest import write_rows

SAID = f"\x1b[31mI rate it {SECRET}" + " very well" * 100 + ".\nRating: 4 of 5"


def ask(server: FaultServer, folder: Path, number: int, **changes: Any) -> Outcome:
    with open_ledger(folder) as ledger:
        return run_requests(make_requests(number), make_client(server, ledger), ledger, replace(FAST, **changes))


def batch(server: FaultServer, ledger: Ledger, number: int, said: list[str] | None = None, **changes: Any) -> Outcome:
    limits, client = replace(FAST, **changes), make_client(server, ledger)
    say = said.append if said is not None else lambda _: None
    return run_batches(lambda: iter(make_requests(number)), client, ledger, limits, BatchLimits(1000, 10**7, 0.01), say)


def test_a_judge_that_cannot_be_read_stops_the_run(server: FaultServer, tmp_path: Path) -> None:
    server.control(share=1.0, kinds=["say"], text=SAID)
    with pytest.raises(JudgeError, match="The first 20 requests") as caught:
        ask(server, tmp_path, 300, concurrency=64)
    message = str(caught.value)
    assert server.stats()["counts"]["requests"] == 20 * FAST.attempts, "not one more is paid for"
    assert "(20 unparsed)" in message
    assert 'Expected: {"reason": "...", "score": N} with N from 1 to 5' in message
    assert message.count("I rate it [key]") == 3
    assert message.count("\\nRating: 4 of 5") == 3, "the end of a reply is where its score would be"
    assert "\\x1b[31m" in message
    assert "\x1b" not in message
    assert SECRET not in message
    assert max(map(len, message.splitlines())) < 500
    with open_ledger(tmp_path) as ledger:
        assert ledger.count("SELECT COUNT(*) FROM answers") == 60
        assert ledger.count("SELECT COUNT(*) FROM claims") == 0


def test_the_rest_follows_the_first_score(server: FaultServer, tmp_path: Path) -> None:
    server.control(script=["prose"] * 25, latency=0.02)
    outcome = ask(server, tmp_path, 60, concurrency=64, attempts=2)
    assert (outcome.answered + outcome.missing, outcome.failed) == (60, 0)
    assert outcome.missing <= 12, "two of the 25 bad replies make one missing"


@pytest.mark.parametrize(
    ("kinds", "word"),
    [
        (["length"], "raise `parameters.max_tokens`"),
        (["empty"], "raise `parameters.max_tokens`"),
        (["refusal"], "refused: I cannot help with that."),
        (["prose", "schema", "range", "twice"], "unparsed ("),
        (["500"], "(20 failed)"),
        (["odd: brackets"], "nested too deep"),
        (["truncated", "prose"], "gave nothing usable"),
    ],
)  # fmt: skip
def test_every_way_to_be_useless_counts(server: FaultServer, tmp_path: Path, kinds: list[str], word: str) -> None:
    server.control(share=1.0, kinds=kinds)
    with pytest.raises(JudgeError, match="The first 20 requests") as caught:
        ask(server, tmp_path, 100, attempts=1, tries=2)
    assert word in str(caught.value)
    assert server.stats()["counts"]["requests"] <= 40


def test_one_score_is_enough(server: FaultServer, tmp_path: Path) -> None:
    server.control(script=["prose"] * 19 + ["ok"] + ["prose"] * 30)
    outcome = ask(server, tmp_path, 60, concurrency=1, attempts=1)
    assert (outcome.answered, outcome.missing) == (11, 49)


def test_a_short_run_ends_as_it_did(server: FaultServer, tmp_path: Path) -> None:
    server.control(share=1.0, kinds=["prose"])
    outcome = ask(server, tmp_path, 19)
    assert (outcome.answered, outcome.missing, outcome.sent) == (0, 19, 57)


def test_the_same_request_twice_is_one(server: FaultServer, tmp_path: Path) -> None:
    server.control(share=1.0, kinds=["prose"])
    with open_ledger(tmp_path) as ledger:
        outcome = run_requests(make_requests(10) * 5, make_client(server, ledger), ledger, FAST)
    assert outcome.sent == 30


def test_it_can_be_switched_off_or_moved(server: FaultServer, tmp_path: Path) -> None:
    server.control(share=1.0, kinds=["prose"])
    assert ask(server, tmp_path / "off", 40, pilot=0, attempts=1).missing == 40
    with pytest.raises(JudgeError, match="The first 5 requests"):
        ask(server, tmp_path / "five", 40, pilot=5, attempts=1)


def test_old_failures_do_not_stop_a_later_run(server: FaultServer, tmp_path: Path) -> None:
    server.control(share=1.0, kinds=["prose"])
    with pytest.raises(JudgeError):
        ask(server, tmp_path, 60)
    server.control(share=0.0)
    outcome = ask(server, tmp_path, 60)
    assert (outcome.done_before, outcome.answered) == (20, 40)
    assert ask(server, tmp_path, 60, attempts=4).answered == 20


def test_an_old_score_passes_it(server: FaultServer, tmp_path: Path) -> None:
    assert ask(server, tmp_path, 1).answered == 1
    server.control(share=1.0, kinds=["prose"])
    assert ask(server, tmp_path, 60, concurrency=1, attempts=1).missing == 59


# --- the Batch API


def test_a_batch_run_sends_its_pilot_ahead(server: FaultServer, tmp_path: Path) -> None:
    said: list[str] = []
    with open_ledger(tmp_path) as ledger:
        outcome = batch(server, ledger, 50, said)
        assert [ledger.entry(request.key).value for request in make_requests(50)] == [  # type: ignore[union-attr]
            grade(item) for item in range(50)
        ]
    assert (outcome.answered, outcome.sent, outcome.done_before) == (50, 50, 0)
    counts = server.stats()["counts"]
    assert (counts["batches"], counts["rows"], counts.get("requests", 0)) == (2, 50, 0)
    assert any("the first 20 requests go ahead" in line for line in said)


@pytest.mark.parametrize("number", [1, 20])
def test_a_small_batch_run_is_one_batch(server: FaultServer, tmp_path: Path, number: int) -> None:
    with open_ledger(tmp_path) as ledger:
        assert batch(server, ledger, number).answered == number
    assert server.stats()["counts"]["batches"] == 1


def test_a_batch_that_cannot_be_read_is_the_last(server: FaultServer, tmp_path: Path) -> None:
    server.control(script=["prose"] * 1000)
    with open_ledger(tmp_path) as ledger:
        with pytest.raises(JudgeError, match="The first 20 requests") as caught:
            batch(server, ledger, 200)
        assert ledger.count("SELECT COUNT(*) FROM answers") == 60
        assert ledger.count("SELECT COUNT(*) FROM claims") == 0
    assert str(caught.value).count("score is 4 out of 5") == 3
    assert server.stats()["counts"]["rows"] == 60
    server.control(script=[])
    with open_ledger(tmp_path) as ledger:
        assert batch(server, ledger, 200).answered == 180


def test_rows_that_never_come_stop_it_too(server: FaultServer, tmp_path: Path) -> None:
    server.control(script=["expired"] * 1000)
    with open_ledger(tmp_path) as ledger, pytest.raises(JudgeError, match=r"\(20 failed\)"):
        batch(server, ledger, 60, tries=2)
    assert server.stats()["counts"]["rows"] == 40


class Killed(BaseException):
    """Stands for kill -9: nothing that follows runs."""


@pytest.mark.parametrize("when", ["submitted", "go ahead"])
@pytest.mark.parametrize("readable", [True, False])
def test_a_kill_between_pilot_and_rest(server: FaultServer, tmp_path: Path, when: str, readable: bool) -> None:
    server.control(hold=True, script=[] if readable else ["prose"] * 1000)
    with open_ledger(tmp_path) as ledger:

        class Say(list[str]):
            def append(self, line: str) -> None:
                if when in line:
                    raise Killed

        with pytest.raises(Killed):
            batch(server, ledger, 50, Say())
    server.control(hold=False)
    with open_ledger(tmp_path) as ledger:
        if readable:
            assert batch(server, ledger, 50).answered == 50
        else:
            with pytest.raises(JudgeError, match="The first 20 requests"):
                batch(server, ledger, 50)
    counts = server.stats()["counts"]
    assert counts["rows"] == (50 if readable else 60)


def test_a_score_of_before_spares_the_pilot(server: FaultServer, tmp_path: Path) -> None:
    assert ask(server, tmp_path, 1).answered == 1
    with open_ledger(tmp_path) as ledger:
        outcome = batch(server, ledger, 50)
    assert (outcome.answered, outcome.done_before) == (49, 1)
    assert server.stats()["counts"]["batches"] == 1


def test_odd_counts_in_a_batch(server: FaultServer, tmp_path: Path) -> None:
    server.control(script=["odd-usage"], replaced='{"prompt_tokens": 1e999, "completion_tokens": ' + "9" * 5000 + "}")
    with open_ledger(tmp_path) as ledger:
        assert batch(server, ledger, 2).answered == 2
        assert ledger.uncounted() == 1
    assert server.stats()["counts"]["rows"] == 2


def test_batches_count_answers_without_token_counts(server: FaultServer, tmp_path: Path) -> None:
    price = {"price": Price(input=1000, output=1000), "output_tokens": 300}  # at most about 0.9 a request
    server.control(script=["odd-usage"] * 20)
    with open_ledger(tmp_path) as ledger:
        assert batch(server, ledger, 20).answered == 20
        outcome = batch(server, ledger, 40, max_cost=10.0, **price)
        assert (outcome.sent, "max_cost 10 reached" in outcome.stopped) == (0, True)
        outcome = batch(server, ledger, 40, max_cost=25.0, **price)
        assert (outcome.sent, outcome.stopped) == (20, ""), "those of the first batch cost less than was estimated"
    assert server.stats()["counts"]["batches"] >= 3


# --- the command


def test_the_command_ends_with_one_and_keeps_everything(
    server: FaultServer, questions_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [json.loads(line)["id"] for line in questions_file.read_text().splitlines()]
    answers = [{"id": name, "candidate": n, "answer": f"Answer {n} [item-{n}]"} for name in names for n in range(4)]
    given = write_rows(tmp_path / "given.jsonl", answers)
    server.control(share=1.0, kinds=["say"], text=SAID)
    values = {
        "folder": str(tmp_path / "run"), "questions": str(questions_file), "media_dir": str(tmp_path / "clips"),
        "sample": {"backend": "given", "answers": str(given)},
        "judge": {"backend": "openai", "model": "tiny", "base_url": server.base_url, "answer_format": "text"},
    }  # fmt: skip
    recipe = tmp_path / "reward.yaml"
    recipe.write_text(json.dumps(values))
    assert cli.main(["reward", "run", str(recipe)]) == 1
    error = capsys.readouterr().err
    assert "The first 20 requests gave nothing usable" in error
    assert "a last line `SCORE: N` with N from 1 to 5" in error
    assert error.count("I rate it [key]") == 3
    found = json.loads((tmp_path / "run" / "run.json").read_text())
    assert "The first 20 requests" in found["error"]
    assert found["counts"]["judge"] == {"scored": 0, "missing": 32, "unparsed": 20, "unanswered": 12}
    assert found["counts"]["judge_usage"]["requests"] == 60
    assert found["counts"]["judge_usage"]["prompt_tokens"] == 60 * 200
    rows = [json.loads(line) for line in (tmp_path / "run" / "scores.jsonl").read_text().splitlines()]
    assert sum("ends neither with a line" in str(row["missing"]) for row in rows) == 20
    for file in (tmp_path / "run").rglob("*"):
        assert file.is_dir() or SECRET.encode() not in file.read_bytes()
    server.control(share=0.0)
    assert cli.main(["reward", "judge", str(recipe)]) == 0
    assert os.environ["OPENAI_API_KEY"] == SECRET
    capsys.readouterr()
    shorter = [*answers[:3]]
    write_rows(given, shorter)
    server.control(share=1.0, kinds=["prose"])
    assert cli.main(["reward", "judge", str(recipe), f"folder={tmp_path / 'short'}"]) == 2
    assert cli.main(["reward", "run", str(recipe), f"folder={tmp_path / 'short'}"]) == 1
    assert "no answer has a score" in capsys.readouterr().err
