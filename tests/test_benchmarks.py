"""The scripts in ``benchmarks/`` that need a GPU or many minutes run on a toy model, and hold what they promise."""

from __future__ import annotations

import subprocess
import sys

import pytest

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


@pytest.mark.long
def test_two_hundred_requests_at_a_time() -> None:
    """Right answers beside bad media and clients that hang up, short questions within a second, memory back."""
    command = [sys.executable, "benchmarks/serving_soak.py", "--requests", "200", "--rounds", "3"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=580, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.count("\nok ") == 7
