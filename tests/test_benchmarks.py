"""The scripts in ``benchmarks/`` that need a GPU or many minutes run on a toy model, and their losses agree."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.goldens import SFT
from tests.host.hosting import REPO


def table(*command: str) -> list[list[str]]:
    """The cells of the rows that a script prints, without its headings."""
    done = subprocess.run(
        [sys.executable, *command], cwd=REPO, capture_output=True, text=True, timeout=580, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    lines = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "| loss |" not in line]


@pytest.mark.long
def test_steps_on_a_gpu() -> None:
    rows = table("benchmarks/gpu.py", "--tiny", "--repeat", "1")
    recipes = [f"{stage}, {method}" for stage in ("DPO", "SFT") for method in ("full", "LoRA", "QLoRA")]
    assert [row[0] for row in rows] == [recipe for recipe in recipes for _ in range(2)]
    for stock, ours in zip(rows[::2], rows[1::2], strict=True):
        assert (stock[1], ours[1]) == ("host's own step", "ours")
        assert float(ours[-1]) == pytest.approx(float(stock[-1]), rel=1e-4), ours[0]


@pytest.mark.long
@pytest.mark.parametrize("script", ["grouped_questions", "preference_step"])
def test_steps_side_by_side(script: str) -> None:
    small = ("--hidden", "128", "--layers", "1", "--repeat", "1", "--answer", "8")
    rows = table(f"benchmarks/{script}.py", *small)
    assert len(rows) >= 3
    losses = [float(row[-1].split()[0]) for row in rows]
    assert losses == pytest.approx([losses[0]] * len(rows), rel=2e-6), "losses"


def test_the_plan_adds_up() -> None:
    rows = table("benchmarks/scale_plan.py", "plan", "--prefill", "2108", "--decode", "1", "--judge-rate", "1000")
    cells = {(row[0], row[1]): row for row in rows if row[0].startswith("20k")}
    one, many = cells["20k clips x 6 answers, judged", "1"], cells["20k clips x 6 answers, judged", "64"]
    assert float(one[8]) == pytest.approx(20_000 / 3600, abs=0.01), "a prompt a second"
    assert float(one[9]) == pytest.approx(20_000 * 6 * 60 / 3600, abs=0.01)
    assert float(one[10]) == float(many[10]) == 2.0, "a judge is not faster for more GPUs"
    assert (one[4], many[4]) == ("decode tokens", "decode tokens")
    assert float(many[9]) == pytest.approx(float(one[9]) / 64, abs=0.01)


@pytest.mark.long
def test_a_small_job_takes_what_another_one_predicts(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    out = tmp_path / "plan.json"
    rows = table("benchmarks/scale_plan.py", "check", "--model", str(SFT), "--sizes", "8,20", "--out", str(out))
    assert [row[0] for row in rows[1:]] == ["reading, CPU s", "answering, CPU s", "clock, s"]
    written = json.loads(out.read_text())
    assert written["measured"]["clips"] == written["clips"] == 20
    assert 0.4 < written["measured"]["answered"] / written["expected"]["answered"] < 2.5
