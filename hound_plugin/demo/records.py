"""Records of the demo: conversations, preference pairs and held-out questions, in the formats of LLaVA-Hound."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hound_plugin.demo.clips import Scene
from hound_plugin.demo.questions import TIME_KINDS, Question, ask, caption, topics

Record = dict[str, Any]


@dataclass(frozen=True)
class Item:
    """A scene and the file that shows it; ``file`` is relative to the media folder."""

    id: str
    file: str
    scene: Scene

    @property
    def medium(self) -> str:
        """``image`` or ``video``: the key of the record that names the file."""
        return "image" if self.scene.family == "image" else "video"

    def prompt(self, question: str) -> str:
        """A question with the placeholder in front: ``"<video>\\n..."``."""
        return f"<{self.medium}>\n{question}"


def sft_record(item: Item, turns: Sequence[tuple[str, str]], suffix: str = "") -> Record:
    """One conversation of ``(question, answer)`` turns; the placeholder is in the first question."""
    messages = []
    for number, (question, answer) in enumerate(turns):
        messages.append({"from": "human", "value": question if number else item.prompt(question)})
        messages.append({"from": "gpt", "value": answer})
    return {"id": item.id + suffix, item.medium: item.file, "conversations": messages}


def held_out_questions(items: Iterable[Item]) -> list[tuple[Item, Question]]:
    """Two questions on each item, phrasings in turn.

    One on what needs time, if the scene has it, and one on the rest in turn; so every topic of a family is asked
    equally often, to within one.
    """
    asked: list[tuple[Item, Question]] = []
    seen: dict[str, int] = {}
    for item in items:
        family = item.scene.family
        number = seen[family] = seen.get(family, -1) + 1
        names = [topic for topic in topics(item.scene) if topic != "caption"]
        if family == "order":
            picked = [names[number % 4], names[(number + 2) % 4]]
        elif family == "motion":
            picked = ["motion", names[1:][number % 2]]
        else:
            picked = [names[number % 3], names[(number + 1) % 3]]
        for place, topic in enumerate(dict.fromkeys(picked)):
            asked.append((item, ask(item.scene, topic, number // 2 + place)))
    return asked


def question_record(item: Item, question: Question) -> Record:
    """A row of ``held_out_questions.jsonl``: what to ask and which answers are right."""
    return {
        "id": f"{item.id}-{question.topic.replace(' ', '-')}",
        item.medium: item.file,
        "prompt": item.prompt(question.text),
        "kind": question.kind,
        "topic": question.topic,
        "answer": question.answer,
        "accepted": list(question.accepted),
    }


def held_out_sft_records(asked: Iterable[tuple[Item, Question]], rng: np.random.Generator) -> list[Record]:
    """The held-out questions as one-turn conversations, both styles equally likely, for an evaluation loss."""
    return [
        sft_record(item, [(q.text, q.answer if rng.random() < 0.5 else q.sentence)], "-" + q.topic.replace(" ", "-"))
        for item, q in asked
    ]


RIGHT_SENTENCE, RIGHT_WORD, WRONG = 5, 3, 1
"""Scores of answers, as a judge would give them."""


def dpo_records(items: Iterable[Item], rng: np.random.Generator) -> list[Record]:
    """Preference pairs, one for each item, of two sorts in turn.

    ``style``: the right sentence is preferred to the right bare word. Supervised training showed both equally often,
    so its model is split here, and preference training has something to win.
    ``content``: the right sentence is preferred to the same sentence with a plausible wrong answer, such as the
    opposite direction or the other of the two things shown. This keeps preference training from buying style with
    wrong answers.

    Both chosen answers are right sentences, so neither sort works against the other. Questions on motion and order
    make up three quarters of the pairs where a scene has them.
    """
    records = []
    for number, item in enumerate(items):
        question = _pair_question(item.scene, rng)
        style = number % 2 == 0 and len(question.accepted) > 1
        rejected = question.answer if style else question.put(_tempting(question, rng))
        records.append(
            {
                "id": f"{item.id}-pair",
                item.medium: item.file,
                "prompt": item.prompt(question.text),
                "chosen": question.sentence,
                "rejected": rejected,
                "chosen_score": RIGHT_SENTENCE,
                "rejected_score": RIGHT_WORD if style else WRONG,
                "kind": question.kind,
            }
        )
    return records


def reward_records(items: Iterable[Item], rng: np.random.Generator) -> list[Record]:
    """Questions for ``hound reward``, one on each item, with a caption for the judge and the right sentence."""
    rows = []
    for item in items:
        question = _pair_question(item.scene, rng)
        rows.append(
            {
                "id": f"{item.id}-reward",
                item.medium: item.file,
                "prompt": item.prompt(question.text),
                "caption": caption(item.scene),
                "reference": question.sentence,
                "source": question.kind,
            }
        )
    return rows


def _tempting(question: Question, rng: np.random.Generator) -> str:
    """A wrong answer: the likeliest mistake about time, any other else (so that none is disliked for itself)."""
    if question.kind in (*TIME_KINDS, "caption"):
        return question.wrong[0]
    return question.wrong[int(rng.integers(len(question.wrong)))]


def _pair_question(scene: Scene, rng: np.random.Generator) -> Question:
    names = tuple(topic for topic in topics(scene) if topic != "caption")
    if scene.family == "motion" and rng.random() < 0.75:
        names = ("motion",)
    elif scene.family == "order" and rng.random() < 0.75:
        names = names[:4]
    return ask(scene, names[int(rng.integers(len(names)))], int(rng.integers(2)))
