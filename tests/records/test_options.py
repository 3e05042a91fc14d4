"""Answers that name a choice: which one is meant, and what leaves it open."""

from __future__ import annotations

from typing import Any

import pytest

from hound_plugin.records.parse import parse

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
        ("What leaves: 1. a tram 2. a bus 3. a ferry", "a bus", "B. a bus"),
        ("What leaves: 0. a tram 1. a bus 2. a ferry", 1, "B. a bus"),
        ("Is it a tram, or a bus, or a ferry? A person waits.", 1, "B. a bus"),
    ],
)
def test_labels_that_agree_are_taken(question: str, given: Any, expected: str) -> None:
    assert answer(THREE, given, question) == expected


def test_numbers_from_1_and_an_answer_from_0_are_refused() -> None:
    assert "means one choice" in problem(THREE, 1, "What leaves: 1. a tram 2. a bus 3. a ferry")
    assert "means one choice" in problem(["1. a tram", "2. a bus", "3. a ferry"], 2.0)
    assert "in the order of their letters" in problem(["B. a tram", "A. a bus"], "A")
