"""The job of ``make demo`` on a few clips and steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hound_plugin import cli
from hound_plugin.demo import run
from hound_plugin.evaluation.run_folder import load_run
from hound_plugin.evaluation.summary import summarise
from tests.host.hosting import REPO


def test_the_whole_job_and_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(REPO)
    folder = tmp_path / "small"
    small: dict[str, Any] = {
        "train_clips": 40,
        "held_out_clips": 12,
        "overrides": ["max_steps=2", "logging_steps=1"],
    }
    report = run.run_demo(str(folder), **small)
    text = capsys.readouterr().out
    for word in (
        "untrained",
        "after SFT",
        "after DPO",
        "motion and order",
        "points on",
        "Preferences",
        "Question about",
    ):
        assert word in text
    assert set(report["evaluations"]) == {"untrained", "after SFT", "after DPO"}
    assert json.loads((folder / "runs" / "report.json").read_text()) == report
    assert (folder / "runs" / "report.png").stat().st_size > 10_000
    assert (folder / "runs" / "sft" / "training_loss.png").exists()

    def fail(*arguments: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(run, "train", fail)
    again = run.run_demo(str(folder), **small)
    assert again["evaluations"] == report["evaluations"]
    _same_by_the_command(folder, report["evaluations"]["after DPO"]["exact_match"]["all"], tmp_path)
    with pytest.raises(AssertionError, match="trained again"):
        run.run_demo(str(folder), **{**small, "overrides": ["max_steps=3"]})


def _same_by_the_command(folder: Path, reported: dict[str, Any], tmp_path: Path) -> None:
    """What a user's `hound eval run` gives on the model: the same answers and accuracy."""
    recipe = "examples/yaml/hound_eval.yaml"
    where = [f"data={folder}", f"model={folder / 'runs' / 'dpo'}", f"folder={tmp_path / 'saves'}", "report.examples=1"]
    where += ["predict.batch_size=64", "predict.max_new_tokens=32"]  # barely trained, its answers do not end
    assert cli.main(["eval", "run", recipe, "suite=demo", "name=dpo", *where, "predict.device=cpu"]) == 0
    theirs = load_run(tmp_path / "saves" / "dpo" / "demo")
    ours = load_run(folder / "runs" / "evaluation" / "dpo" / "demo")
    assert theirs.predictions == ours.predictions
    total = summarise(theirs).total.accuracy
    assert total is not None
    assert (total.mean, total.low, total.high) == tuple(reported[name] for name in ("accuracy", "low", "high"))
    assert cli.main(["eval", "compare", str(theirs.folder), str(ours.folder)]) == 0


def test_a_failed_run_names_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hound_plugin.errors import HoundError

    monkeypatch.chdir(REPO)
    with pytest.raises(HoundError, match=r"exit code 1\. The whole log is in .*sft\.log"):
        run.run_demo(str(tmp_path / "bad"), train_clips=20, held_out_clips=8, overrides=["cutoff_len=20"])


def test_outside_a_checkout_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hound_plugin.errors import SettingsError

    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=r"Expected examples/yaml/demo_sft\.yaml in the current folder"):
        run.run_demo("x")
