"""Tables, pictures and files of a report: numbers by hand, every table with its counts, hostile texts."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from PIL import Image

from hound_plugin.errors import DataError
from hound_plugin.evaluation.agreement import agree
from hound_plugin.evaluation.comparison import compare
from hound_plugin.evaluation.facts import run_facts
from hound_plugin.evaluation.items import FAILED, JUDGED, UNANSWERED, UNREADABLE, Judgement, Question
from hound_plugin.evaluation.published import SETS, WARNING, published_rows
from hound_plugin.evaluation.report import page_tables, write_report
from hound_plugin.evaluation.run_folder import load_run, write_judgements
from hound_plugin.evaluation.summary import summarise
from tests.evaluation.runs import OFFICIAL, make_run, questions
from tests.goldens import load_json

HOSTILE = '=1+1|<script>alert(1)</script>\n\n# x ![](http://e/p.png) \\input{/etc/passwd} $x$ \x1b[31m "q",\r\n@SUM(A1)'
MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table")


def csv_rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


def four(question: Question) -> Judgement:
    """Of each four: right with 5, wrong with 2, unreadable, failed or unanswered."""
    number = int(question.id.split("q")[1].split("_")[0])
    kinds = [
        Judgement(question.id, JUDGED, True, 5, raw="{'pred': 'yes', 'score': 5}"),
        Judgement(question.id, JUDGED, False, 2, raw="{'pred': 'no', 'score': 2}"),
        Judgement(question.id, UNREADABLE, reason="no verdict", raw="eyes everywhere"),
        Judgement(question.id, FAILED, reason="500") if number % 8 < 4 else
        Judgement(question.id, UNANSWERED, reason="broken clip"),
    ]  # fmt: skip
    return kinds[number % 4]


@pytest.mark.parametrize("spelling", ["./{}", "{}#t=0", "sub/../{}", "link/{}", "{}/."])
def test_a_clip_is_one_cluster_however_it_is_written(
    spelling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every second question writes its clip's path in another way: the intervals stay as wide as they are."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    asked = questions({"msvd": 12}, per_clip=2)
    other = [
        replace(question, clip=spelling.format(question.clip), media=(spelling.format(question.media[0]),))
        if number % 2
        else question
        for number, question in enumerate(asked)
    ]
    plain, mixed = (make_run(tmp_path, name, asked=rows) for name, rows in (("plain", asked), ("mixed", other)))
    one, two = summarise(plain).total, summarise(mixed).total
    assert (one.clips, two.clips) == (12, 12)
    assert (one.accuracy, one.score, one.metrics) == (two.accuracy, two.score, two.metrics)
    assert one.accuracy is not None
    assert one.accuracy.clusters < 24
    assert dict(run_facts(mixed))["questions"] == "24 about 12 clips"
    compared = compare(mixed, mixed).total
    assert compared.clips == 12
    assert agree(mixed, mixed).total.clips == 12


def test_numbers_by_hand(tmp_path: Path) -> None:
    run = make_run(tmp_path, asked=questions({"msvd": 8, "tgif": 4}, per_clip=1), judged=four)
    summary = summarise(run)
    msvd, tgif = summary.sets
    assert msvd.statuses == {JUDGED: 4, UNREADABLE: 2, FAILED: 1, UNANSWERED: 1}
    assert tgif.statuses == {JUDGED: 2, UNREADABLE: 1, FAILED: 1, UNANSWERED: 0}
    for row in (msvd, tgif, summary.total):
        assert row.accuracy is not None
        assert row.accuracy_if_wrong is not None
        assert row.score is not None
        assert (row.accuracy.mean, row.accuracy_if_wrong.mean, row.score.mean) == (0.5, 0.25, 3.5)
        assert row.accuracy.low is not None
        assert row.accuracy_if_wrong.high is not None
    assert [row.name for row in summary.rows] == ["msvd", "tgif", "all"]
    assert summary.reasons == {
        UNREADABLE: {"no verdict": 3}, FAILED: {"500": 2}, UNANSWERED: {"broken clip": 1},
    }  # fmt: skip


def test_every_table_of_accuracies_shows_what_is_missing(tmp_path: Path) -> None:
    run = make_run(tmp_path, asked=questions({"msvd": 8, "tgif": 4}, per_clip=1), judged=four)
    text = write_report(run).read_text()
    tables = [block for block in text.split("\n\n") if block.startswith("| set |")]
    with_accuracy = [table for table in tables if "accuracy" in table.splitlines()[0] and "| judge |" not in table]
    assert len(with_accuracy) == 2
    for table in with_accuracy:
        for name in ("answered", "unreadable", "failed", "unanswered"):
            assert f"| {name} |" in table.splitlines()[0]
    assert "| msvd | 8 | 8 | 4 | 2 | 1 | 1 | 50.0 (" in text
    assert "| 25.0 (" in text
    assert "6 of 12 questions have no verdict and no score" in text
    rows = csv_rows(run.folder / "report" / "sets.csv")
    assert [row["set"] for row in rows[:3]] == ["msvd", "tgif", "all"]
    assert (rows[0]["answered"], rows[0]["unreadable"], rows[0]["failed"], rows[0]["unanswered"]) == (
        "4",
        "2",
        "1",
        "1",
    )
    assert float(rows[0]["accuracy_if_wrong"]) == 0.25
    latex = (run.folder / "report" / "table.tex").read_text()
    assert "answered & unreadable & failed & unanswered & accuracy" in latex


def test_the_originals_denominators_are_labelled(tmp_path: Path) -> None:
    """All recorded replies as one run: the report's numbers are the original's result line."""
    recorded = load_json("i_eval_metrics.json")["official"]
    replies = [item["response"] for item in recorded["items"]]
    asked = questions({"msvd": len(replies) + 1}, per_clip=1)

    def judged(question: Question) -> Judgement:
        number = int(question.id.split("q")[1].split("_")[0])
        if number == len(replies):
            return Judgement(question.id, FAILED, reason="500", raw="yes 'score': 5")
        item = recorded["items"][number]
        correct = {"yes": True, "no": False, None: None}[item["verdict"]]
        status = UNREADABLE if correct is None and item["score"] is None else JUDGED
        return Judgement(question.id, status, correct, item["score"], raw=item["response"])

    run = make_run(tmp_path, asked=asked, judged=judged, judge={**OFFICIAL, "parsing": "original"})
    original = summarise(run).total.original
    assert original is not None
    assert {name: original[name] for name in recorded["aggregate"]} == recorded["aggregate"]
    text = write_report(run).read_text()
    assert "| 65.38 | 26 with yes or no | 3.29 | 14 with a score |" in text
    assert "as the original reads them" in text
    row = csv_rows(run.folder / "report" / "sets.csv")[0]
    assert (row["parsing"], row["original_accuracy_n"], row["original_average_score_n"]) == ("original", "26", "14")
    assert "as the original reads" in (run.folder / "report" / "table.tex").read_text()


def test_published_numbers_come_with_judge_source_and_warning(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    text = write_report(run).read_text()
    assert "| msvd | LLaVA-Hound-DPO | gpt-3.5-turbo-0613 | 80.73 | 4.07 |" in text
    assert text.index("do not show that a model is better") < text.index("gpt-3.5-turbo-0613")
    assert "github.com/RifleZhang/LLaVA-Hound-DPO/blob/" in text
    assert "do not show that a model is better" in (run.folder / "report" / "table.tex").read_text()
    rows = csv_rows(run.folder / "report" / "sets.csv")
    assert all(row["source"].startswith("published: other judge, not comparable") for row in rows if row["model"])
    assert sum(bool(row["model"]) for row in rows) == 18
    other = make_run(tmp_path, suite="in-domain")
    assert "gpt-3.5" not in write_report(other).read_text(), "nothing is published for it that was verified"


def test_published_numbers_are_those_of_the_authors_table() -> None:
    rows = published_rows("official")
    assert {row.set for row in rows} == set(SETS)
    best = {row.judge: row for row in rows if row.set == "tgif" and row.model == "LLaVA-Hound-DPO"}
    assert {judge: row.accuracy for judge, row in best.items()} == {
        judge: pytest.approx(value)
        for judge, value in (
            ("gpt-3.5-turbo-0301", 0.7548), ("gpt-3.5-turbo-0613", 0.6138), ("gpt-3.5-turbo-1106", 0.7002),
        )
    }  # fmt: skip
    spread = [
        max(group) - min(group)
        for name in SETS
        for model in ("LLaVA-Hound-SFT", "LLaVA-Hound-DPO")
        if (group := [row.accuracy for row in rows if (row.set, row.model) == (name, model)])
    ]
    assert (round(100 * min(spread)), round(100 * max(spread))) == (8, 15)
    assert "8 to 15 points" in WARNING


def test_hostile_texts_break_no_file(tmp_path: Path) -> None:
    asked = [
        Question(f"q{n}|{HOSTILE}", HOSTILE, f"c{n}", (), "x", HOSTILE, HOSTILE) for n in range(4)
    ]  # fmt: skip

    def judged(question: Question) -> Judgement:
        return Judgement(question.id, UNREADABLE if question.id.startswith("q1") else JUDGED, True, 4, HOSTILE, HOSTILE)

    judge = {**OFFICIAL, "model": HOSTILE, "reported_models": [HOSTILE]}
    run = make_run(tmp_path, asked=asked, judged=judged, judge=judge, answer=lambda _: HOSTILE)
    page = MARKDOWN.render(write_report(run).read_text())
    assert "<script" not in page
    assert set(re.findall(r'<img src="([^"]*)"', page)) == {"accuracy.png", "sample_size.png"}
    assert len(re.findall(r"<h1", page)) == 1
    for table in re.findall(r"<table>.*?</table>", page, re.S):
        widths = {len(re.findall(r"<t[dh]", row)) for row in re.findall(r"<tr>.*?</tr>", table, re.S)}
        assert len(widths) == 1
    content = (run.folder / "report" / "sets.csv").read_text()
    rows = list(csv.reader(io.StringIO(content)))
    assert len({len(row) for row in rows}) == 1
    assert not any(
        cell.lstrip().startswith(("=", "+", "@", "-")) and not _is_number(cell) for row in rows for cell in row
    )
    latex = (run.folder / "report" / "table.tex").read_text()
    assert "\\input" not in latex
    assert "$" not in latex.replace("\\$", "")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def test_pictures_are_equal_for_equal_runs(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    write_report(run)
    before = {path.name: path.read_bytes() for path in (run.folder / "report").glob("*.png")}
    write_report(run)
    assert before == {path.name: path.read_bytes() for path in (run.folder / "report").glob("*.png")}
    assert set(before) == {"accuracy.png", "sample_size.png"}
    for name in before:
        image = Image.open(run.folder / "report" / name).convert("L")
        assert image.width > 600
        assert image.getextrema()[0] < 50, "something is drawn"


def test_a_metric_without_a_verdict_gives_scores_alone(tmp_path: Path) -> None:
    def judged(question: Question) -> Judgement:
        return Judgement(question.id, JUDGED, None, 0.25, scores={"token_f1": 0.25})

    judge: dict[str, Any] = {"backend": "lexical", "model": "no judge, token_f1", "metric": "token_f1", "scale": [0, 1]}
    run = make_run(tmp_path, asked=questions({"a": 3}), judged=judged, judge=judge)
    summary = summarise(run)
    assert (summary.total.accuracy, summary.total.accuracy_if_wrong) == (None, None)
    text = write_report(run).read_text()
    assert "| a | 6 | 3 | 6 | 0 | 0 | 0 | - | - | 0.25 (0.01 to 0.92) |" in text
    assert "No judge" in text
    assert {path.name for path in (run.folder / "report").glob("*.png")} == {"scores.png", "sample_size.png"}


def test_nothing_to_report_on_is_refused_and_partly_judged_runs_say_so(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    some = list(run.judgements.values())[:50]
    write_judgements(run.folder, some)
    partly = load_run(run.folder)
    summary = summarise(partly)
    assert sum(summary.total.statuses.values()) == 190
    assert summary.reasons[FAILED]["not judged yet"] > 100
    (run.folder / "judgements.jsonl").unlink()
    with pytest.raises(DataError, match="Run `hound eval judge` first"):
        write_report(load_run(run.folder))


def test_a_run_without_a_record_of_its_judge_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run.folder / "run.json").write_text(json.dumps({}))
    assert "does not say who judged" in write_report(load_run(run.folder)).read_text()


def test_the_page_has_the_same_tables(tmp_path: Path) -> None:
    tables = page_tables(make_run(tmp_path))
    assert [table.title for table in tables] == ["Results", "Measures without a judge", "Published numbers"]
    assert "21 of 190 questions have no verdict" in tables[0].note
    assert WARNING in tables[2].note
    assert all(len(row) == len(table.columns) for table in tables for row in table.rows)
