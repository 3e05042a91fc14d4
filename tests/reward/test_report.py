"""The report says what happened, in numbers that can be checked, and escapes what others wrote."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

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
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


HOSTILE = "x | <img src=x onerror=alert(1)> `a` [b](javascript:alert(1))\n# title"


def test_markdown_shows_what_others_wrote_as_text(values: dict[str, Any], tmp_path: Path) -> None:
    """Names of samplers and sources reach the report and the dataset card."""
    questions = rows(Path(values["questions"]))
    write_rows(Path(values["questions"]), [{**row, "source": HOSTILE} for row in questions])
    given = [{"id": "q0", "candidate": n, "answer": text} for n, text in enumerate(["It moves left.", HOSTILE, "x"])]
    sample = {"backend": "given", "answers": str(write_rows(tmp_path / "g.jsonl", given)), "model": HOSTILE}
    run = start(build_settings({**values, "sample": sample, "pairs": {"policy": "all", "near_duplicate": None}}))
    run_stages(run)
    for name in ("report/report.md", "pairs/README.md"):
        text = (run.folder / name).read_text()
        page = MarkdownIt("commonmark", {"html": True}).enable("table").render(text.split("---\n")[-1])
        assert "onerror=alert" in page
        assert "<img src=x" not in page
        assert "javascript:" not in "".join(re.findall(r'href="([^"]*)"', page))
        assert not re.search(r"<h1>\s*title", page)


def test_it_says_what_was_run(values: dict[str, Any], server: FaultServer) -> None:
    settings = asking({**values, "seed": 7, "limit": 5}, server, k=2, answer_format="json")
    run = start(settings)
    run_stages(run)
    protocol = rows(run.folder / "scores.jsonl")[0]["judge"]["protocol"]
    for name in ("report.md", "report.html"):
        text = (run.folder / "report" / name).read_text().replace("\\", "").replace("</dt><dd>", " | ")
        for expected in (
            "parrot", "tiny", protocol, "answers per question (n) | 6", "judgements per answer (k) | 2", "seed | 7",
            "threshold: chosen 3 or more, rejected less", "smallest gap | 1", "the first 5",
        ):  # fmt: skip
            assert expected in text, (name, expected)
    page = (run.folder / "report" / "report.html").read_text()
    assert 'class="chart"' in page
    assert re.findall(r'<text[^>]*text-anchor="middle">([\d.]+)</text>', page)[:9] == [
        "1", "1.5", "2", "2.5", "3", "3.5", "4", "4.5", "5",
    ], "a tick under every bar"  # fmt: skip


def test_reasons_and_first_replies_without_a_score(values: dict[str, Any], server: FaultServer) -> None:
    settings = asking({**values, "limit": 2}, server, answer_format="text", attempts=1, pilot=0)
    run = start(settings)
    server.control(script=["prose"] * 2)
    run_stages(run)
    found = rows(run.folder / "scores.jsonl")
    assert any(row["missing"] for row in found)
    assert any(reason for row in found for reason in row["reasons"])
    assert all(len(row["reasons"]) == len(row["scores"]) for row in found)
    page = (run.folder / "report" / "report.html").read_text()
    (raw, *_) = [entry["raw"] for row in found for entry in row["missing"]]
    assert "Judgements without a score" in page
    assert html.escape(raw, quote=False).replace('"', "&#34;").replace("'", "&#39;") in page
