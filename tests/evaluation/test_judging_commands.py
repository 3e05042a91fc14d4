"""``hound eval judge``, ``report``, ``compare`` and ``agree`` as commands; the judge fails for good on some rows."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hound_plugin.cli import main
from hound_plugin.evaluation.suites import read_suite
from tests.evaluation.stand_ins import write_corpora
from tests.llm.conftest import FaultServer
from tests.llm.conftest import server as server

RECIPE = "examples/yaml/hound_eval.yaml"


def run(*arguments: str) -> int:
    return main(["eval", *arguments])


def prepare(folder: Path) -> list[str]:
    """A suite of one's own with given answers; its overrides."""
    rows = [
        {"id": f"q{n}", "video": f"clip{n // 2}", "prompt": f"<video>\nWhat moves in {n}?", "reference": f"A ring {n}."}
        for n in range(8)
    ]
    for number in range(4):
        (folder / f"clip{number}").mkdir()
        (folder / f"clip{number}" / "0.jpg").write_bytes(b"\xff\xd8\xff")
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answers = [{"id": f"q{n}", "prediction": f"A ring. [item-{n}]"} for n in range(8)]
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    return [
        f"suite={folder}/mine.jsonl", f"media_dir={folder}", f"folder={folder}/runs",
        "predict.backend=given", f"predict.answers={folder}/answers.jsonl",
    ]  # fmt: skip


def test_a_judge_that_fails_for_good_ends_the_run_with_exit_code_1(
    server: FaultServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = prepare(tmp_path)
    judge = ["judge.backend=openai", "judge.model=tiny", f"judge.base_url={server.base_url}", "judge.tries=1",
             "judge.answer_format=json", "judge.protocol=official"]  # fmt: skip
    server.control(items={"2": "500", "3": "prose"})
    assert run("run", RECIPE, *common, *judge, "name=one") == 1
    printed = capsys.readouterr()
    assert "6 judged, 1 unreadable, 1 failed, 0 unanswered" in printed.out
    assert "the judge failed on 1 questions" in printed.err
    folder = tmp_path / "runs" / "one" / "mine"
    meta = json.loads((folder / "run.json").read_text())
    assert meta["judge"]["reported_models"] == ["tiny-0613"]
    assert (meta["counts"]["judge"]["failed"], meta["counts"]["judge"]["complete"]) == (1, False)
    assert "| 8 | 4 | 6 | 1 | 1 | 0 |" in (folder / "report" / "report.md").read_text()

    server.control(items={"3": "prose"})
    before = server.stats()["counts"]["requests"]
    assert run("judge", RECIPE, *common, *judge, "name=one") == 0
    assert server.stats()["counts"]["requests"] == before + 1, "only what failed is asked again"
    assert run("report", RECIPE, *common, *judge, "name=one") == 0

    assert run("run", RECIPE, *common, *judge, "name=two", "judge.protocol=caption") == 2, "there are no captions"
    one, two = (str(tmp_path / "runs" / name / "mine") for name in ("one", "two"))
    assert run("run", RECIPE, *common, *judge, "name=one", "judge.protocol=vision", "judge.backend=vision") == 2
    assert f"name=NEW predict.backend=given predict.answers={one}/predictions.jsonl" in capsys.readouterr().err
    assert run("run", RECIPE, *common, *judge, "name=two", f"predict.answers={one}/predictions.jsonl") == 0
    capsys.readouterr()
    assert run("compare", one, two) == 0
    assert "is not shown to be better or worse" in capsys.readouterr().out
    assert run("agree", one, two) == 0
    assert "Agreement: tiny" in capsys.readouterr().out
    assert run("run", RECIPE, *common, "name=three", "judge.metric=contains") == 0
    assert run("compare", one, str(tmp_path / "runs" / "three" / "mine")) == 2
    assert "judged differently" in capsys.readouterr().err


def test_a_dry_run_sends_nothing_and_prints_the_cost(
    server: FaultServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = prepare(tmp_path)
    judge = ["judge.backend=openai", "judge.model=tiny", f"judge.base_url={server.base_url}"]
    assert run("run", RECIPE, *common, *judge, "prices={tiny: {input: 1, output: 2}}", "--dry-run") == 0
    printed = capsys.readouterr().out
    assert "8 requests to the judge" in printed
    assert "cost: at most about 0.00" in printed
    assert server.stats()["counts"] == {}
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_decides_nothing_about_the_run(
    server: FaultServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither its questions nor its prompt; and a run that is there stays as it is."""
    common = [*prepare(tmp_path), "judge.backend=openai", "judge.model=tiny", f"judge.base_url={server.base_url}"]
    assert run("run", RECIPE, *common, "--limit", "3", "--dry-run") == 0
    assert run("run", RECIPE, *common, "judge.answer_format=json") == 0
    folder = tmp_path / "runs" / "run" / "mine"
    before = {path: path.read_bytes() for path in folder.rglob("*.json*")}
    capsys.readouterr()
    assert run("judge", RECIPE, *common, "judge.answer_format=json", "--dry-run") == 0
    assert "0 requests to the judge; 8 others are answered already" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in folder.rglob("*.json*")} == before
    assert run("run", RECIPE, *common, "--limit", "3", "--dry-run") == 2
    assert "was written with other questions" in capsys.readouterr().err


def test_a_later_stage_does_not_rewrite_what_predicted_and_judged(
    server: FaultServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``hound eval report`` with the recipe as it is: its `model` is another one than that of the run."""
    common = [*prepare(tmp_path), "name=theirs", "seed=3"]
    judge = [
        "judge.backend=openai",
        "judge.model=tiny",
        f"judge.base_url={server.base_url}",
        "judge.answer_format=json",
    ]
    assert run("run", RECIPE, *common, *judge, "model=their-model", "predict.num_frames=4") == 0
    folder = tmp_path / "runs" / "theirs" / "mine"
    once = json.loads((folder / "run.json").read_text())
    place = [f"suite={tmp_path}/mine.jsonl", f"media_dir={tmp_path}", f"folder={tmp_path}/runs", "name=theirs"]
    for _ in range(2):
        assert run("report", RECIPE, *place) == 0
    now = json.loads((folder / "run.json").read_text())
    assert [now[name] for name in ("model", "seed", "judge")] == [once[name] for name in ("model", "seed", "judge")]
    assert [now["settings"][name] for name in ("predict", "judge")] == [
        once["settings"][name] for name in ("predict", "judge")
    ]
    report = (folder / "report" / "report.md").read_text()
    assert "| model | their-model |" in report
    assert "demo/runs/dpo" not in report
    assert run("judge", RECIPE, *place, "judge.metric=contains") == 0
    again = json.loads((folder / "run.json").read_text())
    assert (again["model"], again["judge"]["metric"]) == ("their-model", "contains")
    assert again["settings"]["judge"]["backend"] == "lexical"


@pytest.mark.parametrize(
    ("suite", "questions", "protocol"),
    [("official", 18, "official"), ("in-domain", 18, "caption"), ("out-of-domain", 24, "caption"),
     ("captions", 9, "caption")],
)  # fmt: skip
def test_the_cost_of_every_suite(
    suite: str, questions: int, protocol: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the user's price table, before anything is predicted and without a server."""
    write_corpora(tmp_path, list(read_suite(suite).sets.values()))
    common = [f"suite={suite}", f"data={tmp_path}", f"folder={tmp_path}/runs", "model=none"]
    judge = ["judge.backend=openai", "judge.model=tiny", "judge.base_url=http://127.0.0.1:9"]
    assert run("run", RECIPE, *common, *judge, "prices={tiny: {input: 10, output: 20}}", "--dry-run") == 0
    printed = capsys.readouterr().out
    assert f"{questions} requests to the judge" in printed
    assert ("Correct answer:" in printed) == (protocol == "official")
    found = re.search(r"about (\d+) input tokens and at most (\d+) output", printed)
    assert found is not None
    tokens = [int(number) for number in found.groups()]
    assert f"cost: at most about {(10 * tokens[0] + 20 * tokens[1]) / 1e6:.4f}" in printed
    assert run("run", RECIPE, *common, *judge, "--dry-run") == 0
    assert "cost: unknown: no price for tiny" in capsys.readouterr().out


def test_a_judge_that_cannot_start_is_refused_before_anything_is_predicted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    common = prepare(tmp_path)
    assert run("run", RECIPE, *common, "judge.backend=openai", "judge.model=gpt") == 2
    assert "OPENAI_API_KEY" in capsys.readouterr().err
    assert not (tmp_path / "runs" / "run" / "mine" / "predictions.jsonl").exists()
