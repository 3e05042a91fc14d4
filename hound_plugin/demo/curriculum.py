"""The order in which the demo's model learns: single questions on motion first, what comes last after what comes first.

A model that starts from random weights learns colours soon, and stays at chance for long on what needs time:

* The direction of a motion is learned in about 200 steps when nothing else is asked, and hardly ever in a mixture. The
  first of these lessons show shapes that do not cross the border of the frame: for them, where a shape is in the first
  frames is a good guess, which leads to the rest.
* Whoever knows the two colours of a clip is right half the time on which of them came first. Asked for the first and
  for the last in equal parts, a model stays there, since the gradients of the two questions cancel. Asked for the first
  alone it learns in about 100 steps, and for the last after that if the first is asked twice as often.
* A style of answer that nothing predicts is noise, so lessons are answered by sentences; both styles come at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hound_plugin.demo.clips import FRAMES, SIZE, Scene
from hound_plugin.demo.questions import ORDER_TOPICS, Question, ask, topics
from hound_plugin.demo.records import Item, Record, sft_record

FIRST = tuple(topic for topic in ORDER_TOPICS if topic.startswith("first"))
LAST = tuple(topic for topic in ORDER_TOPICS if topic.startswith("last"))
STAGES = (1600, 1600, 1200, 4000, 7200, 9000)
"""Records of each stage, see :func:`sft_records`."""
_INSIDE = 9  # pixels between the centre of a shape and the border, in the easiest lessons
_FIRST_SHARE, _LAST_SHARE = 0.32, 0.15  # of the stage that brings in what comes last
_TURNS = {2: 0.15, 3: 0.85}  # questions in a conversation -> probability

Plan = list[tuple[Item, list[tuple[str, str]]]]


def sft_records(items: Sequence[Item], rng: np.random.Generator, stages: Sequence[int] = STAGES) -> list[Record]:
    """Training conversations in the order in which they are to be seen (``disable_shuffling`` in the recipe).

    Args:
        items: the training clips.
        rng: draws clips, questions and styles.
        stages: number of records of each stage:

            1. one question on motion, about shapes that stay well within the frame;
            2. the same, about shapes whose centre does not cross the border;
            3. the same, about all moving shapes;
            4. two or three questions on any clip; of an order of events, only on what comes first;
            5. the same, and for one record in seven questions on what comes last;
            6. two or three questions on any clip, answered by sentences or, equally often, by bare words.
    """
    moving = [item for item in items if item.scene.family == "motion"]
    ordered = [item for item in items if item.scene.family == "order"]
    others = [item for item in items if item.scene.family != "order"]
    well_within = [item for item in moving if stays_inside(item.scene, _INSIDE)]
    within = [item for item in moving if stays_inside(item.scene, 0)]
    last = round(_LAST_SHARE * stages[4])
    first = round(_FIRST_SHARE * stages[4])
    course = _Course(rng)
    plan = [
        *course.lessons(well_within or moving, stages[0]),
        *course.lessons(within or moving, stages[1]),
        *course.lessons(moving, stages[2]),
        *course.talks(items, stages[3], order_topics=FIRST),
        *course.shuffled(
            [
                *course.talks(others, stages[4] - first - last),
                *course.talks(ordered, first, order_topics=FIRST),
                *course.talks(ordered, last, order_topics=LAST),
            ]
        ),
        *course.talks(items, stages[5], both_styles=True),
    ]
    return [sft_record(item, turns, f"-{number}") for number, (item, turns) in enumerate(plan)]


def stays_inside(scene: Scene, margin: float) -> bool:
    """Whether the centre of a moving shape stays ``margin`` pixels from the borders that it moves to or from."""
    shape = scene.shapes[0]
    ends = [
        place + step * time
        for place, step in ((shape.x, shape.dx), (shape.y, shape.dy))
        if step
        for time in (0, FRAMES - 1)
    ]
    return all(margin <= end <= SIZE - margin for end in ends)


class _Course:
    """Draws clips, questions and styles."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def lessons(self, items: Sequence[Item], number: int) -> Plan:
        """One question on motion for each of ``number`` clips, in rounds of all of them."""
        return [(item, [_sentence(self._ask(item, "motion"))]) for item in self._rounds(items, number)]

    def talks(
        self, items: Sequence[Item], number: int, order_topics: Sequence[str] = ORDER_TOPICS, both_styles: bool = False
    ) -> Plan:
        """``number`` conversations of two or three different questions; no captions, they need more training."""
        plan: Plan = []
        for item in self._rounds(items, number):
            names = [name for name in topics(item.scene) if name != "caption"]
            if item.scene.family == "order":
                names = list(order_topics)
            turns = int(self.rng.choice(list(_TURNS), p=list(_TURNS.values())))
            asked = [names[index] for index in self.rng.permutation(len(names))[:turns]]
            form: Callable[[Question], tuple[str, str]] = _sentence
            if both_styles and self.rng.random() < 0.5:
                form = _word
            plan.append((item, [form(self._ask(item, name)) for name in asked]))
        return plan

    def shuffled(self, plan: Plan) -> Plan:
        """The same in random order."""
        return [plan[index] for index in self.rng.permutation(len(plan))]

    def _ask(self, item: Item, topic: str) -> Question:
        return ask(item.scene, topic, int(self.rng.integers(2)))

    def _rounds(self, items: Sequence[Item], number: int) -> list[Item]:
        """``number`` items in shuffled rounds of all; none if there are no items."""
        if not items:
            return []
        rounds = [self.rng.permutation(len(items)) for _ in range(-(-number // len(items)))]
        places: list[Any] = list(np.concatenate(rounds)[:number]) if rounds else []
        return [items[int(place)] for place in places]


def _sentence(question: Question) -> tuple[str, str]:
    return question.text, question.sentence


def _word(question: Question) -> tuple[str, str]:
    return question.text, question.answer
