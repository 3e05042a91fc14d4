"""Exact match by kind, intervals and the table."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hound_plugin.demo.scoring import ALL, TIME, Tally, is_right, normalise, score, sentence_share, table, wilson
from hound_plugin.errors import DataError, SettingsError


def question(name: str, kind: str, *accepted: str) -> dict[str, Any]:
    return {"id": name, "kind": kind, "accepted": list(accepted)}


QUESTIONS = [
    question("a", "order", "red", "The first colour is red."),
    question("b", "motion", "left", "It moves left."),
    question("c", "motion", "up", "It moves up."),
    question("d", "caption", "Two red rings."),
]


def test_normalise() -> None:
    assert normalise("  It  moves\nLEFT. ") == "it moves left"
    assert normalise("") == ""
    assert is_right("Left", ["left"])
    assert not is_right("left or right", ["left"])
    assert not is_right("", ["left"])


def test_score_by_kind_and_in_sum() -> None:
    tallies = score(QUESTIONS, {"a": "Red", "b": "It moves left.", "c": "", "d": "two red rings"})
    assert list(tallies) == ["motion", "order", "caption", TIME, ALL]
    assert tallies["motion"] == Tally(1, 2)
    assert tallies[TIME] == Tally(2, 3)
    assert tallies[ALL] == Tally(3, 4)
    assert tallies[ALL].accuracy == 0.75
    assert math.isnan(Tally(0, 0).accuracy)


def test_a_missing_prediction_is_an_error() -> None:
    with pytest.raises(DataError, match="each of 4 questions, 3 have none, the first is 'b'"):
        score(QUESTIONS, {"a": "red"})


def test_sentence_share_counts_only_questions_with_two_forms() -> None:
    assert sentence_share(QUESTIONS, {"a": "The colour is red.", "b": "left", "c": "up", "d": "x."}) == 1 / 3
    assert math.isnan(sentence_share(QUESTIONS[3:], {}))


def test_wilson() -> None:
    low, high = wilson(9, 10)
    assert low == pytest.approx(0.5958, abs=1e-4)  # R: binom::binom.wilson(9, 10)
    assert high == pytest.approx(0.9821, abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 5)[0] == 0.0
    assert wilson(5, 5)[1] == 1.0
    with pytest.raises(SettingsError, match="got 3 of 2"):
        wilson(3, 2)


def test_table() -> None:
    before, after = {"motion": Tally(1, 4), ALL: Tally(1, 4)}, {"motion": Tally(4, 4), "order": Tally(0, 2)}
    lines = table({"SFT": before, "DPO": after}).splitlines()
    assert lines[0].split() == ["kind", "n", "SFT", "DPO"]
    assert lines[1].split() == ["motion", "4", "25.0%", "(5-70)", "100.0%", "(51-100)"]
    assert lines[2].split() == ["all", "4", "25.0%", "(5-70)", "-"]
    assert lines[3].split()[:3] == ["order", "2", "-"]
