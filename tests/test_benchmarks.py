"""The scripts in ``benchmarks/`` that need a GPU or many minutes run on a toy model, and hold what they promise."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.goldens import SFT
from tests.host.hosting import REPO
from tests.media.clips import encode

SMALL = ("--hidden", "128", "--layers", "1", "--answer", "8")


def run(*command: str) -> str:
    """What a script prints."""
    done = subprocess.run(
        [sys.executable, *command], cwd=REPO, capture_output=True, text=True, timeout=580, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout


def table(*command: str) -> list[list[str]]:
    """The cells of the rows that a script prints, without its headings."""
    lines = [line for line in run(*command).splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "| loss |" not in line]


def written(tmp_path: Path, script: str, *options: str) -> dict[str, Any]:
    """The JSON file of a script, whose tables and goals are what it prints."""
    out = tmp_path / "out.json"
    printed = run(f"benchmarks/{script}.py", *options, "--out", str(out))
    values: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    assert values["benchmark"] == script
    assert values["machine"]["cores"] > 0
    for one in values["tables"]:
        assert one["title"] in printed
        assert {len(row) for row in one["rows"]} == {len(one["columns"])}
        for row in one["rows"]:
            assert f"| {' | '.join(row)} |" in printed
    for goal in values["goals"]:
        assert goal["name"] in printed
    return values


@pytest.mark.long
def test_memory_of_a_ray_job(tmp_path: Path) -> None:
    """On a demo of two clips; the answers are counted and compared with the questions by the script itself."""
    pytest.importorskip("ray")
    demo = tmp_path / "demo"
    (demo / "data").mkdir(parents=True)
    (demo / "clips").mkdir()
    (demo / "model").symlink_to(SFT)
    for name in ("a.mp4", "b.mp4"):
        encode(str(demo / "clips" / name), 8, 64, 48)
    row = {"prompt": "<video>\nWhat moves?", "reference": "A square."}
    asked = [{"id": name, "video": name, **row} for name in ("a.mp4", "b.mp4")]
    (demo / "data" / "reward_questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    small = ("--items", "400", "--clips", "30", "--clip", "8", "--batch", "2", "--pause", "0.05")
    values = written(tmp_path, "ray_memory", "--demo", str(demo), *small)
    memory, on_the_way = values["tables"]
    assert [row[0] for row in memory["rows"]] == [
        "command", "model", "reader", "Ray itself", "object store", "spilled to disk"
    ]  # fmt: skip
    for row in on_the_way["rows"]:
        assert 8 < float(row[3]) < 0.2 * 2**30 / 1e6, "MB on the way, of 240, in a store of 0.2 GiB"


@pytest.mark.long
def test_steps_on_a_gpu() -> None:
    rows = table("benchmarks/gpu.py", "--tiny", "--repeat", "1")
    recipes = [f"{stage}, {method}" for stage in ("DPO", "SFT") for method in ("full", "LoRA", "QLoRA")]
    assert [row[0] for row in rows] == [recipe for recipe in recipes for _ in range(2)]
    for stock, ours in zip(rows[::2], rows[1::2], strict=True):
        assert (stock[1], ours[1]) == ("host's own step", "ours")
        assert float(ours[-1]) == pytest.approx(float(stock[-1]), rel=1e-4), ours[0]


@pytest.mark.long
@pytest.mark.parametrize(("script", "goals"), [("grouped_questions", 3), ("preference_step", 3)])
def test_steps_side_by_side(script: str, goals: int, tmp_path: Path) -> None:
    values = written(tmp_path, script, *SMALL, "--repeat", "1")
    losses = {way: result["loss"] for way, result in values["raw"].items() if way != "Video-LLaVA in the host"}
    assert len(losses) >= 3
    assert abs(losses["host's own step"] - math.log(2)) > 1e-4, "policy and reference are one model: any loss is equal"
    limits = {"rel": 2e-6} if script == "grouped_questions" else {"abs": 2e-5}  # fidelity's, of sums over an answer
    assert list(losses.values()) == pytest.approx([losses["host's own step"]] * len(losses), **limits), losses
    assert all(result["mebibytes"] > 0 for result in values["raw"].values())
    assert len(values["goals"]) == goals


@pytest.mark.long
def test_two_epochs_with_caches(tmp_path: Path) -> None:
    small = ("--clips", "2", "--seconds", "1", "--height", "64", "--small")
    epochs = {way: result["epochs"] for way, result in written(tmp_path, "feature_cache", *small)["raw"].items()}
    work = {way: [(e["clips decoded"], e["tower passes"]) for e in both] for way, both in epochs.items()}
    assert work["host's own steps"][1][0] == work["ours, no cache"][1][0] == 2
    assert work["host's own steps"][1][1] >= 2
    assert work["frame_cache"][1][0] == 0
    assert work["feature_cache"] == [(2, 2), (0, 0)]


@pytest.mark.long
def test_clips_to_tensors(tmp_path: Path) -> None:
    small = ("--repeat", "1", "--height", "64", "--clips", "2", "--seconds", "1")
    values = written(tmp_path, "media", *small)
    assert {"frames", "workers", "no cache", "frame_cache"} <= values["raw"].keys()
    assert len(values["goals"]) == 4


@pytest.mark.long
def test_sampled_answers(tmp_path: Path) -> None:
    small = ("--hidden", "128", "--layers", "1", "--answers", "2", "--tokens", "3", "--questions", "2", "--repeat", "1")
    values = written(tmp_path, "sampling", *small)
    assert [goal["is_met"] for goal in values["goals"] if "same seeds" in goal["name"]] == [True]


@pytest.mark.long
def test_costs_by_size(tmp_path: Path) -> None:
    few = ("--prompts", "2100", "2110", "--answers", "8", "--frames", "2", "8", "--batches", "1", "2")
    values = written(tmp_path, "sweep", *SMALL, *few)
    for series, points in {"prompts": 2, "answers": 1, "frames": 2, "batches": 2}.items():
        for way in values["raw"][series].values():
            assert len(way) == points


@pytest.mark.long
def test_where_the_time_goes(tmp_path: Path) -> None:
    values = written(tmp_path, "profile_step", *SMALL)
    for result in values["raw"].values():
        assert 0 < result["kinds"]["products of matrices"] < result["seconds"] * 4
        assert 0 < result["forward"] < result["seconds"]


# --- the parts


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The scripts can be imported, under their short names, for the length of a test."""
    monkeypatch.syspath_prepend(str(REPO / "benchmarks"))
    yield
    for path in (REPO / "benchmarks").glob("*.py"):
        sys.modules.pop(path.stem, None)


@pytest.fixture
def report(scripts: None) -> ModuleType:
    import report

    return report


@pytest.mark.parametrize(
    ("value", "limits", "is_met"),
    [(3.0, {"least": 3}, True), (2.99, {"least": 3}, False), (0.4, {"most": 0.4}, True), (0.41, {"most": 0.4}, False)],
)
def test_a_goal_is_met_at_its_limit(report: ModuleType, value: float, limits: dict[str, float], is_met: bool) -> None:
    assert report.Goal("x", value, **limits).is_met is is_met


def test_a_report_is_written_whole(report: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = [report.Table("Steps", ["way", "s"], [["ours", "1.00 (0.90 to 1.10)"]])]
    goals = [report.Goal("faster", 2.5, least=3)]
    report.Report("steps", "a toy", tables, goals, {"ours": [1.0]}).finish(tmp_path / "new" / "out.json")
    printed = capsys.readouterr().out
    assert "| way | s |\n|---|---|\n| ours | 1.00 (0.90 to 1.10) |\n" in printed
    assert "| faster | at least 3 | 2.5 | NO |" in printed
    values = json.loads((tmp_path / "new" / "out.json").read_text())
    assert values["goals"] == [
        {"name": "faster", "value": 2.5, "least": 3, "most": None, "limit": "at least 3", "is_met": False}
    ]
    assert values["raw"] == {"ours": [1.0]}
    assert values["machine"]["torch"]


def test_a_spread_is_median_least_and_most(report: ModuleType) -> None:
    assert report.spread([3.0, 1.0, 2.0]) == "2.00 (1.00 to 3.00)"


MEMORY = """
import sys
sys.path.insert(0, "benchmarks")
import torch
from side_by_side import PeakMemory
memory = PeakMemory()
for _ in range(3):
    torch.zeros(50 * 2**18).fill_(1.0)  # 50 MiB each, one after the other
print("peak", memory.mebibytes())
print("after", PeakMemory().mebibytes())
"""


def test_the_peak_of_memory_is_what_was_there_at_once() -> None:
    """In a process of its own: threads of the test's own take memory, too."""
    peaks = dict(line.split() for line in run("-c", MEMORY).splitlines())
    assert 40 < float(peaks["peak"]) < 90
    assert float(peaks["after"]) < 20, "what was freed before is not counted"


def test_operations_of_shared_rows_are_those_of_their_parts(scripts: None) -> None:
    from arithmetic import flops
    from transformers import LlamaConfig

    config = LlamaConfig(
        hidden_size=64, intermediate_size=172, num_hidden_layers=2, num_attention_heads=1, vocab_size=99
    )
    layer = 4 * 64**2 + 3 * 64 * 172

    def operations(tokens: int, keys: float, labels: int) -> float:
        return 2 * (2 * layer * tokens + 4 * 64 * keys) + 2 * 64 * 99 * labels

    alone = flops(config, 1, 2, 10, 3, shares_prompt=False, answers_only=False)
    assert alone == operations(26, 2 * (13 * 14 / 2), 26)
    shared = flops(config, 4, 2, 10, 3, shares_prompt=True, answers_only=True)
    assert shared == 4 * operations(16, 55 + 2 * (30 + 6), 6)


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
    found = json.loads(out.read_text())["raw"]
    assert found["measured"]["clips"] == found["clips"] == 20
    assert found["written"] <= found["began"], "the prediction is on disk before the job that it is about"
    assert 0.4 < found["measured"]["answered"] / found["expected"]["answered"] < 2.5


@pytest.mark.long
def test_two_hundred_requests_at_a_time() -> None:
    """Right answers beside bad media and clients that hang up, short questions within a second, memory back."""
    command = [sys.executable, "benchmarks/serving_soak.py", "--requests", "200", "--rounds", "3"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=580, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.count("\nok ") == 7
