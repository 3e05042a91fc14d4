"""The page of an evaluation: worst first, every set and verdict represented, frames once for each clip."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hound_plugin.evaluation.items import FAILED, JUDGED, UNANSWERED, UNREADABLE, Judgement, Prediction, Question
from hound_plugin.evaluation.page import ORDER, verdict_of, write_page
from hound_plugin.evaluation.run_folder import EvaluationRun
from hound_plugin.pages.frames import FrameReader
from tests.media.clips import encode


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("clips") / "a.mp4"
    encode(str(path), 8, 64, 48)
    return str(path)


def judgement_of(number: int) -> tuple[Prediction, Judgement | None]:
    name, text = f"q{number}", f"answer number {number}"
    match number % 8:
        case 0:
            return Prediction(name, None, "the clip is damaged"), Judgement(
                name, UNANSWERED, reason="the clip is damaged"
            )
        case 1:
            return Prediction(name, text), Judgement(name, UNREADABLE, reason="no score", raw="I <b>like</b> it")
        case 2:
            return Prediction(name, text), Judgement(name, FAILED, reason="timeout")
        case 3:
            return Prediction(name, text), None
        case kind:
            correct = kind in (4, 5)
            score = float(number % 3 + 3 * correct)
            return Prediction(name, text), Judgement(
                name, JUDGED, correct, score, f"because of {number}", "raw", {"f1": 0.5}
            )


def run_of(clip: str, number: int = 48) -> EvaluationRun:
    questions = [
        Question(f"q{n}", ("a", "b", "c")[n % 3], f"c{n % 4}", (clip,), "<video>\nWhat?", f"What {n}?", f"ref {n}", "")
        for n in range(number)
    ]
    rows = [judgement_of(n) for n in range(number)]
    predictions = {row.id: row for row, _ in rows}
    judgements = {row.id: row for _, row in rows if row is not None}
    meta = {"model": "m<b>", "seed": 3, "judge": {"model": "judge-x", "protocol": "official/1/abc", "scale": [0, 5]}}
    return EvaluationRun(Path("runs/dpo/official"), meta, questions, predictions, judgements)


def items(page: str) -> list[tuple[str, str, str]]:
    """Id, set and verdict of each item, in order."""
    found = re.findall(r'<article class="item" id="item-\d+" data-id="([^"]*)" ([^>]*)>', page)
    return [
        (name, *(re.search(rf'data-{key}="([^"]*)"', rest)[1] for key in ("set", "verdict")))  # type: ignore[index]
        for name, rest in found
    ]


def test_worst_first(clip: str, tmp_path: Path) -> None:
    run = run_of(clip)
    path = write_page(run, tmp_path, FrameReader(2, size=48))
    page = path.read_text()
    assert path == tmp_path / "index.html"
    shown = items(page)
    assert {name for name, _, _ in shown} == {question.id for question in run.questions}
    places = [ORDER.index(verdict) for _, _, verdict in shown]
    assert places == sorted(places)
    wrong = [run.judgements[name].score for name, _, verdict in shown if verdict == "wrong"]
    assert wrong == sorted(wrong)  # type: ignore[type-var]
    for text in ("dpo on official", "m&lt;b&gt;", "judge-x", "official/1/abc", "because of 4", "the clip is damaged",
                 "What 7?", "ref 7", "f1 0.5", "I &lt;b&gt;like&lt;/b&gt; it"):  # fmt: skip
        assert text in page, text


def test_frames_of_a_clip_are_in_the_page_once(clip: str, tmp_path: Path) -> None:
    page = write_page(run_of(clip), tmp_path, FrameReader(2, size=48)).read_text()
    assert page.count("<img ") == 4 * 2
    assert page.count("data-same-as=") == 48 - 4


def test_a_large_run_shows_the_worst_of_each_set_and_verdict(clip: str, tmp_path: Path) -> None:
    run = run_of(clip, 480)
    shown = items(write_page(run, tmp_path, FrameReader(1, size=48), most=60).read_text())
    assert len(shown) == 60
    every = {(q.set, verdict_of(run.predictions.get(q.id), run.judgements.get(q.id))) for q in run.questions}
    assert {(name, verdict) for _, name, verdict in shown} == every
    for group in every:
        scores = [run.judgements[n].score or 0 for n, s, v in shown if (s, v) == group and n in run.judgements]
        rest = [
            row.score or 0
            for question in run.questions
            if (row := run.judgements.get(question.id))
            and question.id not in {n for n, _, _ in shown}
            and (question.set, verdict_of(run.predictions.get(question.id), row)) == group
        ]
        assert max(scores, default=0) <= min(rest, default=9)
    page = (tmp_path / "index.html").read_text()
    assert "60 of 480 questions" in page
    assert len(items(write_page(run, tmp_path, FrameReader(1, size=48), most=0).read_text())) == 480


def test_an_unfinished_run(clip: str, tmp_path: Path) -> None:
    run = run_of(clip, 6)
    empty = EvaluationRun(run.folder, {}, run.questions, {}, {})
    page = write_page(empty, tmp_path, FrameReader(1, size=48)).read_text()
    assert {verdict for _, _, verdict in items(page)} == {"not judged"}
    assert "not answered yet" in page
