"""Judging through a real server process that makes faults, and offline."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hound_plugin.errors import DataError, JudgeError, LedgerError, SettingsError
from hound_plugin.evaluation.items import FAILED, JUDGED, UNANSWERED, UNREADABLE, Prediction, Question
from hound_plugin.evaluation.judging import check_judging, cut_words, dry_run, judge_run
from hound_plugin.evaluation.run_folder import EvaluationRun, append_predictions, freeze_questions, load_run
from hound_plugin.evaluation.settings import EvaluationSettings
from hound_plugin.records.files import write_rows
from hound_plugin.records.questions import read_questions
from hound_plugin.validation import build
from tests.evaluation.runs import questions
from tests.llm.conftest import REPO, FaultServer
from tests.llm.conftest import server as server
from tests.llm.fault_server import grade

ASKED = questions({"msvd": 6, "tgif": 4}, per_clip=2)
ITEM = {question.id: number for number, question in enumerate(ASKED)}


def predicted(folder: Path, asked: list[Question] = ASKED, without: tuple[str, ...] = ()) -> EvaluationRun:
    folder.mkdir(parents=True, exist_ok=True)
    freeze_questions(folder, asked)
    rows = [
        Prediction(q.id, None, "the clip is broken") if q.id in without else Prediction(q.id, f"A ring [item-{n}]")
        for n, q in enumerate(asked)
    ]
    append_predictions(folder, rows)
    return load_run(folder)


def settings(server: FaultServer | None = None, **judge: Any) -> EvaluationSettings:
    values: dict[str, Any] = {"protocol": "official", **judge}
    if server is not None:
        values = {"backend": "openai", "model": "tiny", "base_url": server.base_url, "answer_format": "json",
                  "tries": 1, "attempts": 2, "pilot": 0, **values}  # fmt: skip
    price = values.pop("prices", {})
    return build(EvaluationSettings, {"model": "m", "judge": values, "prices": price})


def test_every_prediction_is_judged_once(server: FaultServer, tmp_path: Path) -> None:
    run = predicted(tmp_path / "run")
    lines: list[str] = []
    result = judge_run(run, settings(server), lines.append)
    assert [row.id for row in result.judgements] == [question.id for question in ASKED]
    for row in result.judgements:
        expected = grade(ITEM[row.id])
        assert (row.status, row.score, row.correct, row.reason) == (JUDGED, expected, expected >= 3, "seen")
    assert result.complete
    assert result.counts == {JUDGED: 20, UNREADABLE: 0, FAILED: 0, UNANSWERED: 0}
    assert result.record["protocol"].startswith("official/1/")
    assert result.record["reported_models"] == ["tiny-0613"]
    assert (result.record["scale"], result.record["verdict"], result.record["parsing"]) == ([0, 5], True, "strict")
    assert list(load_run(run.folder).judgements.values()) == result.judgements
    sent = server.stats()["counts"]["requests"]
    again = judge_run(run, settings(server))
    assert server.stats()["counts"]["requests"] == sent == 20
    assert again.judgements == result.judgements


def test_the_request_has_question_reference_and_a_cut_prediction(server: FaultServer, tmp_path: Path) -> None:
    freeze_questions(tmp_path, ASKED[:1])
    append_predictions(tmp_path, [Prediction(ASKED[0].id, "one two\nthree  four five")])
    judge_run(load_run(tmp_path), settings(server, max_words=4))
    text = server.stats()["bodies"][0]["body"]["messages"][-1]["content"]
    assert ASKED[0].question in text
    assert ASKED[0].reference in text
    assert ASKED[0].evidence not in text
    assert "\none two three four\n" in text
    assert "five" not in text


def test_words_are_joined_only_where_something_is_cut() -> None:
    assert cut_words("a  b\nc", 3) == "a  b\nc"
    assert cut_words("a  b\nc", 2) == "a b"
    assert cut_words("a  b\nc", None) == "a  b\nc"


def test_the_caption_judge_takes_three_for_right(server: FaultServer, tmp_path: Path) -> None:
    result = judge_run(predicted(tmp_path), settings(server, protocol="caption"))
    assert {row.score: row.correct for row in result.judgements} == {1: False, 2: False, 3: True, 4: True, 5: True}
    text = server.stats()["bodies"][0]["body"]["messages"][-1]["content"]
    assert "A caption of" in text


def test_another_threshold_and_a_scale_of_ones_own(server: FaultServer, tmp_path: Path) -> None:
    result = judge_run(predicted(tmp_path), settings(server, protocol="caption", correct_from=4.0))
    assert {row.score for row in result.judgements if row.correct} == {4, 5}


def test_unreadable_failed_and_unanswered_are_told_apart(server: FaultServer, tmp_path: Path) -> None:
    """A judge that fails for good on some rows: the run ends, says so, and is not complete."""
    server.control(items={"1": "prose", "2": "500", "3": "bad", "4": "refusal", "5": "length", "6": "schema"})
    run = predicted(tmp_path / "run", without=(ASKED[0].id,))
    lines: list[str] = []
    result = judge_run(run, settings(server), lines.append)
    found = {ITEM[row.id]: row for row in result.judgements}
    assert [found[n].status for n in range(8)] == [
        UNANSWERED, UNREADABLE, FAILED, FAILED, UNREADABLE, UNREADABLE, UNREADABLE, JUDGED,
    ]  # fmt: skip
    assert all(row.correct is None and row.score is None for row in result.judgements if row.status != JUDGED)
    assert found[0].reason == "the clip is broken"
    assert "SCORE" in found[1].reason
    assert found[1].raw.startswith("I would say")
    assert "broken" in found[2].reason
    assert "context length" in found[3].reason
    assert not result.complete
    assert any(line.startswith("warning: the judge failed on 2 questions") for line in lines)
    server.control(items={})
    repaired = judge_run(run, settings(server))
    assert [row.status for row in repaired.judgements].count(FAILED) == 1, "a rejected request is not sent again"
    assert server.stats()["scored"]["7"] == 1


def test_the_original_reads_the_same_replies_for_nothing(server: FaultServer, tmp_path: Path) -> None:
    reply = "{'pred': 'yes', 'score': 4.8}"
    server.control(items={"0": "say", "1": "empty"}, text=reply)
    run = predicted(tmp_path)
    strict = judge_run(run, settings(server))
    assert [row.status for row in strict.judgements[:2]] == [UNREADABLE, UNREADABLE]
    sent = server.stats()["counts"]["requests"]
    original = judge_run(run, settings(server, parsing="original"))
    assert server.stats()["counts"]["requests"] == sent
    assert (original.judgements[0].score, original.judgements[0].correct) == (4, True)
    assert original.judgements[1].status == UNREADABLE
    assert original.record["parsing"] == "original"


def test_the_original_does_not_ask_twice_for_what_it_can_read(server: FaultServer, tmp_path: Path) -> None:
    server.control(items={"0": "prose", "1": "length"})
    run = predicted(tmp_path, ASKED[:2])
    result = judge_run(run, settings(server, protocol="caption", parsing="original"))
    assert server.stats()["counts"]["requests"] == 2
    assert result.judgements[0].score == 4.5, "4 and 5 of '4 out of 5' are tied"
    assert result.judgements[1].score == grade(1), "a reply that was cut at the token limit counts, as there"


def test_several_draws_are_joined(server: FaultServer, tmp_path: Path) -> None:
    run = predicted(tmp_path, ASKED[:1])
    replies = ['{"verdict": "yes", "score": 4}', '{"verdict": "no", "score": 1}', '{"verdict": "yes", "score": 5}']
    for number, text in enumerate(replies, 1):
        server.control(items={"0": "say"}, text=text)
        result = judge_run(run, settings(server, k=number))
    assert result.judgements[0].correct is True
    assert result.judgements[0].score == pytest.approx(10 / 3)
    tied = judge_run(run, settings(server, k=2))
    assert (tied.judgements[0].status, tied.judgements[0].correct) == (UNREADABLE, None)
    assert "1 of 2 judgements say yes" in tied.judgements[0].reason


WORKER = """
import sys
from hound_plugin.evaluation.judging import judge_run
from hound_plugin.evaluation.run_folder import load_run
from hound_plugin.evaluation.settings import EvaluationSettings
from hound_plugin.validation import build
judge = {"backend": "openai", "model": "tiny", "base_url": sys.argv[2], "protocol": "official", "concurrency": 4,
         "answer_format": "json"}
judge_run(load_run(sys.argv[1]), build(EvaluationSettings, {"model": "m", "judge": judge}))
"""


def test_sigkill_repeats_only_what_was_in_flight(server: FaultServer, tmp_path: Path) -> None:
    asked = questions({"msvd": 60}, per_clip=2)
    run = predicted(tmp_path, asked)
    server.control(latency=0.02)
    kills = 0
    for _ in range(2):
        before = server.stats()["counts"].get("requests", 0)
        worker = subprocess.Popen(
            [sys.executable, "-c", WORKER, tmp_path, server.base_url], cwd=REPO, env={**os.environ}
        )
        while worker.poll() is None and server.stats()["counts"].get("requests", 0) < before + 20:
            time.sleep(0.02)
        kills += worker.poll() is None
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    assert kills == 2
    result = judge_run(run, settings(server))
    stats = server.stats()
    assert result.counts[JUDGED] == 120
    assert stats["counts"]["requests"] <= 120 + 2 * 4
    assert len(stats["scored"]) == 120


def test_a_judge_without_any_score_stops_the_run_and_what_is_there_is_written(
    server: FaultServer, tmp_path: Path
) -> None:
    server.control(kinds=["prose"], share=1.0)
    run = predicted(tmp_path)
    with pytest.raises(JudgeError, match=r"first 3 requests gave nothing usable.*\n.*VERDICT|verdict"):
        judge_run(run, settings(server, pilot=3, attempts=1))
    written = load_run(tmp_path).judgements
    assert len(written) == 20
    assert {row.status for row in written.values()} == {UNREADABLE, FAILED}


def test_max_cost_stops_it_and_counts_what_predicting_cost(server: FaultServer, tmp_path: Path) -> None:
    run = predicted(tmp_path)
    prices = {"tiny": {"input": 1000.0, "output": 1000.0}}
    values = settings(server, prices=prices, concurrency=1).changed(max_cost=3.0)
    result = judge_run(run, values, spent=1.0)
    assert not result.complete
    assert result.usage is not None
    assert "max_cost" in result.usage["stopped"]
    assert 0 < result.usage["cost"] <= 2.0
    assert result.counts[FAILED] == 20 - result.counts[JUDGED]


def test_a_dry_run_prints_prompts_and_cost_and_sends_nothing(server: FaultServer, tmp_path: Path) -> None:
    """With predictions, without them, and offline."""
    prices = {"tiny": {"input": 1.0, "output": 4.0}}
    run = predicted(tmp_path / "one")
    freeze_questions(tmp_path / "two", ASKED)
    found = {}
    for name, folder in (("predicted", run.folder), ("planned", tmp_path / "two")):
        lines: list[str] = []
        found[name] = dry_run(load_run(folder), settings(server, prices=prices), lines.append)
        assert "Predicted answer:" in lines[0]
        assert lines[-1].startswith("cost: at most about")
        assert found[name]["requests"] == 20
        assert found[name]["cost"] == pytest.approx(
            (found[name]["prompt_tokens"] + 4 * found[name]["output_tokens"]) / 1e6
        )
    assert found["planned"]["prompt_tokens"] == pytest.approx(found["predicted"]["prompt_tokens"], rel=0.1)
    assert dry_run(run, settings(), lines.append)["cost"] == 0.0
    assert server.stats()["counts"] == {}
    judge_run(run, settings(server))
    assert dry_run(run, settings(server), lines.append)["requests"] == 0


def test_frames_are_sent_to_a_judge_that_sees(server: FaultServer, tmp_path: Path) -> None:
    clip = REPO / "tests" / "golden" / "frames"
    folder = sorted(path for path in clip.iterdir() if path.is_dir())[0]
    asked = [Question("q", "s", "c", (str(folder),), "<video>\nWhat?", "What?", "A ring.")]
    run = predicted(tmp_path, asked)
    values = settings(server, backend="vision", protocol="vision", num_frames=2, frame_size=32)
    assert judge_run(run, values).counts[JUDGED] == 1
    content = server.stats()["bodies"][0]["body"]["messages"][-1]["content"]
    assert [part["type"] for part in content] == ["image_url", "image_url", "text"]


def test_offline_measures_decide_without_a_judge(tmp_path: Path) -> None:
    asked = [
        Question("a", "s", "c1", (), "What?", "What?", "A cat."),
        Question("b", "s", "c1", (), "What?", "What?", "dog", accepted=("A hound.",)),
        Question("c", "s", "c2", (), "What?", "What?", "bird"),
        Question("d", "s", "c2", (), "What?", "What?", "bird"),
    ]
    freeze_questions(tmp_path, asked)
    texts = {"a": "a cat", "b": "a hound", "c": "It is a bird.", "d": None}
    append_predictions(tmp_path, [Prediction(name, text, "" if text else "broken") for name, text in texts.items()])
    run = load_run(tmp_path)
    exact = judge_run(run, settings(metric="exact_match"))
    assert [row.correct for row in exact.judgements] == [True, True, False, None]
    assert exact.judgements[3].status == UNANSWERED
    assert exact.judgements[2].scores["contains"] == 1
    assert exact.usage is None
    assert exact.complete
    assert [row.correct for row in judge_run(run, settings(metric="contains")).judgements] == [True, True, True, None]
    graded = judge_run(run, settings(metric="token_f1")).judgements
    assert [(row.correct, row.score) for row in graded] == [(None, 1), (None, 1), (None, 0.4), (None, None)]
    assert not (tmp_path / "ledger.sqlite").exists()


@pytest.mark.parametrize(
    ("options", "answer", "right", "wrong"),
    [
        (["red", "blue"], "B", ["B", "b.", "(B)", "blue", "Blue.", "B. blue", "B) blue"], ["A", "red", "A. blue", ""]),
        (["a ball", "a cat", "no one"], 2, ["C", "no one", "C: no one"], ["2", "no", "one", "I see no one"]),
        ({"1": "left", "2": "right"}, "right", ["2", "right", "2) right"], ["1", "left"]),
        (["yes", "no"], "no", ["B", "no"], ["A", "yes"]),
        (["C", "D"], "B", ["B", "B. D"], ["D", "C", "A"]),  # `D` might be a fourth choice
        ({"1": "3", "2": "1"}, "2. 1", ["2. 1", "2"], ["1", "3"]),  # `1` is another choice's number
    ],
)
def test_a_choice_is_right_by_its_letter_or_its_text(
    options: Any, answer: Any, right: list[str], wrong: list[str], tmp_path: Path
) -> None:
    row = {"id": "0", "question": "Which?", "options": options, "answer": answer}
    (read,) = read_questions(write_rows_of(tmp_path, [row]), None)
    texts = [*right, *wrong]
    asked = [
        Question(str(number), "s", f"c{number}", (), read.prompt, read.text, read.reference, accepted=read.accepted)
        for number in range(len(texts))
    ]
    freeze_questions(tmp_path / "run", asked)
    append_predictions(tmp_path / "run", [Prediction(str(number), text) for number, text in enumerate(texts)])
    judged = judge_run(load_run(tmp_path / "run"), settings(metric="exact_match")).judgements
    assert [text for text, row in zip(texts, judged, strict=True) if row.correct] == right


def test_a_letter_is_not_a_word_of_an_answer(tmp_path: Path) -> None:
    asked = [Question(str(n), "s", f"c{n}", (), "?", "?", "A. ball", accepted=("A", "ball")) for n in range(3)]
    freeze_questions(tmp_path, asked)
    append_predictions(tmp_path, [Prediction(str(n), text) for n, text in enumerate(["a dog", "A", "It is a ball."])])
    judged = judge_run(load_run(tmp_path), settings(metric="contains")).judgements
    assert [row.correct for row in judged] == [False, True, True]


@pytest.mark.parametrize(("given", "reference"), [("A", "A. red"), ("Blue", "B. blue"), ("It is blue.", "It is blue.")])
def test_a_reference_is_a_choice_as_an_answer_is(given: str, reference: str, tmp_path: Path) -> None:
    row = {"id": "0", "question": "Which?", "options": ["red", "blue"], "reference": given}
    assert read_questions(write_rows_of(tmp_path, [row]), None)[0].reference == reference


@pytest.mark.parametrize("field", ["answer", "reference"])
def test_a_number_that_may_mean_two_choices_is_refused(field: str, tmp_path: Path) -> None:
    row = {"id": "0", "question": "Which?\n1. red\n2. blue", "options": ["red", "blue"], field: 1}
    with pytest.raises(DataError, match="an answer that means one choice"):
        read_questions(write_rows_of(tmp_path, [row]), None)


def write_rows_of(folder: Path, rows: list[dict[str, Any]]) -> Path:
    write_rows(folder / "questions.jsonl", rows)
    (folder / "run").mkdir(exist_ok=True)
    return folder / "questions.jsonl"


def test_what_cannot_work_is_refused_before_any_request(server: FaultServer, tmp_path: Path) -> None:
    bare = [Question("a", "s", "c", (), "What?", "What?")]
    with pytest.raises(DataError, match=r"protocol official: expected a `reference` in every question; 1 of 1"):
        check_judging(bare, settings(server))
    with pytest.raises(DataError, match=r"expected a `caption` in every question"):
        check_judging(bare, settings(server, protocol="caption"))
    with pytest.raises(DataError, match="expected a clip or image"):
        check_judging(bare, settings(server, backend="vision", protocol="vision"))
    with pytest.raises(DataError, match="a reference with words"):
        check_judging([Question("a", "s", "c", (), "What?", "What?", "...")], settings())
    with pytest.raises(SettingsError, match="cannot do without"):
        check_judging(ASKED, settings(server, reference=False))
    with pytest.raises(SettingsError, match="k is 3, and it knows 1"):
        check_judging(ASKED, settings(server, parsing="original", k=3))
    with pytest.raises(SettingsError, match="backend lexical has no replies"):
        check_judging(ASKED, settings(parsing="original"))
    with pytest.raises(SettingsError, match="says itself what is right"):
        check_judging(ASKED, settings(server, correct_from=3.0))
    with pytest.raises(SettingsError, match="expected a number from 1 to 5; got 9"):
        check_judging(ASKED, settings(server, protocol="caption", correct_from=9.0))
    freeze_questions(tmp_path, ASKED)
    with pytest.raises(DataError, match="no predictions to judge"):
        judge_run(load_run(tmp_path), settings(server))
    assert server.stats()["counts"] == {}


def test_a_ledger_of_another_prompt_is_refused(server: FaultServer, tmp_path: Path) -> None:
    run = predicted(tmp_path)
    judge_run(run, settings(server))
    with pytest.raises(LedgerError, match="made with protocol official/1"):
        judge_run(run, settings(server, protocol="caption"))


def test_the_batch_api_judges_too(server: FaultServer, tmp_path: Path) -> None:
    server.control(script=["ok"] * 5 + ["bad"])
    result = judge_run(predicted(tmp_path), settings(server, backend="openai-batch", poll=0.01))
    assert result.counts == {JUDGED: 19, UNREADABLE: 0, FAILED: 1, UNANSWERED: 0}
    assert all(row.score == grade(ITEM[row.id]) for row in result.judgements if row.status == JUDGED)
    assert server.stats()["counts"]["batches"] == 1
