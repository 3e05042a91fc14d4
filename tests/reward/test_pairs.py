"""Policies, filters, ties and limits of pairs."""

from __future__ import annotations

from typing import Any

import pytest

from hound_plugin.judge.parsing import Scale
from hound_plugin.records.questions import Question
from hound_plugin.reward.pairs import Pair, make_pairs, pair_row, similarity
from hound_plugin.reward.settings import PairSettings

QUESTION = Question("q", "video", "a.mp4", "/m/a.mp4", "What?", "A caption.", "the good one", "s")
ANSWERS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta"]
PLAIN = PairSettings(near_duplicate=None, min_gap=0, max_pairs=99)


def pairs_of(scores: list[float | None], settings: PairSettings, seed: int = 0, **changes: Any) -> Any:
    candidates = {"q": {n: {"answer": ANSWERS[n], "duplicate_of": None} for n in range(len(scores))}}
    for number, row in changes.pop("rows", {}).items():
        candidates["q"][number].update(row)
    found = {("q", n): {"score": score} for n, score in enumerate(scores)}
    return make_pairs([QUESTION], candidates, found, settings, seed, **changes)


def ids(result: Any) -> set[tuple[Any, Any]]:
    return {(pair.chosen.candidate, pair.rejected.candidate) for pair in result.pairs}


SCORES = [5, 3, 3, 2, 1, None]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("threshold", {(0, 3), (0, 4), (1, 3), (1, 4), (2, 3), (2, 4)}),
        ("best-worst", {(0, 4)}),
        ("all", {(0, 1), (0, 2), (0, 3), (0, 4), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)}),
        ("margin", {(0, 1), (0, 2), (0, 3), (0, 4), (1, 4), (2, 4)}),
    ],
)
def test_policies(policy: Any, expected: set[tuple[int, int]]) -> None:
    assert ids(pairs_of(SCORES, PLAIN.changed(policy=policy))) == expected


@pytest.mark.parametrize("scores", [[13 / 3, 10 / 3], [7 / 3, 4 / 3], [4.7, 3.7], [8.3, 7.3]])
def test_scores_that_are_one_apart(scores: list[float | None]) -> None:
    """As fractions: in floating point some differ by a little less."""
    assert ids(pairs_of(scores, PLAIN.changed(policy="all", min_gap=1))) == {(0, 1)}
    assert ids(pairs_of(scores, PLAIN.changed(policy="margin", margin=1))) == {(0, 1)}


def test_a_missing_score_is_never_in_a_pair() -> None:
    for policy in ("threshold", "best-worst", "all", "margin"):
        found = pairs_of([None, 5, None, None], PLAIN.changed(policy=policy))
        assert not found.pairs
        assert sum(found.questions_dropped.values()) == 1


def test_the_largest_gap_comes_first_and_the_limit_holds() -> None:
    found = pairs_of(SCORES, PLAIN.changed(policy="all", max_pairs=2))
    assert (found.pairs[0].chosen.candidate, found.pairs[0].rejected.candidate) == (0, 4)
    assert len(found.pairs) == 2
    assert found.pairs_dropped["beyond max_pairs"] == 7


def test_ties_go_by_the_seed() -> None:
    seen = {frozenset(ids(pairs_of([5, 5, 1, 1], PLAIN.changed(max_pairs=1), seed))) for seed in range(30)}
    assert len(seen) == 4
    again = [ids(pairs_of([5, 5, 1, 1], PLAIN.changed(max_pairs=1), 7)) for _ in range(2)]
    assert again[0] == again[1]


def test_filters() -> None:
    long = {"rows": {0: {"answer": "one two three four five six seven eight"}}}
    found = pairs_of([5, 4, 1], PLAIN.changed(policy="all", max_length_ratio=3), **long)
    assert ids(found) == {(1, 2)}
    assert found.pairs_dropped["lengths too different"] == 2
    found = pairs_of([5, 4, 1], PLAIN.changed(policy="all", min_gap=2))
    assert ids(found) == {(0, 2), (1, 2)}
    assert found.pairs_dropped["gap below min_gap"] == 1
    twins = {"rows": {0: {"answer": "A dog runs fast."}, 1: {"answer": "a dog runs fast"}}}
    found = pairs_of([5, 1], PLAIN.changed(near_duplicate=0.9), **twins)
    assert found.pairs_dropped["near duplicates"] == 1
    assert found.questions_dropped["every pair filtered out"] == 1


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("红球。", "一个红色的球从左边滚到右边，然后停在蓝色的盒子旁边。"),
        ("แมว", "แมวสีดำตัวหนึ่งวิ่งข้ามถนนแล้วกระโดดขึ้นไปบนกำแพง"),
        ("赤い", "赤いボールが左から右へ転がり、青い箱の横で止まります。"),
        ("ឆ្មា", "ឆ្មាខ្មៅមួយរត់កាត់ផ្លូវហើយលោតឡើងលើជញ្ជាំង"),
    ],
)
def test_lengths_of_texts_without_spaces(short: str, long: str) -> None:
    rows = {"rows": {0: {"answer": long}, 1: {"answer": short}}}
    found = pairs_of([5, 1], PLAIN.changed(policy="all", max_length_ratio=3), **rows)
    assert found.pairs_dropped["lengths too different"] == 1
    alike = {"rows": {0: {"answer": long}, 1: {"answer": long[::-1]}}}
    assert pairs_of([5, 1], PLAIN.changed(policy="all", max_length_ratio=1.5), **alike).pairs


def test_duplicates_stand_once() -> None:
    twin = {"rows": {1: {"answer": "alpha", "duplicate_of": 0}}}
    assert ids(pairs_of([5, 5, 1], PLAIN, **twin)) == {(0, 2)}


def test_word_order_tells_answers_apart() -> None:
    assert similarity("red left of blue", "blue left of red") < 0.9
    assert similarity("It moves left.", "it moves LEFT") == 1


def test_excluded_by_hand() -> None:
    found = pairs_of([5, 1], PLAIN, excluded=frozenset({"q-0-1"}))
    assert not found.pairs
    assert found.pairs_dropped["dropped by hand"] == 1


def test_chosen_from_the_reference() -> None:
    found = pairs_of([5, 3, 2, 1], PLAIN.changed(chosen_from_reference=True))
    assert ids(found) == {("reference", 2), ("reference", 3)}
    row = pair_row(found.pairs[0], {"judge": "j"})
    assert row["chosen"] == "the good one"
    assert row["chosen_score"] is None, "nobody judged the reference"
    assert row["rejected_score"] == 1.0


@pytest.mark.parametrize(
    ("scale", "scores", "expected"),
    [
        (Scale(), [5, 4, 1], {("reference", 1), ("reference", 2)}),
        (Scale(1, 10), [10, 8, 1], {("reference", 1), ("reference", 2)}),
        (Scale(0, 3), [3, 2, 0], {("reference", 1), ("reference", 2)}),
        (Scale(0, 100), [99, 100, 5], {("reference", 0), ("reference", 2)}),
    ],
)
def test_a_reference_has_the_best_score_of_the_scale(
    scale: Scale, scores: list[float | None], expected: set[tuple[str, int]]
) -> None:
    found = pairs_of(scores, PLAIN.changed(policy="all", chosen_from_reference=True), scale=scale)
    assert ids(found) == expected
    assert [pair.gap for pair in found.pairs] == [scale.highest - pair.rejected.score for pair in found.pairs]
    widest = pairs_of(scores, PLAIN.changed(policy="best-worst", chosen_from_reference=True), scale=scale)
    assert ids(widest) == {("reference", 2)}
    near = pairs_of(scores, PLAIN.changed(policy="margin", margin=2, chosen_from_reference=True), scale=scale)
    assert ids(near) == {pair for pair in expected if scale.highest - (scores[pair[1]] or 0) >= 2}


def test_the_widest_gap_is_between_the_best_and_the_worst() -> None:
    """All of the best against all of the worst, before `max_pairs`; ``best-worst`` keeps one of them."""
    found = pairs_of([5, 5, 3, 1, 1], PLAIN.changed(policy="best-worst"))
    assert len(found.pairs) == 1
    assert found.pairs_dropped["beyond max_pairs"] == 3
    assert ids(found) <= {(0, 3), (0, 4), (1, 3), (1, 4)}


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        ([3, 3], "all answers scored alike"),
        ([2, 1], "no answer at or above the threshold"),
        ([5, 4], "no answer below the threshold"),
        ([5], "fewer than two different answers"),
        ([None], "no answer has a score"),
        ([], "no answers sampled"),
    ],
)
def test_why_a_question_has_no_pair(scores: list[float | None], reason: str) -> None:
    assert dict(pairs_of(scores, PLAIN).questions_dropped) == {reason: 1}


def test_the_row_that_the_host_reads() -> None:
    (pair,) = pairs_of([5, 1], PLAIN).pairs
    row = pair_row(pair, {"judge": "j", "protocol": "p", "sampler": "s"})
    assert row == {
        "id": "q-0-1", "video": "a.mp4", "prompt": "<video>\nWhat?", "chosen": "alpha", "rejected": "beta",
        "chosen_score": 5.0, "rejected_score": 1.0, "question_id": "q", "chosen_candidate": "0",
        "rejected_candidate": "1", "source": "s", "judge": "j", "protocol": "p", "sampler": "s",
    }  # fmt: skip
    assert isinstance(pair, Pair)
