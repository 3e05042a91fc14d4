"""The numbers of a run, set by set, from which every table and picture is made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hound_plugin.errors import DataError
from hound_plugin.evaluation.items import FAILED, JUDGED, UNANSWERED, UNREADABLE, Judgement, Question, count_statuses
from hound_plugin.evaluation.metrics import METRICS
from hound_plugin.evaluation.original import original_protocol, original_summary
from hound_plugin.evaluation.run_folder import EvaluationRun
from hound_plugin.evaluation.statistics import Estimate, accuracy, mean_score

ALL = "all"
NOT_JUDGED = "not judged yet"


@dataclass(frozen=True)
class SetSummary:
    """One test set, or all questions.

    Attributes:
        name: of the set, or ``ALL``.
        questions, clips: how many.
        statuses: questions by status of their judgement.
        accuracy: over questions with a verdict; None without any.
        accuracy_if_wrong: over all questions, those without a verdict counted as wrong; None without any verdict.
        score: mean over questions with a score.
        metrics: means of the offline measures over questions with a prediction.
        original: the original's aggregate and denominators, under ``parsing: original``.
        cut: predictions that were cut at the limit of tokens.
    """

    name: str
    questions: int
    clips: int
    statuses: Mapping[str, int]
    accuracy: Estimate | None
    accuracy_if_wrong: Estimate | None
    score: Estimate | None
    metrics: Mapping[str, Estimate]
    original: Mapping[str, Any] | None
    cut: int = 0


@dataclass(frozen=True)
class Summary:
    """A run in numbers.

    Attributes:
        sets: in the order of the questions.
        total: all questions.
        judge: as ``run.json`` has it.
        scale: lowest and highest score.
        reasons: why judgements are missing, each with how often: of unreadable, failed and unanswered questions.
    """

    sets: list[SetSummary]
    total: SetSummary
    judge: Mapping[str, Any]
    scale: tuple[float, float]
    reasons: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def rows(self) -> list[SetSummary]:
        """The sets, and all questions if there is more than one set."""
        return [*self.sets, self.total] if len(self.sets) > 1 else self.sets


def summarise(run: EvaluationRun) -> Summary:
    """Counts, accuracies and means of a run.

    Raises:
        DataError: it has no questions, or nothing is judged yet.
    """
    if not run.questions:
        raise DataError(f"{run.folder}: there are no questions to report on.")
    if not run.judgements:
        raise DataError(f"{run.folder}: there are no judgements to report on. Run `hound eval judge` first.")
    judge = judge_of(run)
    lowest, highest = judge.get("scale", (0, 5))
    judged = judgements_of(run)
    groups: dict[str, list[Question]] = {}
    for question in run.questions:
        groups.setdefault(question.set, []).append(question)
    cut = {row.id for row in run.predictions.values() if row.is_cut}
    sets = [_summary(name, questions, judged, judge, cut) for name, questions in groups.items()]
    total = _summary(ALL, run.questions, judged, judge, cut)
    reasons = {
        status: dict(Counter(row.reason for row in judged.values() if row.status == status).most_common())
        for status in (UNREADABLE, FAILED, UNANSWERED)
    }
    return Summary(sets, total, judge, (lowest, highest), reasons)


def judge_of(run: EvaluationRun) -> Mapping[str, Any]:
    """Who judged, as recorded in ``run.json``; empty if it is not."""
    judge = run.meta.get("judge")
    return judge if isinstance(judge, Mapping) else {}


def judgements_of(run: EvaluationRun) -> dict[str, Judgement]:
    """A judgement for every question: one without is unanswered without a prediction, else failed."""
    rows = {}
    for question in run.questions:
        prediction = run.predictions.get(question.id)
        if question.id in run.judgements:
            rows[question.id] = run.judgements[question.id]
        elif prediction is None or prediction.text is None:
            rows[question.id] = Judgement(question.id, UNANSWERED, reason=prediction.error if prediction else "")
        else:
            rows[question.id] = Judgement(question.id, FAILED, reason=NOT_JUDGED)
    return rows


def _summary(
    name: str,
    questions: Sequence[Question],
    judged: Mapping[str, Judgement],
    judge: Mapping[str, Any],
    cut: Collection[str],
) -> SetSummary:
    rows = [(judged[question.id], question.cluster) for question in questions]
    verdicts = [(row.correct, clip) for row, clip in rows if row.correct is not None]
    scores = [(row.score, clip) for row, clip in rows if row.score is not None]
    strict = [bool(row.correct) for row, _ in rows] if verdicts else []
    clips = [question.cluster for question in questions]
    bounds = judge.get("scale") if judge.get("parsing") != "original" else None  # which does not check the range
    measures = {
        metric: mean_score([row.scores[metric] for row, _ in measured], [clip for _, clip in measured], (0, 1))
        for metric in METRICS
        if (measured := [(row, clip) for row, clip in rows if metric in row.scores])
    }
    return SetSummary(
        name=name,
        questions=len(questions),
        clips=len(set(clips)),
        statuses=count_statuses(row for row, _ in rows),
        accuracy=accuracy([correct for correct, _ in verdicts], [clip for _, clip in verdicts]),
        accuracy_if_wrong=accuracy(strict, clips) if strict else None,
        score=mean_score([score for score, _ in scores], [clip for _, clip in scores], bounds and tuple(bounds)),
        metrics={metric: estimate for metric, estimate in measures.items() if estimate is not None},
        original=_original([row for row, _ in rows], judge),
        cut=sum(question.id in cut for question in questions),
    )


def _original(rows: Sequence[Judgement], judge: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The original's aggregate of the raw replies; failed and unanswered questions drop out of it."""
    if judge.get("parsing") != "original":
        return None
    replies = [row.raw if row.status in (JUDGED, UNREADABLE) else None for row in rows]
    return original_summary(original_protocol(bool(judge.get("verdict"))), replies)
