"""Two runs paired, and two judges: numbers by hand, runs that do not go together, hostile texts."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from hound_plugin.errors import DataError
from hound_plugin.evaluation.agreement import agree, confusion, write_agreement
from hound_plugin.evaluation.comparison import compare, write_comparison
from hound_plugin.evaluation.items import FAILED, JUDGED, UNREADABLE, Judgement, Question
from hound_plugin.evaluation.run_folder import EvaluationRun
from tests.evaluation.runs import OFFICIAL, make_run, questions
from tests.evaluation.test_report import HOSTILE

ASKED = questions({"msvd": 10, "tgif": 10}, per_clip=2)
MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table")


def by_number(*correct: bool | None):  # type: ignore[no-untyped-def]
    """Verdicts by position; None is unreadable."""
    order = {question.id: number for number, question in enumerate(ASKED)}

    def judged(question: Question) -> Judgement:
        value = correct[order[question.id] % len(correct)]
        if value is None:
            return Judgement(question.id, UNREADABLE, reason="no verdict", raw="?")
        return Judgement(question.id, JUDGED, value, 4 if value else 1, "Because.", "{}")

    return judged


def two_runs(folder: Path) -> tuple[EvaluationRun, EvaluationRun]:
    first = make_run(folder, "sft", asked=ASKED, judged=by_number(True, False, False, None), answer=lambda q: "Left.")
    second = make_run(folder, "dpo", asked=ASKED, judged=by_number(True, True, False, True), answer=lambda q: "Right.")
    return first, second


def test_paired_numbers_by_hand(tmp_path: Path) -> None:
    """Of each four questions: both right, only the second, both wrong, unreadable in the first."""
    found = compare(*two_runs(tmp_path))
    total = found.total
    assert (total.questions, total.clips, total.both) == (40, 20, 30)
    assert (total.statuses[0][UNREADABLE], total.statuses[1][UNREADABLE]) == (10, 0)
    assert total.test is not None
    assert (total.test.only_second, total.test.only_first) == (10, 0)
    assert total.test.p_value == pytest.approx(2 / 2**10)
    assert total.difference is not None
    assert total.if_wrong is not None
    assert total.score is not None
    assert total.difference.mean == pytest.approx(1 / 3)
    assert total.if_wrong.mean == pytest.approx(0.5)
    assert total.score.mean == pytest.approx(1.0)
    assert len(found.wins) == 10
    assert found.losses == []
    assert [row.name for row in found.rows] == ["msvd", "tgif", "all"]


def test_the_other_way_round_is_the_opposite(tmp_path: Path) -> None:
    first, second = two_runs(tmp_path)
    forth, back = compare(first, second), compare(second, first)
    assert forth.total.difference is not None
    assert back.total.difference is not None
    assert forth.total.difference.mean == -back.total.difference.mean
    assert [change.question.id for change in forth.wins] == [change.question.id for change in back.losses]
    assert "is better" in forth.to_markdown()
    assert "is worse" in back.to_markdown()
    assert "not shown to be better or worse" in compare(first, first).to_markdown()


def test_the_files_of_a_comparison(tmp_path: Path) -> None:
    folder = tmp_path / "compared"
    text = write_comparison(compare(*two_runs(tmp_path)), folder).read_text()
    assert "| all | 40 | 20 | 30/40 | 10/0 | 0/0 | 0/0 | 30 | 33.3 (" in text
    assert "![differences](differences.png)" in text
    assert "## Wins of the second run (10)" in text
    assert "## Losses (0)" in text
    assert {path.name for path in folder.iterdir()} == {
        "compare.md", "compare.csv", "compare.tex", "differences.png", "changes.jsonl",
    }  # fmt: skip
    changes = [json.loads(line) for line in (folder / "changes.jsonl").read_text().splitlines()]
    assert len(changes) == 10
    assert (changes[0]["first"], changes[0]["second"], changes[0]["second_correct"]) == ("Left.", "Right.", True)
    row = list(csv.DictReader(io.StringIO((folder / "compare.csv").read_text())))[-1]
    assert (row["wins"], row["losses"], row["first_unreadable"]) == ("10", "0", "10")


def test_runs_on_other_questions(tmp_path: Path) -> None:
    """Partly: reported; not at all, or another text under one id: refused."""
    whole = make_run(tmp_path, "whole", asked=ASKED)
    part = make_run(tmp_path, "part", asked=ASKED[5:])
    found = compare(whole, part)
    assert found.total.questions == 35
    assert "do not cover the same questions. 35 are in both" in found.remarks[0]
    assert "5 are only in the first run (such as 'msvd/q0_0'" in found.remarks[0]
    assert "do not cover the same questions" in found.to_markdown()
    with pytest.raises(DataError, match="no question in common"):
        compare(whole, make_run(tmp_path, "other", asked=questions({"ssv2": 3})))
    changed = [Question(**{**vars(q), "reference": "Another."}) for q in ASKED[:2]]
    with pytest.raises(DataError, match=r"2 of 40 questions have another text, clip or right answer"):
        compare(whole, make_run(tmp_path, "changed", asked=[*changed, *ASKED[2:]]))


@pytest.mark.parametrize(
    "change", [{"model": "other"}, {"protocol": "caption/1/x"}, {"parsing": "original"}, {"max_words": 5}]
)
def test_runs_of_two_judges_are_not_compared(change: dict[str, object], tmp_path: Path) -> None:
    first = make_run(tmp_path, "one", asked=ASKED)
    second = make_run(tmp_path, "two", asked=ASKED, judge={**OFFICIAL, **change})
    with pytest.raises(DataError, match=rf"judged differently: {next(iter(change))} .*hound eval agree"):
        compare(first, second)


def test_another_version_behind_one_name_is_a_warning(tmp_path: Path) -> None:
    first = make_run(tmp_path, "one", asked=ASKED)
    second = make_run(tmp_path, "two", asked=ASKED, judge={**OFFICIAL, "reported_models": ["tiny-judge-1106"]})
    assert any("other versions of the judge: tiny-judge-0613" in note for note in compare(first, second).remarks)


def test_scores_without_verdicts_are_compared_too(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path, name, asked=ASKED, judged=lambda q, s=score: Judgement(q.id, JUDGED, None, s),
                 judge={"backend": "lexical", "metric": "token_f1", "scale": [0, 1]})
        for name, score in (("a", 0.25), ("b", 0.5))
    ]  # fmt: skip
    found = compare(*runs)
    assert found.total.test is None
    assert found.total.score is not None
    assert (found.total.score.mean, len(found.wins)) == (0.25, 40)
    assert "is better: +0.25" in found.to_markdown()
    write_comparison(found, tmp_path / "c")


# --- agreement


def judges(folder: Path) -> tuple[EvaluationRun, EvaluationRun]:
    first = make_run(folder, "one", asked=ASKED, judged=by_number(True, True, False, False))
    other = {**OFFICIAL, "model": "other-judge"}
    second = make_run(folder, "two", asked=ASKED, judged=by_number(True, False, False, None), judge=other)
    return first, second


def test_agreement_by_hand(tmp_path: Path) -> None:
    """Of each four predictions: both right, only the first, both wrong, none by the second."""
    found = agree(*judges(tmp_path))
    total = found.total
    assert (total.both, total.scored) == (30, 30)
    assert total.same is not None
    assert total.same.mean == pytest.approx(2 / 3)
    assert total.kappa == pytest.approx((2 / 3 - 4 / 9) / (5 / 9))
    assert total.spearman == pytest.approx(0.5)
    assert total.weighted_kappa == pytest.approx(0.4)
    assert len(found.disagreements) == 10
    assert confusion(found)["verdicts"][0] == [[10, 10, 0], [0, 10, 10], [0, 0, 0]]
    assert confusion(found)["scores"] == ([[10, 0], [10, 10]], ["1", "4"], ["1", "4"])


def test_the_files_of_an_agreement(tmp_path: Path) -> None:
    folder = tmp_path / "agreed"
    text = write_agreement(agree(*judges(tmp_path)), folder).read_text()
    assert text.startswith("# Agreement: tiny-judge and other-judge\n")
    assert "| all | 40 | 20 | 40/30 | 0/10 | 0/0 | 0/0 | 30 |" in text
    assert {path.name for path in folder.iterdir()} == {
        "agree.md", "agree.csv", "agree.tex", "confusion_verdicts.png", "confusion_scores.png", "disagreements.jsonl",
    }  # fmt: skip
    assert len((folder / "disagreements.jsonl").read_text().splitlines()) == 10


def test_judges_agree_on_the_same_predictions_only(tmp_path: Path) -> None:
    first = make_run(tmp_path, "one", asked=ASKED, judged=by_number(True))
    second = make_run(tmp_path, "two", asked=ASKED, judged=by_number(True), answer=lambda q: "Something else.")
    with pytest.raises(DataError, match=r"different predictions for 40 of 40 .*predict.answers="):
        agree(first, second)


def test_judges_on_other_scales_have_no_weighted_kappa(tmp_path: Path) -> None:
    first = make_run(tmp_path, "one", asked=ASKED, judged=by_number(True, False))
    caption = {**OFFICIAL, "protocol": "caption/1/x", "scale": [1, 5], "verdict": False}
    second = make_run(tmp_path, "two", asked=ASKED, judged=by_number(True, False), judge=caption)
    found = agree(first, second)
    assert (found.total.weighted_kappa, found.total.spearman) == (None, pytest.approx(1))
    assert found.judges == ("tiny-judge, official/1/abc", "tiny-judge, caption/1/x"), "one model, two prompts"


def test_hostile_texts_break_no_file(tmp_path: Path) -> None:
    asked = [Question(f"q{n}{HOSTILE}", HOSTILE, f"c{n}", (), "x", HOSTILE, HOSTILE) for n in range(4)]
    runs = []
    for name, value in (("one", True), ("two", False)):
        judge = {**OFFICIAL, "model": HOSTILE, "reported_models": [HOSTILE]}
        runs.append(
            make_run(tmp_path, name, asked=asked, judge=judge, answer=lambda _: HOSTILE,
                     judged=lambda q, v=value: Judgement(q.id, JUDGED, v, 5 * v, HOSTILE, HOSTILE))
        )  # fmt: skip
    compared, agreed = tmp_path / "c", tmp_path / "a"
    pages = [write_comparison(compare(*runs), compared), write_agreement(agree(*runs), agreed)]
    for path in pages:
        page = MARKDOWN.render(path.read_text())
        assert "<script" not in page
        assert "http://e" not in "".join(re.findall(r"<(?:img|a)[^>]*>", page))
        for table in re.findall(r"<table>.*?</table>", page, re.S):
            assert len({len(re.findall(r"<t[dh]", row)) for row in re.findall(r"<tr>.*?</tr>", table, re.S)}) == 1
    for path in (compared / "compare.csv", agreed / "agree.csv"):
        rows = list(csv.reader(io.StringIO(path.read_text())))
        assert len({len(row) for row in rows}) == 1
        assert all(not row[0].lstrip().startswith("=") for row in rows)
    for path in (compared / "compare.tex", agreed / "agree.tex"):
        assert "\\input" not in path.read_text()


def test_runs_that_are_not_judged_are_refused(tmp_path: Path) -> None:
    first, second = two_runs(tmp_path)
    bare = EvaluationRun(second.folder, second.meta, second.questions, second.predictions, {})
    for work in (compare, agree):
        with pytest.raises(DataError, match="there are no judgements"):
            work(first, bare)


def test_failed_judgements_are_counted_and_never_compared(tmp_path: Path) -> None:
    first = make_run(tmp_path, "one", asked=ASKED, judged=by_number(True, False))
    second = make_run(tmp_path, "two", asked=ASKED, judged=lambda q: Judgement(q.id, FAILED, reason="500"))
    found = compare(first, second)
    assert (found.total.both, found.total.difference, found.changes) == (0, None, [])
    assert found.total.statuses[1][FAILED] == 40
    assert "No question has a verdict or a score in both runs." in found.to_markdown()
