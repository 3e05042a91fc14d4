"""Which questions two runs share, and whether their numbers may be set side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hound_plugin.errors import DataError
from hound_plugin.evaluation.items import Judgement, Question
from hound_plugin.evaluation.run_folder import EvaluationRun
from hound_plugin.evaluation.summary import judge_of, judgements_of

SHOWN = 3
SAME_JUDGE = ("backend", "endpoint", "model", "metric", "protocol", "scale", "parsing", "max_words", "correct_from")
"""What determines how an answer is judged, in ``run.json``."""


@dataclass(frozen=True)
class Paired:
    """Two runs on the questions that both have.

    Attributes:
        questions: in the first run's order.
        first, second: judgements of these questions.
        only_first, only_second: ids that the other run does not have.
    """

    questions: list[Question]
    first: Mapping[str, Judgement]
    second: Mapping[str, Judgement]
    only_first: list[str]
    only_second: list[str]

    @property
    def remark(self) -> str:
        """What is left out, for people; empty if nothing is."""
        if not self.only_first and not self.only_second:
            return ""
        return (
            f"The runs do not cover the same questions. {len(self.questions)} are in both and are compared; "
            f"{len(self.only_first)} are only in the first run{_such_as(self.only_first)}, {len(self.only_second)} "
            f"only in the second{_such_as(self.only_second)}."
        )


def pair(first: EvaluationRun, second: EvaluationRun) -> Paired:
    """The questions that both runs have.

    Raises:
        DataError: they share no question, a question of one id is not the same in both, or one run is not judged.
    """
    for run in (first, second):
        if not run.judgements:
            raise DataError(f"{run.folder}: there are no judgements. Run `hound eval judge` first.")
    others = {question.id: question for question in second.questions}
    common = [question for question in first.questions if question.id in others]
    if not common:
        raise DataError(
            f"{first.folder} and {second.folder} have no question in common. Compare two runs on one suite."
        )
    changed = [question.id for question in common if _content(question) != _content(others[question.id])]
    if changed:
        raise DataError(
            f"{len(changed)} of {len(common)} questions have another text, clip or right answer in {second.folder} "
            f"than in {first.folder}{_such_as(changed)}. Run both on the same files."
        )
    known = {question.id for question in common}
    return Paired(
        questions=common,
        first=judgements_of(first),
        second=judgements_of(second),
        only_first=[question.id for question in first.questions if question.id not in known],
        only_second=[name for name in others if name not in known],
    )


def _content(question: Question) -> tuple[Any, ...]:
    return question.set, question.clip, question.question, question.reference, question.evidence, question.accepted


def _such_as(ids: Sequence[str]) -> str:
    return f" (such as {', '.join(map(repr, ids[:SHOWN]))})" if ids else ""


def check_same_judge(first: EvaluationRun, second: EvaluationRun) -> list[str]:
    """Refuse runs that were judged differently; returns remarks for the reader.

    Raises:
        DataError: other judge, prompt, scale or parsing.
    """
    one, two = judge_of(first), judge_of(second)
    differences = [
        f"{name} {one.get(name)!r} and {two.get(name)!r}" for name in SAME_JUDGE if one.get(name) != two.get(name)
    ]
    if differences:
        raise DataError(
            f"{first.folder} and {second.folder} were judged differently: {'; '.join(differences)}. The judge alone "
            "moves accuracies by more than most models differ. Judge both in the same way; `hound eval agree` compares "
            "two judges on the same predictions."
        )
    remarks = []
    reported = [list(judge.get("reported_models", ())) for judge in (one, two)]
    if reported[0] != reported[1]:
        remarks.append(
            f"The server reported other versions of the judge: {', '.join(reported[0]) or 'none'} for the first run, "
            f"{', '.join(reported[1]) or 'none'} for the second. A difference may be the judge's."
        )
    if not one:
        remarks.append("run.json does not say who judged the two runs.")
    return remarks


def check_same_predictions(first: EvaluationRun, second: EvaluationRun, questions: Sequence[Question]) -> None:
    """Refuse runs whose answers differ.

    Raises:
        DataError: naming the first question with two different predictions.
    """

    def text(run: EvaluationRun, name: str) -> str | None:
        prediction = run.predictions.get(name)
        return prediction.text if prediction else None

    other = [q.id for q in questions if text(first, q.id) != text(second, q.id)]
    if other:
        raise DataError(
            f"{first.folder} and {second.folder} have different predictions for {len(other)} of {len(questions)} "
            f"questions{_such_as(other)}. Agreement is of two judges on the same predictions: give the second run the "
            f"first one's, with predict.backend=given predict.answers={first.folder / 'predictions.jsonl'}."
        )
