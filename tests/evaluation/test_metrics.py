"""Metrics without a judge, against hand-made values and rouge-score."""

from __future__ import annotations

import random

import pytest

from hound_plugin.evaluation.metrics import METRICS, contains, exact_match, measure, rouge_l, token_f1


@pytest.mark.parametrize(
    ("prediction", "reference", "exact", "inside"),
    [
        ("A cat.", "a  CAT", 1, 1),
        ("It is a cat, I think", "a cat", 0, 1),
        ("cat", "a cat", 0, 0),
        ("eyes", "yes", 0, 0),
        ("catalogue", "cat", 0, 0),
        ("two red rings", "red two", 0, 0),
        ("", "cat", 0, 0),
        ("Ölberg!", "ölberg", 1, 1),
        ("10 men", "10", 0, 1),
    ],
)
def test_exact_match_and_contains(prediction: str, reference: str, exact: int, inside: int) -> None:
    assert exact_match(prediction, reference) == exact
    assert contains(prediction, reference) == inside


def test_f1_and_rouge_by_hand() -> None:
    assert token_f1("the cat sat", "the cat") == pytest.approx(2 * 2 / 5)
    assert rouge_l("a b c d", "a c b d") == pytest.approx(3 / 4)
    assert rouge_l("Über die Brücke", "über  DIE brücke.") == 1.0  # rouge-score's own tokenizer sees no "ü"


def test_against_rouge_score_on_random_texts() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rouge1", "rougeL"])
    source = random.Random(0)
    words = ["red", "ring", "moves", "left", "to", "the", "box"]
    for _ in range(200):
        one, two = (" ".join(source.choices(words, k=source.randint(1, 9))) for _ in "ab")
        expected = scorer.score(two, one)
        assert token_f1(one, two) == pytest.approx(expected["rouge1"].fmeasure)
        assert rouge_l(one, two) == pytest.approx(expected["rougeL"].fmeasure)


def test_all_of_them_are_between_0_and_1_and_need_a_reference() -> None:
    values = measure("A red ring moves.", "a ring")
    assert set(values) == set(METRICS)
    assert all(0 <= value <= 1 for value in values.values())
    assert measure("anything", "") == measure("anything", " ... ") == {}
