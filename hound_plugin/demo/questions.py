"""Questions about a scene, with their answers.

Every question has two right answers of the same meaning: a bare word ("left") and a sentence ("It moves left.").
Supervised training shows both equally often; the preference pairs then ask for the sentence. A caption has one form.

Within a family every answer is right equally often (see ``clips.draw_scenes``), so that the prior over answers is
worth no more than chance: 1/4 for colours, counts and directions, 1/3 for shapes, 1/2 for the order of two things
that are both known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hound_plugin.demo.clips import COLOURS, COUNTS, DIRECTIONS, SHAPES, Scene

Kind = Literal["colour", "shape", "count", "motion", "order", "caption"]
KINDS: tuple[Kind, ...] = ("colour", "shape", "count", "motion", "order", "caption")
TIME_KINDS: tuple[Kind, ...] = ("motion", "order")
"""Kinds whose answers need the order of the frames."""

NUMBERS: dict[int, str] = dict(zip(COUNTS, ("one", "two", "three", "four"), strict=True))

# kind -> phrasings; the order kind is keyed by what it asks for, and when
PHRASINGS: dict[str, tuple[str, ...]] = {
    "colour": ("What colour is shown?", "Which colour do you see?"),
    "shape": ("What shape is shown?", "Which shape do you see?"),
    "count": ("How many shapes are there?", "How many shapes do you see?"),
    "motion": ("Which way does it move?", "In which direction does it move?"),
    "first colour": ("What colour comes first?", "Which colour do you see first?"),
    "last colour": ("What colour comes last?", "Which colour do you see last?"),
    "first shape": ("What shape comes first?", "Which shape do you see first?"),
    "last shape": ("What shape comes last?", "Which shape do you see last?"),
    "caption": ("Describe what you see.",),
}
SENTENCES: dict[str, str] = {
    "colour": "The colour is {}.",
    "shape": "The shape is a {}.",
    "count": "The number is {}.",
    "motion": "It moves {}.",
    "first colour": "The first colour is {}.",
    "last colour": "The last colour is {}.",
    "first shape": "The first shape is a {}.",
    "last shape": "The last shape is a {}.",
    "caption": "{}",
}
ORDER_TOPICS: tuple[str, ...] = ("first colour", "last colour", "first shape", "last shape")


@dataclass(frozen=True)
class Question:
    """One question about one scene.

    ``answer`` is the bare word and ``sentence`` the full form (the same text for a caption); ``wrong`` are the other
    bare answers that would be plausible here, the most tempting first: for an order the other thing shown, for a
    motion the opposite direction.
    """

    kind: Kind
    topic: str
    text: str
    answer: str
    sentence: str
    wrong: tuple[str, ...]

    @property
    def accepted(self) -> tuple[str, ...]:
        """The right answers, without repetition."""
        return tuple(dict.fromkeys((self.answer, self.sentence)))

    def put(self, answer: str) -> str:
        """The sentence that gives ``answer``, right or wrong."""
        return SENTENCES[self.topic].format(answer)


def topics(scene: Scene) -> tuple[str, ...]:
    """What can be asked about a scene, the caption last."""
    if scene.family == "motion":
        return ("motion", "colour", "shape", "caption")
    if scene.family == "order":
        return (*ORDER_TOPICS, "caption")
    return ("colour", "shape", "count", "caption")


def ask(scene: Scene, topic: str, phrasing: int = 0) -> Question:
    """The question of that topic about a scene; ``phrasing`` counts modulo the number of phrasings.

    Raises:
        KeyError: the topic is not one of ``topics(scene)``.
    """
    if topic not in topics(scene):
        raise KeyError(f"a scene of family {scene.family!r} has the topics {topics(scene)}, not {topic!r}")
    answer, wrong = _answers(scene, topic)
    forms = PHRASINGS[topic]
    kind: Kind = "order" if topic in ORDER_TOPICS else topic  # type: ignore[assignment]
    text, sentence = forms[phrasing % len(forms)], SENTENCES[topic].format(answer)
    return Question(kind, topic, text, answer, sentence, wrong)


def caption(scene: Scene) -> str:
    """One sentence on the whole scene: ``"A red ring moves left."``"""
    one = [f"{shape.colour} {shape.shape}" for shape in scene.shapes]
    if scene.family == "motion":
        return f"A {one[0]} moves {scene.direction}."
    if scene.family == "order":
        return f"A {one[0]}, then a {one[1]}."
    ending = "" if len(one) == 1 else "es" if one[0].endswith("s") else "s"
    return f"{NUMBERS[len(one)].capitalize()} {one[0]}{ending}."


def _answers(scene: Scene, topic: str) -> tuple[str, tuple[str, ...]]:
    """The right answer and the wrong ones, the most tempting first."""
    first, last = scene.shapes[0], scene.shapes[-1]
    if topic == "caption":
        return caption(scene), _wrong_captions(scene)
    if topic == "motion":
        assert scene.direction is not None
        dx, dy = DIRECTIONS[scene.direction]
        opposite = next(name for name, step in DIRECTIONS.items() if step == (-dx, -dy))
        return scene.direction, _others(scene.direction, tuple(DIRECTIONS), opposite)
    if topic == "count":
        return NUMBERS[len(scene.shapes)], _others(NUMBERS[len(scene.shapes)], tuple(NUMBERS.values()))
    asked, other = (last, first) if topic.startswith("last") else (first, last)
    if topic.endswith("colour"):
        return asked.colour, _others(asked.colour, tuple(COLOURS), other.colour)
    return asked.shape, _others(asked.shape, SHAPES, other.shape)


def _others(right: str, names: tuple[str, ...], tempting: str | None = None) -> tuple[str, ...]:
    rest = tuple(name for name in names if name not in (right, tempting))
    return rest if tempting in (None, right) else (str(tempting), *rest)


def _wrong_captions(scene: Scene) -> tuple[str, ...]:
    """Captions of the same scene with one thing changed: its direction, its order or its colour."""
    text, shapes = caption(scene), scene.shapes
    if scene.family == "order":
        a, b = (f"{shape.colour} {shape.shape}" for shape in shapes)
        return (f"A {b}, then a {a}.",)
    if scene.family == "motion":
        _, wrong = _answers(scene, "motion")
        return tuple(text.replace(f"moves {scene.direction}", f"moves {name}") for name in wrong)
    return tuple(text.replace(shapes[0].colour, name) for name in _others(shapes[0].colour, tuple(COLOURS)))
