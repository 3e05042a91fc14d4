"""The report says what happened, in numbers that can be checked, and escapes what others wrote."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from hound_plugin.errors import DataError
from hound_plugin.records.questions import Question
from hound_plugin.reward.page import pair_values
from hound_plugin.reward.run import run_stages
from hound_plugin.reward.settings import build_settings
from hound_plugin.reward.summary import summarise
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


def judged_run(folder: Path, scale: list[int], scores: list[list[int]], answers: list[str], **row: Any) -> Path:
    """A run folder with one answer to each of some questions, and its judgements."""
    folder.mkdir()
    names = [f"q{number}" for number in range(len(scores))]
    said = [{"id": name, "candidate": 0, "answer": text} for name, text in zip(names, answers, strict=True)]
    write_rows(folder / "candidates.jsonl", said)
    judged = [
        {"id": name, "candidate": 0, "score": sum(draws) / len(draws), "scores": draws,
         "spread": max(draws) - min(draws), "missing": [], "judge": {"model": "m", "scale": scale}, **row}
        for name, draws in zip(names, scores, strict=True)
    ]  # fmt: skip
    write_rows(folder / "scores.jsonl", judged)
    return write_rows(folder / "pairs.jsonl", [])


def numbers(folder: Path, k: int = 1, second: Path | None = None) -> dict[str, Any]:
    ids = {row["id"]: "" for row in rows(folder / "candidates.jsonl")}
    asked = [Question(name, "", None, None, "What?", "", "", "") for name in ids]
    return summarise(folder, asked, folder / "pairs.jsonl", k, second and str(second / "scores.jsonl"))


@pytest.mark.parametrize("scale", [[0, 10], [1, 10], [0, 1]])
def test_agreement_of_judgements_on_another_scale(tmp_path: Path, scale: list[int]) -> None:
    """By hand: 3 of 4 are the same, 2 of 4 would be by chance (the first says the lowest twice, the second once)."""
    low, high = scale
    judged_run(tmp_path / "run", scale, [[low, low], [low, high], [high, high], [high, high]], list("abcd"))
    found = numbers(tmp_path / "run", k=2)["agreement"]
    assert (found["same"], found["kappa"], found["weighted_kappa"]) == (3, 0.5, 0.5)


def test_means_of_draws_have_no_kappa(tmp_path: Path) -> None:
    """2.5 and 2 are not the same score."""
    judged_run(tmp_path / "one", [1, 5], [[2, 3], [4, 4], [1, 1]], list("abc"))
    judged_run(tmp_path / "two", [1, 5], [[2, 2], [4, 4], [2, 1]], list("abc"))
    found = numbers(tmp_path / "one", second=tmp_path / "two")["second"]
    assert (found["answers"], found["same"], found["kappa"], found["weighted_kappa"]) == (3, 1, None, None)


@pytest.mark.parametrize("theirs", [["a", "b", "x"], ["a", "c", "b"]])
def test_scores_of_other_answers_are_no_second_judgement(tmp_path: Path, theirs: list[str]) -> None:
    scores = [[1], [3], [5]]
    judged_run(tmp_path / "one", [1, 5], scores, ["a", "b", "c"])
    judged_run(tmp_path / "two", [1, 5], scores, theirs)
    with pytest.raises(DataError, match=r"of the 3 scores of .* are of other answers .* question 'q[12]', answer 0"):
        numbers(tmp_path / "one", second=tmp_path / "two")
    (tmp_path / "two" / "candidates.jsonl").unlink()
    assert "unknown" in numbers(tmp_path / "one", second=tmp_path / "two")["second"]["were_the_answers_the_same"]
    judged_run(tmp_path / "three", [1, 5], scores, ["a", "b", "c"])
    assert "were_the_answers_the_same" not in numbers(tmp_path / "one", second=tmp_path / "three")["second"]


def test_lengths_are_counted_in_every_script(tmp_path: Path) -> None:
    answers = ["门开了。", "他把红球放回桌上。", "猫在垫子上睡觉，狗在旁边看着。"]  # 3, 8 and 13 letters
    judged_run(tmp_path / "run", [1, 5], [[1], [3], [5]], answers)
    write_rows(tmp_path / "run" / "pairs.jsonl", [
        {"chosen": answers[2], "rejected": answers[0], "chosen_score": 5, "rejected_score": 1},
    ])  # fmt: skip
    found = numbers(tmp_path / "run")
    assert found["pairs"]["mean_words"] == [13, 3]
    assert found["pairs"]["chosen_longer"] == 1
    assert found["length_score"]["spearman"] == 1
    assert pair_values({"id": "p", **rows(tmp_path / "run" / "pairs.jsonl")[0]}, frozenset())["words"] == 13


def test_the_card_of_given_answers_says_where_they_are_from(values: dict[str, Any], tmp_path: Path) -> None:
    given = [{"id": "q0", "candidate": n, "answer": text} for n, text in enumerate(["It moves left.", "No.", "Up?"])]
    sample = {"backend": "given", "answers": str(write_rows(tmp_path / "theirs.jsonl", given)), "model": "theirs"}
    run = start(build_settings({**values, "sample": sample}))
    run_stages(run, ("sample", "judge", "pairs"))
    card = (run.folder / "pairs" / "README.md").read_text()
    assert re.search(r"\| answers \| from the file .*theirs.*, by theirs \|", card)
    assert "top_p" not in card


def test_given_answers_that_were_cut_stay_so(values: dict[str, Any], tmp_path: Path) -> None:
    """As where another run's candidates.jsonl is judged again."""
    ends = [{"finish": "length", "tokens": 4}, {"finish": "stop", "tokens": 2}, {}, {"finish": None, "tokens": None}]
    given = [{"id": f"q{n}", "candidate": 0, "answer": f"It goes {n}", **end} for n, end in enumerate(ends)]
    file = write_rows(tmp_path / "candidates.jsonl", given)
    run = start(build_settings({**values, "sample": {"backend": "given", "answers": str(file)}}))
    run_stages(run)
    assert json.loads((run.folder / "report" / "report.json").read_text())["counts"]["cut at the limit of tokens"] == 1
    found = [(row["finish"], row["tokens"]) for row in rows(run.folder / "candidates.jsonl")]
    assert found == [("length", 4), ("stop", 2), ("stop", None), ("stop", None)]
    for wrong in ({"finish": 1}, {"tokens": "4"}):
        write_rows(file, [{**given[0], **wrong}])
        with pytest.raises(DataError, match="row 1: expected `finish` as a text"):
            run_stages(run, ("sample",))


def test_reasoning_in_a_given_answer_is_refused(values: dict[str, Any], tmp_path: Path) -> None:
    file = write_rows(
        tmp_path / "c.jsonl", [{"id": "q0", "candidate": 0, "answer": "<think>Left?</think>It moves up."}]
    )
    run = start(build_settings({**values, "sample": {"backend": "given", "answers": str(file)}}))
    with pytest.raises(DataError, match=r"row 1: expected an answer without the model's reasoning, got .*</think>"):
        run_stages(run, ("sample",))


def test_tokens_that_leaked_into_a_given_answer_are_not_part_of_it(values: dict[str, Any], tmp_path: Path) -> None:
    given = [
        {"id": "q0", "candidate": 0, "answer": "It moves up.</s>"},
        {"id": "q0", "candidate": 1, "answer": "Up \n"},
    ]
    file = write_rows(tmp_path / "c.jsonl", given)
    run = start(build_settings({**values, "sample": {"backend": "given", "answers": str(file)}}))
    run_stages(run, ("sample",))
    assert [row["answer"] for row in rows(run.folder / "candidates.jsonl")] == ["It moves up.", "Up \n"]
