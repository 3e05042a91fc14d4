"""Each row of an evaluation counts once, whatever the batches and the number of processes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import data_sets, recipe_for
from tests.e2e.together import Outcome, train_together
from tests.goldens import rows
from tests.host.hosting import write_dataset

SAMPLED = {"do_predict": True, "predict_with_generate": True, "max_new_tokens": 4, "do_sample": False}
EVALUATED = {"do_eval": True, "compute_accuracy": True}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {  # data set, and what is done with it
    "both, 4 at a time": ("both", {**EVALUATED, "per_device_eval_batch_size": 4}),
    "both, 2 at a time": ("both", {**EVALUATED, "per_device_eval_batch_size": 2}),
    "predictions": ("both", {**SAMPLED, "per_device_eval_batch_size": 2}),
}
PARTS = {name: (name, {**EVALUATED, "per_device_eval_batch_size": 4}) for name in ("first", "last")}


def evaluations(work: Path, runs: dict[str, tuple[str, dict[str, Any]]], where: str) -> dict[str, dict[str, Any]]:
    recipe = recipe_for(work)
    return {
        name: recipe("sft", f"{where}-{name}", eval_dataset=data, **{"do_train": False, "ddp_timeout": 120, **changes})
        for name, (data, changes) in runs.items()
    }


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = data_sets(tmp_path_factory.mktemp("evaluated"))
    recorded = [row for row in rows("sft.jsonl") if "video" in row or "image" in row][:6]
    for name, part in (("first", recorded[:4]), ("last", recorded[4:]), ("both", recorded)):
        write_dataset(folder / "data", name, part)
    return folder


@pytest.fixture(scope="module")
def single(work: Path) -> dict[str, Outcome]:
    return train_together(work, evaluations(work, {**RUNS, **PARTS}, "one"))


def results(outcome: Outcome, kind: str = "eval") -> dict[str, float]:
    assert not outcome.failed, outcome.output[-5000:]
    values = json.loads((outcome.folder / f"{kind}_results.json").read_text())
    return {name: value for name, value in values.items() if not name.endswith(("time", "second"))}


def test_a_last_batch_of_fewer_rows_counts_as_its_rows(single: dict[str, Outcome]) -> None:
    both, first, last = (results(single[name]) for name in ("both, 4 at a time", "first", "last"))
    assert abs(first["eval_loss"] - last["eval_loss"]) > 0.05
    for name in ("eval_loss", "eval_accuracy"):
        assert both[name] == pytest.approx((4 * first[name] + 2 * last[name]) / 6, abs=1e-5)


@pytest.mark.long
def test_rows_that_fill_up_a_batch_do_not_count(work: Path, single: dict[str, Outcome]) -> None:
    """Of six rows, two processes repeat two, in a batch of their own or beside others."""
    runs = evaluations(work, RUNS, "two")
    port = str(29600 + os.getpid() % 300)
    torchrun = [str(Path(sys.executable).parent / "torchrun"), "--nproc_per_node", "2", "--master_port", port]
    double = train_together(work, runs, command=torchrun, threads="1")
    for name in RUNS:
        kind = "predict" if name == "predictions" else "eval"
        expected = results(single[name], kind)
        assert len(expected) > 1
        assert results(double[name], kind) == pytest.approx(expected, abs=1e-5)
    answers = [(run["predictions"].folder / "generated_predictions.jsonl").read_text() for run in (single, double)]
    assert answers[0] == answers[1]
    assert answers[0].count("\n") == 6
