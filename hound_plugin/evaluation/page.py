"""An evaluation as one page: each question with the frames that the model saw, its answer and the judgement."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hound_plugin.evaluation.facts import run_facts
from hound_plugin.evaluation.items import FAILED, JUDGED, UNANSWERED, UNREADABLE, Judgement, Prediction, Question
from hound_plugin.evaluation.run_folder import EvaluationRun
from hound_plugin.llm.redaction import cut
from hound_plugin.pages.charts import Chart, bar_chart
from hound_plugin.pages.content import Answer, Bound, Choice, Filter, Item, Strip, Table, Tone
from hound_plugin.pages.frames import FrameReader, read_many
from hound_plugin.pages.rendering import render_page
from hound_plugin.records.files import write_whole
from hound_plugin.records.tables import shown_value
from hound_plugin.records.words import words_of

PAGE = "index.html"
SHOWN = 200
FIRST_REPLIES = 5
CORRECT, WRONG, SCORED, OPEN = "correct", "wrong", "scored", "not judged"
ORDER = (WRONG, UNANSWERED, UNREADABLE, FAILED, OPEN, SCORED, CORRECT)
"""Verdicts from the worst on; within one, the lowest score comes first."""
TONES: Mapping[str, Tone] = {CORRECT: "good", WRONG: "bad", UNANSWERED: "bad", UNREADABLE: "bad", FAILED: "bad"}


def write_page(
    run: EvaluationRun,
    folder: Path,
    frames: FrameReader,
    *,
    most: int = SHOWN,
    tables: Sequence[Table] = (),
    smoke_test: str = "",
) -> Path:
    """Write ``index.html``, which needs no other file.

    Args:
        run: a run, complete or not.
        folder: where the page is written.
        frames: reads the frames of a clip.
        most: questions on the page; 0 for all. If there are more, each test set and verdict has its worst ones.
        tables: numbers of the report, shown above the questions.
        smoke_test: a warning that heads the page.

    Returns:
        The path of the page.
    """
    rows = sorted(run.questions, key=lambda question: badness(run, question))
    shown = rows if not most or len(rows) <= most else select(run, rows, most)
    clips = {question.clip: question.shown for question in shown}
    strips = read_many(clips, frames)
    items = [evaluation_item(run, question, strips[question.clip]) for question in shown]
    text = "All questions," if len(shown) == len(rows) else (
        f"{len(shown)} of {len(rows)} questions, of each set and verdict the worst ones,"
    )  # fmt: skip
    page = render_page(
        "report.html",
        title=f"Evaluation: {run.name} on {run.suite}",
        smoke_test=smoke_test,
        lead=[info] if (info := str(run.meta.get("suite_info", {}).get("title") or "")) else [],
        run=run_facts(run),
        raw=[("run.json", json.dumps(run.meta, ensure_ascii=False, indent=2, sort_keys=True))],
        charts=charts(run),
        tables=tables,
        missing=unread_replies(run),
        heading="Answers",
        shown=f"{text} worst first. {frames.legend}",
        unit="answers",
        filters=filters(items),
        items=items,
    )
    write_whole(folder / PAGE, page)
    return folder / PAGE


# --- which, and in which order


def verdict_of(prediction: Prediction | None, judgement: Judgement | None) -> str:
    """One word for what became of a question."""
    if judgement is None:
        return UNANSWERED if prediction is not None and prediction.text is None else OPEN
    if judgement.status != JUDGED:
        return judgement.status
    if judgement.correct is None:
        return SCORED
    return CORRECT if judgement.correct else WRONG


def badness(run: EvaluationRun, question: Question) -> tuple[int, float, str]:
    """Sorts the worst answers to the front; ties by id."""
    judgement = run.judgements.get(question.id)
    verdict = verdict_of(run.predictions.get(question.id), judgement)
    place = ORDER.index(verdict) if verdict in ORDER else 0
    return place, score_of(judgement) or 0.0, question.id


def score_of(judgement: Judgement | None) -> float | None:
    """The judge's score, or else the mean of the measures."""
    if judgement is None:
        return None
    if judgement.score is not None:
        return judgement.score
    return sum(judgement.scores.values()) / len(judgement.scores) if judgement.scores else None


def select(run: EvaluationRun, rows: Sequence[Question], most: int) -> list[Question]:
    """At most this many, by turns from each test set and verdict, in the order of ``rows``."""
    groups: dict[tuple[str, str], list[Question]] = {}
    for question in rows:
        verdict = verdict_of(run.predictions.get(question.id), run.judgements.get(question.id))
        groups.setdefault((question.set, verdict), []).append(question)
    chosen: set[str] = set()
    turn = 0
    while len(chosen) < most and any(turn < len(group) for group in groups.values()):
        for group in groups.values():
            if turn < len(group) and len(chosen) < most:
                chosen.add(group[turn].id)
        turn += 1
    return [question for question in rows if question.id in chosen]


# --- parts


def evaluation_item(run: EvaluationRun, question: Question, strip: Strip) -> Item:
    """One question with its answer and judgement."""
    prediction, judgement = run.predictions.get(question.id), run.judgements.get(question.id)
    verdict = verdict_of(prediction, judgement)
    answer = _answer(prediction, judgement, verdict)
    values: dict[str, str | float] = {"set": question.set, "verdict": verdict}
    if answer.score is not None:
        values["score"] = answer.score
    if answer.text is not None:
        values["words"] = len(words_of(answer.text))
    reference = "; ".join(dict.fromkeys((question.reference, *question.accepted))) if question.reference else ""
    texts = (("reference", reference), ("caption", question.evidence))
    return Item(
        question.id, question.clip, strip, question.question, texts, (answer,), (("set", question.set),), values
    )


def _answer(prediction: Prediction | None, judgement: Judgement | None, verdict: str) -> Answer:
    text, note = (None, "not answered yet") if prediction is None else (prediction.text, prediction.error)
    if prediction is not None and prediction.is_cut:
        note = "cut at the limit of tokens"
    tone = TONES.get(verdict, "plain")
    if judgement is None:
        return Answer("answer", text, verdict, tone=tone, note=note)
    measures = ", ".join(f"{name.replace('_', ' ')} {shown_value(value)}" for name, value in judgement.scores.items())
    return Answer(
        "answer",
        text,
        verdict,
        judgement.score,
        tone,
        reasons=(judgement.reason,) if judgement.reason and judgement.reason != note else (),
        raw=(("the judge's reply", cut(judgement.raw)),) if judgement.raw else (),
        note=". ".join(part for part in (note, measures) if part),
    )


def filters(items: Sequence[Item]) -> list[Filter]:
    """Filters that fit these items, verdicts from the worst on."""
    verdicts = {str(item.values["verdict"]) for item in items}
    chosen: list[Filter] = [
        Choice("set", "set", tuple(sorted({str(item.values["set"]) for item in items}))),
        Choice("verdict", "verdict", tuple(name for name in ORDER if name in verdicts)),
    ]
    scores = [float(item.values["score"]) for item in items if "score" in item.values]
    if scores:
        chosen += [Bound("score", "score from", "from", min(scores)), Bound("score", "score to", "to", max(scores))]
    words = [float(item.values["words"]) for item in items if "words" in item.values]
    return [*chosen, Bound("words", "words at most", "to", max(words, default=0.0), 10)]


def charts(run: EvaluationRun) -> list[Chart]:
    """Verdicts by test set, and scores."""
    sets = list(dict.fromkeys(question.set for question in run.questions))
    counts = Counter(
        (question.set, verdict_of(run.predictions.get(question.id), run.judgements.get(question.id)))
        for question in run.questions
    )
    groups: list[tuple[str, str, list[int]]] = []
    for name, tone, verdicts in (
        ("correct", "good", (CORRECT, SCORED)),
        ("wrong", "bad", (WRONG,)),
        ("no verdict", "plain", (UNANSWERED, UNREADABLE, FAILED, OPEN)),
    ):
        groups.append((name, tone, [sum(counts[one, verdict] for verdict in verdicts) for one in sets]))
    if any(verdict == SCORED for _, verdict in counts):
        groups[0] = ("scored", *groups[0][1:])
    groups = [group for group in groups if any(group[2])]
    drawn = [bar_chart("Verdicts by set", sets, groups, "set", "questions")] if groups else []
    scores = Counter(round(row.score) for row in run.judgements.values() if row.score is not None)
    if scores:
        scale = (run.meta.get("judge") or {}).get("scale") or (min(scores), max(scores))
        labels = list(range(int(min(scale[0], *scores)), int(max(scale[1], *scores)) + 1))
        bars = [("", "plain", [scores[label] for label in labels])]
        drawn.append(bar_chart("Scores", [str(label) for label in labels], bars, "score, rounded", "answers"))
    return drawn


def unread_replies(run: EvaluationRun) -> dict[str, Any]:
    """The first replies without a verdict, as they came."""
    lacking = [row for row in run.judgements.values() if row.status in (UNREADABLE, FAILED)]
    rows = [
        {
            "id": row.id,
            "why": f"{row.status}: {row.reason}" if row.reason else row.status,
            "answer": (answer.text or "") if (answer := run.predictions.get(row.id)) else "",
            "raw": cut(row.raw),
        }
        for row in lacking[:FIRST_REPLIES]
    ]
    note = f"The first {len(rows)} of {len(lacking)}: the answer, and the judge's reply as it came."
    return {"title": "Answers without a verdict", "note": note, "rows": rows}
