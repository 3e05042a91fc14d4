"""Predictions as other programs write them: each known form, and everything that may be wrong with a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hound_plugin.errors import DataError
from hound_plugin.evaluation.formats import plain, read_given
from hound_plugin.evaluation.items import Prediction, Question
from tests.evaluation.stand_ins import write_rows

TEXTS = {"a_0": "What moves?", "a_1": "Who is there?", "b_0": "What moves?"}


def question(id: str, text: str, clip: str, set: str = "msvd", prefix: str = "") -> Question:
    return Question(prefix + id, set, f"test/{set}/{clip}", (f"frames/{clip}",), f"<video>\n{text}", text, "right")


QUESTIONS = [question(id, text, f"v_{id[0]}") for id, text in TEXTS.items()]
TWO_SETS = [
    question(id, text, f"v_{id[0]}", name, f"{name}/") for name in ("msvd", "tgif") for id, text in TEXTS.items()
]


def of_the_original(id: str, said: str, path_key: str) -> dict[str, Any]:
    row = {"id": id, path_key: f"/mnt/frames/test/msvd/v_{id[0]}", "query": TEXTS[id], "answer": "right"}
    if path_key == "modal_path":
        row |= {"modal_type": "VIDEO", "video_decode_backend": "frames", "temperature": 0.0, "top_p": 0.9,
                "max_new_tokens": 1024}  # fmt: skip
    return {**row, "model_prediction": {"status": "success", "message": said}}


def of_its_own(id: str, said: str) -> dict[str, Any]:
    return {"id": id, "question": TEXTS[id], "answer": "right", "pred": said}


def of_chat_univi(id: str, said: str) -> dict[str, Any]:
    return {"video_name": f"v_{id[0]}", "prompt": TEXTS[id], "text": said, "answer_id": "x9", "model_id": "m",
            "answer": "right", "metadata": {}}  # fmt: skip


FORMS = {
    "LLaVA-Hound": lambda id, said: of_the_original(id, said, "modal_path"),
    "other models in its scripts": lambda id, said: of_the_original(id, said, "video_path"),
    "Video-ChatGPT, LLaMA-VID": of_its_own,
    "Chat-UniVi": of_chat_univi,
    "ours": lambda id, said: Prediction(id, said).to_row(),
    "plain": lambda id, said: {"id": id, "prediction": said},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("as_array", [False, True])
def test_every_form_is_read(form: str, as_array: bool, tmp_path: Path) -> None:
    values = [FORMS[form](id, f" It is {id}.\n") for id in ("b_0", "a_1", "a_0")]
    file = write_rows(tmp_path / "theirs.jsonl", values)
    if as_array:
        file.write_text(json.dumps(values, indent=1))
    found = read_given(str(file), QUESTIONS)
    assert {name: row.text for name, row in found.predictions.items()} == {id: f" It is {id}.\n" for id in TEXTS}
    assert found.remarks("f") == []


def test_a_failure_of_their_program_is_unanswered(tmp_path: Path) -> None:
    values = [of_the_original(id, "left", "video_path") for id in TEXTS]
    values[1]["model_prediction"] = {"status": "error", "message": "CUDA out of memory"}
    found = read_given(str(write_rows(tmp_path / "f.jsonl", values)), QUESTIONS)
    assert found.predictions["a_1"] == Prediction("a_1", None, "its program says: CUDA out of memory")


def test_missing_surplus_and_repeated_rows_are_counted(tmp_path: Path) -> None:
    values = [of_its_own("a_0", "one"), of_its_own("a_0", "one"), {"id": "z_9", "pred": "what", "question": "Who?"}]
    found = read_given(str(write_rows(tmp_path / "f.jsonl", values)), QUESTIONS)
    assert [row.text for row in found.predictions.values()] == ["one", None, None]
    assert "no row" in found.predictions["b_0"].error
    first, second, third = found.remarks("f.jsonl")
    assert "1 of 3 rows are about no question of the suite" in first
    assert "'z_9'" in first
    assert "1 rows repeat" in second
    assert third.startswith("warning: f.jsonl: 2 of 3 questions have no row and count as unanswered")


def test_one_file_for_each_set(tmp_path: Path) -> None:
    for name in ("msvd", "tgif"):
        values = [of_its_own(id, f"{name} {id}") for id in TEXTS]
        write_rows(tmp_path / name / "inference_test_official" / "vid.jsonl", values)
    found = read_given(str(tmp_path / "{set}" / "inference_test_official" / "vid.jsonl"), TWO_SETS)
    assert found.predictions["tgif/a_1"].text == "tgif a_1"
    assert found.predictions["msvd/a_1"].text == "msvd a_1"


@pytest.mark.parametrize(
    ("values", "questions", "message"),
    [
        ([of_its_own("a_0", "one"), of_its_own("a_0", "two")], QUESTIONS, "row 2: expected one prediction.*'two'"),
        ([{**of_its_own("a_0", "one"), "question": "Why?"}], QUESTIONS, "asks 'Why.', and in the suite 'What moves.'"),
        ([{"id": "a_0", "answer": "one"}], QUESTIONS, "row 1: expected `id` with `text`"),
        ([{"id": "a_0", "pred": 3}], QUESTIONS, "expected a text in `pred`; got 3"),
        ([{"id": "a_0", "text": None}], QUESTIONS, "expected a text in `text`; got None"),
        ([{"pred": "x"}], QUESTIONS, "expected `id`"),
        ([{"id": "a_0", "pred": "one", "prediction": "two"}], QUESTIONS, "one answer; got pred and prediction, which"),
        ([{"id": "a_0", "prediction": "one", "text": None}], QUESTIONS, "one answer; got prediction and text, which"),
        ([{"id": "a_0", "text": "one", "error": "out of memory"}], QUESTIONS, "both, 'one' and 'out of memory'"),
        ([{"id": "a_0", "pred": "", "error": "no clip"}], QUESTIONS, "an answer or an `error`; got both"),
        ([{"id": "a_0", "model_prediction": {"status": "?", "message": ""}}], QUESTIONS, "`success` or `error`"),
        ([of_its_own("a_0", "one")], TWO_SETS, "may be msvd/a_0, tgif/a_0.*`{set}` in its path"),
        ([{"id": "q", "pred": "x"}], QUESTIONS, "none of the 1 rows .* the first is 'q', while the suite has 'a_0'"),
        ([], QUESTIONS, "none of the 0 rows"),
    ],
)
def test_what_is_refused(values: list[dict[str, Any]], questions: list[Question], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_given(str(write_rows(tmp_path / "f.jsonl", values)), questions)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_given(str(tmp_path / "none.jsonl"), QUESTIONS)


def test_a_placeholder_or_spacing_does_not_make_another_question() -> None:
    assert plain("<video>\nWhat  moves?") == plain("What moves? ")


def test_clips_whose_names_begin_alike_are_told_apart(tmp_path: Path) -> None:
    """`v_1.left.mp4` is not `v_1.right.mp4`, though both begin with `v_1`."""
    text, names = "What moves?", ("v_1.left.mp4", "v_1.right.mp4", "v_1.mkv", "2024.05.01")
    suite = [question(str(number), text, name) for number, name in enumerate(names)]
    said = [{"video_name": name.removesuffix(".mp4"), "prompt": text, "text": name} for name in reversed(names)]
    file = write_rows(tmp_path / "theirs.jsonl", said)
    assert [read_given(str(file), suite).predictions[str(number)].text for number in range(4)] == list(names)
    other = write_rows(tmp_path / "other.jsonl", [{"video_name": "v_1.middle", "prompt": text, "text": "x"}])
    with pytest.raises(DataError, match="none of the 1 rows"):
        read_given(str(other), suite)


@pytest.mark.parametrize("key", ["modal_path", "video_path", "video_name", "video"])
@pytest.mark.parametrize("name", ["v_b", "/elsewhere/v_b.mp4", "v_a.left.mp4", "v_"])
def test_an_answer_about_another_clip_is_refused(key: str, name: str, tmp_path: Path) -> None:
    """`What moves?` is asked about several clips: the text alone does not tell whether a file fits the suite."""
    values = {**of_the_original("a_0", "one", key), key: name}
    if key in ("video_name", "video"):
        values = {"id": "a_0", "question": TEXTS["a_0"], key: name, "pred": "one"}
    with pytest.raises(DataError, match=f"row 1: 'a_0' is about '{name}', and in the suite about 'test/msvd/v_a'"):
        read_given(str(write_rows(tmp_path / "f.jsonl", [values])), QUESTIONS)


@pytest.mark.parametrize("name", ["v_a", "/data/v_a/", "clips/v_a.mkv", "v_a.mp4#t=1,2"])
def test_a_clip_may_be_in_another_folder_and_form(name: str, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "f.jsonl", [{"id": "a_0", "video": name, "pred": "one"}])
    assert read_given(str(file), QUESTIONS).predictions["a_0"].text == "one"


@pytest.mark.parametrize(("finish", "is_cut"), [("length", True), ("stop", False), ("", False), (None, False)])
def test_an_answer_that_was_cut_stays_so(finish: str | None, is_cut: bool, tmp_path: Path) -> None:
    values: list[dict[str, Any]] = [{"id": id, "text": "It goes", "finish": finish} for id in TEXTS]
    values[0].pop("finish")
    found = read_given(str(write_rows(tmp_path / "predictions.jsonl", values)), QUESTIONS).predictions
    assert [found[id].is_cut for id in TEXTS] == [False, is_cut, is_cut]
    write_rows(tmp_path / "predictions.jsonl", [{**values[1], "finish": 7}])
    with pytest.raises(DataError, match="expected a text in `finish`; got 7"):
        read_given(str(tmp_path / "predictions.jsonl"), QUESTIONS)


@pytest.mark.parametrize(
    ("named", "is_other"),
    [("v.mp4#t=2,4", True), ("v.mp4#t=0,4", True), ("/d/v#t=5", True), ("v.mp4#t=1.0,4.0", False), ("d/v.mp4", False)],
)
def test_an_answer_about_another_part_of_the_clip_is_refused(named: str, is_other: bool, tmp_path: Path) -> None:
    asked = Question("q", "set", "v.mp4#t=1,4", ("d/v.mp4#t=1,4",), "<video>\nWhat?", "What?", "right")
    file = str(write_rows(tmp_path / "theirs.jsonl", [{"id": "q", "video": named, "pred": "A dog."}]))
    if is_other:
        with pytest.raises(DataError, match="is about"):
            read_given(file, [asked])
    else:
        assert read_given(file, [asked]).predictions["q"].text == "A dog."


@pytest.mark.parametrize("said", ["<think>Two.</think>One", "Two?</think>\nOne", "<think>One", "[THINK]Two[/THINK]One"])
def test_reasoning_in_an_answer_makes_it_none(said: str, tmp_path: Path) -> None:
    """As in a server's reply: a metric would read the reasoning as the answer."""
    values = [{"id": "a_0", "text": said, "finish": "stop"}, {"id": "a_1", "text": "I think (thinking) so"}]
    found = read_given(str(write_rows(tmp_path / "f.jsonl", values)), QUESTIONS)
    assert (found.predictions["a_0"].text, found.predictions["a_1"].text) == (None, "I think (thinking) so")
    assert "the model's reasoning in it: write what follows `</think>`" in found.predictions["a_0"].error
    assert any("1 of 2 answers have the model's reasoning in them" in line for line in found.remarks("f.jsonl"))


def test_tokens_that_leaked_into_a_file_are_not_part_of_an_answer(tmp_path: Path) -> None:
    """An exact match would fail on them."""
    values = [{"id": "a_0", "text": "One</s>"}, {"id": "a_1", "text": "Two <|im_end|>\n"}]
    found = read_given(str(write_rows(tmp_path / "f.jsonl", values)), QUESTIONS)
    assert (found.predictions["a_0"].text, found.predictions["a_1"].text) == ("One", "Two")
