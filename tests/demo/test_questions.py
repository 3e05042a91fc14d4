"""Answers are right, plausible wrong ones are wrong, and nothing gives an answer away."""

from __future__ import annotations

import numpy as np
import pytest

from hound_plugin.demo.clips import FAMILIES, Family, Scene, Shape, draw_scenes
from hound_plugin.demo.questions import PHRASINGS, SENTENCES, ask, caption, topics

MOVE = Scene("motion", (Shape("red", "ring", 8, 8, 4, dx=-2),), direction="left")
ORDER = Scene("order", (Shape("red", "ring", 8, 8, 4, stop=5), Shape("blue", "square", 8, 8, 4, start=6)))
STILL = Scene("still", tuple(Shape("green", "cross", x, 8, 4) for x in (8, 24, 40)))


@pytest.mark.parametrize(
    ("scene", "topic", "answer", "sentence", "tempting"),
    [
        (MOVE, "motion", "left", "It moves left.", "right"),
        (MOVE, "colour", "red", "The colour is red.", None),
        (ORDER, "first colour", "red", "The first colour is red.", "blue"),
        (ORDER, "last colour", "blue", "The last colour is blue.", "red"),
        (ORDER, "first shape", "ring", "The first shape is a ring.", "square"),
        (ORDER, "last shape", "square", "The last shape is a square.", "ring"),
        (STILL, "count", "three", "The number is three.", None),
        (STILL, "shape", "cross", "The shape is a cross.", None),
        (STILL, "caption", "Three green crosses.", "Three green crosses.", None),
        (MOVE, "caption", "A red ring moves left.", "A red ring moves left.", "A red ring moves right."),
        (ORDER, "caption", "A red ring, then a blue square.", "A red ring, then a blue square.",
         "A blue square, then a red ring."),
    ],
)  # fmt: skip
def test_answers(scene: Scene, topic: str, answer: str, sentence: str, tempting: str | None) -> None:
    question = ask(scene, topic)
    assert (question.answer, question.sentence) == (answer, sentence)
    assert question.accepted == ((answer, sentence) if answer != sentence else (answer,))
    assert question.put(answer) == sentence
    assert tempting in (None, question.wrong[0])


@pytest.mark.parametrize("family", FAMILIES)
def test_wrong_answers_are_wrong_and_there_is_one(family: Family) -> None:
    for scene in draw_scenes(family, 72, np.random.default_rng(0)):
        for topic in topics(scene):
            question = ask(scene, topic)
            assert question.wrong
            assert question.answer not in question.wrong
            assert len(set(question.wrong)) == len(question.wrong)


def test_phrasings_count_round_and_are_distinct() -> None:
    assert ask(MOVE, "motion", 0) == ask(MOVE, "motion", 2) != ask(MOVE, "motion", 1)
    texts = [text for forms in PHRASINGS.values() for text in forms]
    assert len(set(texts)) == len(texts)
    assert PHRASINGS.keys() == SENTENCES.keys()


def test_a_topic_of_another_family_is_refused() -> None:
    with pytest.raises(KeyError, match=r"family 'motion' has the topics .* not 'count'"):
        ask(MOVE, "count")


def test_captions_tell_scenes_apart() -> None:
    drawn = [scene for family in FAMILIES[:3] for scene in draw_scenes(family, 48, np.random.default_rng(0))]
    assert len({caption(scene) for scene in drawn}) == len(drawn)
