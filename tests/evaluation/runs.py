"""Run folders with known numbers, as the stages write them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hound_plugin.evaluation.items import (
    FAILED,
    JUDGED,
    UNANSWERED,
    UNREADABLE,
    Judgement,
    Prediction,
    Question,
)
from hound_plugin.evaluation.run_folder import (
    EvaluationRun,
    append_predictions,
    freeze_questions,
    load_run,
    write_judgements,
)

OFFICIAL = {
    "backend": "openai", "model": "tiny-judge", "protocol": "official/1/abc", "scale": [0, 5], "verdict": True,
    "parsing": "strict", "max_words": 256, "correct_from": None, "reported_models": ["tiny-judge-0613"],
}  # fmt: skip


def questions(sets: Mapping[str, int], per_clip: int = 2) -> list[Question]:
    """``sets``: name of a set -> number of clips."""
    return [
        Question(
            f"{name}/q{clip}_{number}", name, f"{name}/clip{clip}", (f"{name}/clip{clip}.mp4",),
            f"<video>\nWhat happens in {clip}, part {number}?", f"What happens in {clip}, part {number}?",
            f"A ring moves {clip}.", f"A caption of {clip}.",
        )
        for name, clips in sets.items()
        for clip in range(clips)
        for number in range(per_clip)
    ]  # fmt: skip


def random_judgement(question: Question, source: np.random.Generator, share: float) -> Judgement:
    """Right with that share; one in twenty unreadable, one in fifty failed or unanswered."""
    kind = source.random()
    if kind < 0.05:
        return Judgement(question.id, UNREADABLE, reason="it ends with neither", raw="I would say | yes? <b>4</b>")
    if kind < 0.07:
        return Judgement(question.id, FAILED, reason="rejected: too long")
    if kind < 0.09:
        return Judgement(question.id, UNANSWERED, reason="clip.mp4: the header says 10 s, the data ends at 5.4 s")
    correct = bool(source.random() < share)
    score = int(source.integers(3, 6)) if correct else int(source.integers(0, 3))
    raw = json.dumps({"reason": "So it is.", "verdict": "yes" if correct else "no", "score": score})
    return Judgement(
        question.id, JUDGED, correct, score, "So it is.", raw, {"exact_match": float(correct), "rouge_l": 0.5}
    )


def make_run(
    folder: Path,
    name: str = "dpo",
    suite: str = "official",
    asked: Sequence[Question] | None = None,
    judge: Mapping[str, Any] = OFFICIAL,
    share: float = 0.7,
    seed: int = 0,
    judged: Callable[[Question], Judgement] | None = None,
    answer: Callable[[Question], str] = lambda question: f"A ring moves, I think, in {question.clip}.",
) -> EvaluationRun:
    """A complete run in ``folder/name/suite``."""
    target = folder / name / suite
    target.mkdir(parents=True)
    asked = asked if asked is not None else questions({"msrvtt": 40, "msvd": 25, "tgif": 30})
    source = np.random.default_rng(seed)
    judgements = [judged(q) if judged else random_judgement(q, source, share) for q in asked]
    freeze_questions(target, asked)
    append_predictions(
        target,
        [
            Prediction(q.id, None, j.reason) if j.status == UNANSWERED else Prediction(q.id, answer(q))
            for q, j in zip(asked, judgements, strict=True)
        ],
    )
    write_judgements(target, judgements)
    meta = {
        "hound_plugin": "0.1.0",
        "model": f"models/{name}",
        "suite": suite,
        "judge": dict(judge),
        "settings": {"seed": 0},
    }
    (target / "run.json").write_text(json.dumps(meta))
    return load_run(target)
