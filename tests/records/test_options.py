"""Answers that name a choice: which one is meant, and what leaves it open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hound_plugin.records.bad_rows import RowReport
from hound_plugin.records.options import choice_of
from hound_plugin.records.parse import parse
from hound_plugin.records.questions import read_questions
from hound_plugin.records.record import Findings
from hound_plugin.records.write import to_row

THREE = ["a tram", "a bus", "a ferry"]


def answer(options: Any, given: Any, question: str = "What leaves?") -> str:
    record = parse({"id": "1", "video": "a.mp4", "question": question, "options": options, "answer": given}).record
    return "" if record is None else record.turns[-1].text


def problem(options: Any, given: Any, question: str = "What leaves?") -> str:
    parsed = parse({"id": "1", "video": "a.mp4", "question": question, "options": options, "answer": given})
    return "; ".join(map(str, parsed.problems))


@pytest.mark.parametrize(
    ("options", "given", "expected"),
    [
        (THREE, 2.0, "C. a ferry"),
        (THREE, 0.0, "A. a tram"),
        (THREE, [1.0], "B. a bus"),
        ({"7": "a tram", "8": "a bus"}, 8.0, "8. a bus"),
        (["2.5 m", "3 m"], "2.5 m", "A. 2.5 m"),
        (["2.5", "3.5"], 3.5, "B. 3.5"),
    ],
)
def test_a_float_that_is_whole_is_the_number(options: Any, given: Any, expected: str) -> None:
    assert answer(options, given) == expected


@pytest.mark.parametrize(
    ("options", "given"),
    [(THREE, 3.0), (THREE, -1.0), (THREE, 1.5), (THREE, "2.0"), (THREE, "-1"), (THREE, "1e0"), (THREE, True)],
)
def test_a_number_of_no_choice_is_refused(options: Any, given: Any) -> None:
    assert "expected" in problem(options, given)


@pytest.mark.parametrize("given", [("4", "2.0"), ("4", "1.0"), ("1.0", "2.0")])
def test_numbers_of_a_pair_are_refused_where_they_are_no_choice(given: tuple[str, str]) -> None:
    row = {"id": "1", "video": "a.mp4", "prompt": "Q?", "options": THREE, "chosen": given[0]}
    row["rejected"] = float(given[1])
    assert "options" in str(parse(row).problems[0])


@pytest.mark.parametrize(
    ("options", "given", "expected"),
    [
        (["No", "no.", "NO"], "no.", "B. no."),
        (["no.", "yes", "no"], "no", "C. no"),
        (["Dr.", "dr"], "Dr.", "A. Dr."),
        (THREE, "A Bus.", "B. a bus"),
        (THREE, "(c)", "C. a ferry"),
        (THREE, "c.", "C. a ferry"),
    ],
)
def test_the_exact_text_comes_first(options: Any, given: str, expected: str) -> None:
    assert answer(options, given) == expected


@pytest.mark.parametrize(("options", "given"), [(["no.", "no"], "No"), (["B:", "b"], "(B)"), (["1", "2", "0"], 1.0)])
def test_an_answer_that_may_mean_two_choices_is_refused(options: Any, given: Any) -> None:
    assert "an answer that means one choice" in problem(options, given)


@pytest.mark.parametrize(
    ("question", "options"),
    [
        ("What leaves?\n(A) a bus\n(B) a tram\n(C) a ferry", THREE),
        ("What leaves? a: a tram b: a ferry c: a bus", THREE),
        ("What leaves, A a ferry / B a bus / C a tram", THREE),
        ("What leaves? B. a tram C. a bus D. a ferry", THREE),
        ("What leaves? 2) a tram 1) a bus 3) a ferry", THREE),
        ("What leaves? A. a bus B. a tram", {"1": "a tram", "2": "a bus"}),
        ("What leaves? C. a bus D. a tram", {"C": "a tram", "D": "a bus"}),
    ],
)
def test_labels_that_the_question_gives_otherwise_are_refused(question: str, options: Any) -> None:
    assert "expected the labels that the question shows" in problem(options, "a bus", question)


def test_labels_of_a_conversation_are_compared_too() -> None:
    turns = [{"from": "human", "value": "<video>\nA. a bus B. a tram"}, {"from": "gpt", "value": "A"}]
    parsed = parse({"id": "1", "video": "a.mp4", "conversations": turns, "options": ["a tram", "a bus"]})
    assert "the labels that the question shows" in str(parsed.problems[0])


@pytest.mark.parametrize(
    ("question", "given", "expected"),
    [
        ("What leaves?\nA. a tram\nB. a bus\nC. a ferry", "B", "B. a bus"),
        ("What leaves? c) a ferry a) a tram b) a bus", "b", "B. a bus"),
        ("What leaves: 1. a tram 2. a bus 3. a ferry", "a bus", "2. a bus"),
        ("What leaves: 1. a tram 2. a bus 3. a ferry", "2. a bus", "2. a bus"),
        ("What leaves: 0. a tram 1. a bus 2. a ferry", 1, "1. a bus"),
        ("Is it a tram, or a bus, or a ferry? A person waits.", 1, "B. a bus"),
    ],
)
def test_labels_that_agree_are_taken(question: str, given: Any, expected: str) -> None:
    assert answer(THREE, given, question) == expected


def test_numbers_from_1_and_an_answer_from_0_are_refused() -> None:
    assert "means one choice" in problem(THREE, 1, "What leaves: 1. a tram 2. a bus 3. a ferry")
    assert "means one choice" in problem(["1. a tram", "2. a bus", "3. a ferry"], 2.0)
    assert "in the order of their letters" in problem(["B. a tram", "A. a bus"], "A")


@pytest.mark.parametrize(
    ("options", "given", "expected"),
    [
        (THREE, "(B) a bus", "B. a bus"),
        (THREE, "c) A ferry.", "C. a ferry"),
        (["(A) a tram", "(B) a bus"], "(A) a tram", "A. a tram"),
        (THREE, "B: a bus", "B. a bus"),
        (THREE, "B. a bus, since it is late", "B. a bus, since it is late"),
        (["A. Lincoln", "G. Washington"], "A. Lincoln", "A. A. Lincoln"),
    ],
)
def test_a_label_with_its_text_is_the_choice(options: Any, given: str, expected: str) -> None:
    assert answer(options, given) == expected


@pytest.mark.parametrize("given", ["A. a ferry", "(C) a bus", "b) A tram."])
def test_a_label_with_the_text_of_another_choice_is_refused(given: str) -> None:
    assert "means one choice" in problem(THREE, given)


def conversation(given: Any, *answers: str, **fields: Any) -> Any:
    turns = [{"from": "human", "value": "<video>\nWhat leaves?\nA. a tram\nB. a bus\nC. a ferry"}]
    turns += [{"from": "gpt", "value": text} for text in answers]
    row = {"id": "1", "video": "a.mp4", "conversations": turns, "options": THREE, "answer": given, **fields}
    return parse({name: value for name, value in row.items() if value is not None})


@pytest.mark.parametrize(
    ("given", "answers", "last"),
    [
        (2, (), "C. a ferry"), ("A", (), "A. a tram"), (1.0, (), "B. a bus"), ("a ferry", (), "C. a ferry"),
        (1, ("B",), "B"), ("(B)", ("a bus",), "a bus"), ("a bus", ("B. a bus",), "B. a bus"),
    ],
)  # fmt: skip
def test_an_answer_beside_a_conversation_names_a_choice(given: Any, answers: tuple[str, ...], last: str) -> None:
    assert conversation(given, *answers).record.turns[-1].text == last


@pytest.mark.parametrize(("given", "answers"), [(3, ()), ("D", ()), (0, ("B",)), ("C. a bus", ())])
def test_an_answer_beside_a_conversation_that_names_none_of_it_is_refused(given: Any, answers: tuple[str, ...]) -> None:
    assert conversation(given, *answers).problems


def test_references_and_accepted_answers_follow_the_labels_that_are_shown() -> None:
    row = {"id": "1", "video": "a.mp4", "question": "What leaves?\n1. a tram\n2. a bus\n3. a ferry", "options": THREE}
    assert "means one choice" in str(parse({**row, "reference": 2}).problems[0])
    assert "means one choice" in str(parse({**row, "accepted": ["a bus", 1]}).problems[0])
    plain = {**row, "question": "What leaves?"}
    record = parse({**plain, "reference": 0, "accepted": ["B", 2, "(A)", "some vehicle"]}).record
    assert record is not None
    assert (record.reference, record.accepted) == (
        "A. a tram", ("B. a bus", "C. a ferry", "A. a tram", "some vehicle"),
    )  # fmt: skip


@pytest.mark.parametrize(
    "given",
    [
        "Option B", "Answer: B", "answer: (b)", "Choice B.", "Correct option: B", "Answer - a bus", "**B**",
        "*B. a bus*", "[B]", "\\boxed{B}", "$\\boxed{\\text{B}}$", "<answer>B</answer>", '"a bus"', "Option (B): a bus",
    ],
)  # fmt: skip
def test_words_and_marks_around_a_choice(given: str) -> None:
    assert answer(THREE, given) == "B. a bus"


@pytest.mark.parametrize(
    ("options", "given", "expected"),
    [
        (["Option B", "Option A"], "Option B", "A. Option B"),
        (['"Go"', "Go"], '"Go"', 'A. "Go"'),
        (["A and B", "C"], "A and B", "A. A and B"),
        (THREE, "BAD", "BAD"),
        (THREE, "Optional", "Optional"),
        (THREE, "Answer: that depends", "Answer: that depends"),
        (THREE, "A or another one", "A or another one"),
        (THREE, "The answer is B.", "The answer is B."),
    ],
)
def test_texts_of_choices_and_sentences_stay(options: Any, given: str, expected: str) -> None:
    assert answer(options, given) == expected


@pytest.mark.parametrize("given", ["A,C", "A, C", "a / b", "A and C", "(A) (C)", "AC", "ABC", "Answer: A, C", "A;B;C"])
def test_several_choices_are_refused(given: str) -> None:
    assert "expected" in problem(THREE, given)
    parsed = parse({"id": "1", "video": "a.mp4", "question": "Q?", "options": THREE, "reference": given})
    assert "options (`reference`): expected" in str(parsed.problems[0])


@pytest.mark.parametrize("given", ["Option D", "Answer: 7", "**E**", "option: (z)"])
def test_a_label_of_no_choice_is_refused_with_words_around_it(given: str) -> None:
    assert "expected one of A, B, C" in problem(THREE, given)


@pytest.mark.parametrize(
    ("said", "question", "expected"),
    [
        ("C", "Q? A. x B. y C. z", "C. z"),
        ("y.", "Q?\n(A) x\n(B) y\n(C) z", "B. y"),
        ("2", "Q?\n1. x\n2. y\n3. z", "2. y"),
        ("The correct answer is (B).", "Q? A. x B. y C. z", "B. y"),
        ("So, the answer is option C", "Q? A. x B. y C. z", "C. z"),
        ("B. y, since it is late", "Q? A. x B. y C. z", "B. y"),
        ("**B**\nIt is late.", "Q? A. x B. y C. z", "B. y"),
        ("Option 3: z", "Q?\n1. x\n2. y\n3. z", "3. z"),
        ("None of them", "Q? A. x B. y C. z", "None of them"),
    ],
)
def test_an_answer_of_a_conversation_is_compared_as_a_choice(said: str, question: str, expected: str) -> None:
    findings = Findings()
    assert choice_of(said, question, ["x", "y", "z"], "answer", findings) == expected
    assert not findings.problems


@pytest.mark.parametrize("said", ["(B) z", "B. another one", "A, C", "The answer is D."])
def test_an_answer_of_a_conversation_that_leaves_the_choice_open_is_refused(said: str) -> None:
    findings = Findings()
    choice_of(said, "Q? A. x B. y C. z", ["x", "y", "z"], "answer", findings)
    assert [(problem.name, problem.field) for problem in findings.problems] == [("options", "answer")]


def test_a_suite_knows_the_choice_or_refuses(tmp_path: Path) -> None:
    said = ["The answer is B.", "(C) a thing on water", "Option B", "B. a bus, since it is late"]
    rows = [
        {"id": str(number), "question": "What leaves?", "options": THREE, "answer": given, "video": "a.mp4"}
        for number, given in enumerate(said)
    ]
    rows.append(
        {"id": "4", "video": "a.mp4", "question": "Q?", "options": THREE, "reference": "B", "accepted": ["option a"]}
    )
    file = tmp_path / "q.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = RowReport(str(file))
    found = read_questions(file, str(tmp_path), report=report, on_bad_rows="skip", max_bad_rows=1, keep_missing=True)
    assert [(question.reference, question.accepted) for question in found] == [
        ("The answer is B.", ("B. a bus", "B", "a bus")),
        ("B. a bus", ("B", "a bus")),
        ("B. a bus, since it is late", ("B. a bus", "B", "a bus")),
        ("B. a bus", ("A. a tram", "B", "a bus", "A", "a tram")),
    ]
    assert report.bad == 1
    assert "expected one of A, B, C, found '(C) a thing on water'" in report.table()


@pytest.mark.parametrize("options", [["A", "B"], ["A.", "(B)", "C)"], {"1": "1", "2": "2"}, ["A. ", "B. "]])
def test_labels_without_texts_are_refused(options: Any) -> None:
    """The texts are in the question, where nothing tells them from the rest."""
    assert "not labels alone" in problem(options, "A", "What leaves?\nA. a tram\nB. a bus")


@pytest.mark.parametrize("options", [["B", "C"], ["1", "2"], ["A", "no letter"], ["a", "b"]])
def test_texts_that_look_like_labels_are_texts(options: Any) -> None:
    assert parse({"id": "1", "video": "a.mp4", "question": "Which sign?", "options": options}).record is not None


@pytest.mark.parametrize(("options", "given"), [([1.0, 3.0], 1), (["2.50", "1.0", "7"], 1.0), ([4.0, 0.0, 9.0], 0)])
def test_a_number_that_is_a_choice_and_the_place_of_another_is_refused(options: Any, given: float) -> None:
    others = [number for number in range(len(options)) if float(options[number]) == given]
    expected = answer(options, given) if others == [given] else ""
    assert expected or "means one choice" in problem(options, given)


def test_a_number_that_is_a_choice_in_other_digits_is_that_choice() -> None:
    assert answer([10.0, 20.0, 30.0], 20) == "B. 20.0"
    assert answer(["0.50", "0.75"], 0.75) == "B. 0.75"
    assert answer(["0.50", "0.75"], 0.5) == "A. 0.50"


def test_answers_of_a_pair_have_the_labels_that_the_question_shows() -> None:
    row = {"id": "1", "video": "a.mp4", "prompt": "What leaves?\n1. a tram\n2. a bus\n3. a ferry", "options": THREE}
    record = parse({**row, "chosen": "a ferry", "rejected": "1. a tram"}).record
    assert record is not None
    assert (record.chosen, record.rejected) == ("3. a ferry", "1. a tram")


def test_a_choice_survives_being_written_and_read_again() -> None:
    row = {"id": "1", "video": "a.mp4", "prompt": "What leaves?", "options": {"1": "a tram", "2": "a bus"}}
    for fields in ({"answer": 2}, {"chosen": "2", "rejected": "a tram"}, {"reference": "(1)"}):
        record = parse({**row, **fields}).record
        assert record is not None
        assert parse(to_row(record)).record == record
