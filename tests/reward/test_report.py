"""The report says what happened, in numbers that can be checked, and escapes what others wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hound_plugin.reward.run import run_stages
from hound_plugin.reward.settings import build_settings
from tests.llm.conftest import FaultServer
from tests.llm.fault_server import grade
from tests.reward.conftest import rows, write_rows
from tests.reward.test_stages import asking, start


def test_numbers_of_a_run(values: dict[str, Any], server: FaultServer) -> None:
    prices = {"tiny": {"input": 10.0, "output": 100.0}}
    settings = asking({**values, "prices": prices}, server, k=2, seed=1, answer_format="json")
    run = start(settings)
    server.control(script=["prose"] * 3)
    run_stages(run)
    report = json.loads((run.folder / "report" / "report.json").read_text())
    found = rows(run.folder / "scores.jsonl")
    assert report["counts"]["answers"] == report["counts"]["scored"] == 48
    distinct = len({(row["id"], row["answer"]) for row in rows(run.folder / "candidates.jsonl")})
    assert report["counts"]["duplicates"] == 48 - distinct
    expected = [sum(grade(int(row["id"][1:])) == score for row in found) for score in range(1, 6)]
    assert report["scores"]["counts"][::2] == expected
    assert sum(report["scores"]["counts"][1::2]) == 0
    assert report["agreement"] == {
        "answers": 48, "same": 48, "spearman": 1.0, "kappa": 1.0, "weighted_kappa": 1.0, "mean_spread": 0.0,
    }  # fmt: skip
    usage = report["stages"]["judge_usage"]
    assert usage["cost"] == pytest.approx(usage["answers"] * (200 * 10 + 20 * 100) / 1e6)
    assert usage["requests"] == usage["answers"] == server.stats()["counts"]["requests"]
    assert sum(row["pairs"] for row in report["sources"]) == report["counts"]["pairs"]
    assert {row["source"]: row["answers"] for row in report["sources"]} == {"even": 24, "odd": 24}
    assert report["smoke_test"] is None
    assert "lexical" not in (run.folder / "report" / "report.html").read_text()


def test_what_others_wrote_is_escaped(values: dict[str, Any], tmp_path: Path) -> None:
    attack = "<script>alert(1)</script> | It moves left."
    given = [{"id": "q0", "candidate": n, "answer": text} for n, text in enumerate(["It moves left.", attack, "x"])]
    sample = {"backend": "given", "answers": str(write_rows(tmp_path / "given.jsonl", given))}
    pairs = {"policy": "all", "max_pairs": 9, "near_duplicate": None}
    run = start(build_settings({**values, "sample": sample, "pairs": pairs}))
    run_stages(run)
    page = (run.folder / "report" / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
