"""Two judges on the same predictions: how often they agree, by how much their scores go together, and where not."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hound_plugin.evaluation.facts import facts_of_both
from hound_plugin.evaluation.items import STATUSES, Judgement, Question, count_statuses
from hound_plugin.evaluation.pairing import Paired, check_same_predictions, pair
from hound_plugin.evaluation.plots import draw_confusion
from hound_plugin.evaluation.report import COUNTS_NOTE, HEADINGS, percent
from hound_plugin.evaluation.run_folder import EvaluationRun
from hound_plugin.evaluation.statistics import Estimate, accuracy
from hound_plugin.evaluation.summary import ALL, judge_of
from hound_plugin.judge.agreement import kappa, spearman
from hound_plugin.records.files import write_rows, write_whole
from hound_plugin.records.tables import csv_table, escape_markdown, latex_table, markdown_table, one_line

EXAMPLES, LETTERS = 15, 240
VERDICTS = ("right", "wrong", "none")
MOST_SCORES = 11
METHOD_NOTE = (
    "`same verdict` is over predictions on which both judges have a verdict, with a 95% interval by clip. Kappa is "
    "Cohen's: agreement beyond what two judges with these shares would reach by chance; `weighted` is by squared "
    "distance of scores and needs one scale. Spearman is the rank correlation of scores."
)


@dataclass(frozen=True)
class SetAgreement:
    """One test set, or all common questions.

    Attributes:
        name: of the set, or ``ALL``.
        questions, clips: that both runs have.
        statuses: of the first and the second judge, questions by status.
        both: predictions with a verdict of both judges.
        same: share of ``both`` with one verdict.
        accuracies: by either judge, over ``both``.
        kappa: of verdicts; None where it has no value.
        scored: predictions with a score of both.
        spearman: of scores; None where it has no value.
        weighted_kappa: of scores on one scale of whole numbers; else None.
    """

    name: str
    questions: int
    clips: int
    statuses: tuple[Mapping[str, int], Mapping[str, int]]
    both: int
    same: Estimate | None
    accuracies: tuple[Estimate | None, Estimate | None]
    kappa: float | None
    scored: int
    spearman: float | None
    weighted_kappa: float | None


@dataclass(frozen=True)
class Agreement:
    """Everything that is said of two judges; ``disagreements`` are ids, the furthest apart first."""

    first: EvaluationRun
    second: EvaluationRun
    paired: Paired
    sets: list[SetAgreement]
    total: SetAgreement
    disagreements: list[Question]

    @property
    def rows(self) -> list[SetAgreement]:
        """The sets, and all questions if there is more than one set."""
        return [*self.sets, self.total] if len(self.sets) > 1 else self.sets

    @property
    def judges(self) -> tuple[str, str]:
        """Names for tables and pictures; two judges of one name are told apart by their prompts."""
        one, two = (judge_of(run) for run in (self.first, self.second))
        names = [str(judge.get("model") or "unknown judge") for judge in (one, two)]
        if names[0] == names[1]:
            names = [f"{name}, {judge.get('protocol', '?')}" for name, judge in zip(names, (one, two), strict=True)]
        return names[0], names[1]

    def to_markdown(self) -> str:
        """The agreement as Markdown."""
        return to_markdown(self)


def agree(first: EvaluationRun, second: EvaluationRun) -> Agreement:
    """How far two judges agree.

    Args:
        first, second: runs with the same predictions, judged by two judges, prompts or parsings.

    Raises:
        DataError: the runs share no question, have different predictions, or one is not judged.
    """
    paired = pair(first, second)
    check_same_predictions(first, second, paired.questions)
    groups: dict[str, list[Question]] = {}
    for question in paired.questions:
        groups.setdefault(question.set, []).append(question)
    scales = [judge_of(run).get("scale") for run in (first, second)]
    scale = scales[0] if scales[0] == scales[1] else None
    sets = [_agree_set(name, questions, paired, scale) for name, questions in groups.items()]
    total = _agree_set(ALL, paired.questions, paired, scale)
    return Agreement(first, second, paired, sets, total, _disagreements(paired))


def _agree_set(name: str, questions: Sequence[Question], paired: Paired, scale: Sequence[int] | None) -> SetAgreement:
    pairs = [(paired.first[q.id], paired.second[q.id], q.cluster) for q in questions]
    verdicts = [(a.correct, b.correct, clip) for a, b, clip in pairs if a.correct is not None and b.correct is not None]
    scores = [(a.score, b.score) for a, b, _ in pairs if a.score is not None and b.score is not None]
    clips: list[Hashable] = [clip for _, _, clip in verdicts]
    one, two = [int(a) for a, _, _ in verdicts], [int(b) for _, b, _ in verdicts]
    return SetAgreement(
        name=name,
        questions=len(questions),
        clips=len({question.cluster for question in questions}),
        statuses=(count_statuses([a for a, _, _ in pairs]), count_statuses([b for _, b, _ in pairs])),
        both=len(verdicts),
        same=accuracy([a == b for a, b, _ in verdicts], clips),
        accuracies=(accuracy([a for a, _, _ in verdicts], clips), accuracy([b for _, b, _ in verdicts], clips)),
        kappa=_number(kappa(one, two, (0, 1))),
        scored=len(scores),
        spearman=_number(spearman([a for a, _ in scores], [b for _, b in scores])),
        weighted_kappa=_weighted(scores, scale),
    )


def _weighted(scores: Sequence[tuple[float, float]], scale: Sequence[int] | None) -> float | None:
    if scale is None or not scores:
        return None
    labels = range(int(scale[0]), int(scale[1]) + 1)
    whole = [(int(a), int(b)) for a, b in scores if a in labels and b in labels]
    if len(whole) < len(scores):  # means of several draws, or scores outside the scale under `parsing: original`
        return None
    return _number(kappa([a for a, _ in whole], [b for _, b in whole], labels, weighted=True))


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _disagreements(paired: Paired) -> list[Question]:
    """Questions with two verdicts, furthest scores first; then those with one verdict and far scores."""

    def distance(question: Question) -> tuple[bool, float]:
        one, two = paired.first[question.id], paired.second[question.id]
        apart = abs(one.score - two.score) if one.score is not None and two.score is not None else 0.0
        return None not in (one.correct, two.correct) and one.correct != two.correct, apart

    apart = [question for question in paired.questions if distance(question) > (False, 1.0)]
    return sorted(apart, key=lambda question: (tuple(-float(part) for part in distance(question)), question.id))


def confusion(agreement: Agreement) -> dict[str, tuple[list[list[int]], list[str], list[str]]]:
    """Tables of counts with the names of their rows (first judge) and columns (second): ``verdicts``, ``scores``."""
    pairs = [(agreement.paired.first[q.id], agreement.paired.second[q.id]) for q in agreement.paired.questions]
    tables = {}
    if any(row.correct is not None for both in pairs for row in both):
        named = [tuple(_verdict(row) for row in both) for both in pairs]
        tables["verdicts"] = _counts(named, VERDICTS, VERDICTS)
    scored = [(f"{a.score:g}", f"{b.score:g}") for a, b in pairs if a.score is not None and b.score is not None]
    rows, columns = (sorted({both[side] for both in scored}, key=float) for side in (0, 1))
    if scored and max(len(rows), len(columns)) <= MOST_SCORES:
        tables["scores"] = _counts(scored, rows, columns)
    return tables


def _verdict(row: Judgement) -> str:
    return VERDICTS[2] if row.correct is None else VERDICTS[0] if row.correct else VERDICTS[1]


def _counts(
    pairs: Sequence[Any], rows: Sequence[str], columns: Sequence[str]
) -> tuple[list[list[int]], list[str], list[str]]:
    found = list(map(tuple, pairs))
    return [[found.count((row, column)) for column in columns] for row in rows], list(rows), list(columns)


# --- files


def write_agreement(agreement: Agreement, folder: Path) -> Path:
    """Write ``agree.md``, ``agree.csv``, ``agree.tex``, ``confusion_*.png`` and ``disagreements.jsonl``.

    Returns the path of ``agree.md``.
    """
    pictures = []
    for name, (table, rows, columns) in confusion(agreement).items():
        picture = f"confusion_{name}.png"
        title = f"{name}: {len(agreement.paired.questions)} predictions"
        write_whole(folder / picture, draw_confusion(table, rows, columns, agreement.judges, title))
        pictures.append(picture)
    header, lines = _table(agreement)
    write_whole(folder / "agree.csv", csv_table(header, lines))
    write_whole(folder / "agree.tex", latex_table(header, lines, f"{' and '.join(agreement.judges)}. {METHOD_NOTE}"))
    write_rows(folder / "disagreements.jsonl", [_row(agreement, question) for question in agreement.disagreements])
    write_whole(folder / "agree.md", to_markdown(agreement, pictures))
    return folder / "agree.md"


def _row(agreement: Agreement, question: Question) -> dict[str, Any]:
    one, two = agreement.paired.first[question.id], agreement.paired.second[question.id]
    prediction = agreement.first.predictions.get(question.id)
    return {
        "id": question.id, "set": question.set, "clip": question.clip, "question": question.question,
        "reference": question.reference, "prediction": prediction.text if prediction else None,
        "first_correct": one.correct, "first_score": one.score, "first_reason": one.reason,
        "second_correct": two.correct, "second_score": two.score, "second_reason": two.reason,
    }  # fmt: skip


def _table(agreement: Agreement) -> tuple[Sequence[str], list[list[Any]]]:
    columns = (
        "set", "questions", "clips", *(f"{text} 1st/2nd" for text in HEADINGS.values()), "both judged", "first, %",
        "second, %", "same verdict, %", "kappa", "both scored", "Spearman", "weighted kappa",
    )  # fmt: skip
    rows = []
    for row in agreement.rows:
        pairs = [f"{row.statuses[0][status]}/{row.statuses[1][status]}" for status in STATUSES]
        shares = [percent(row.accuracies[0]), percent(row.accuracies[1]), percent(row.same)]
        numbers = [*shares, _shown(row.kappa), row.scored, _shown(row.spearman), _shown(row.weighted_kappa)]
        rows.append([row.name, row.questions, row.clips, *pairs, row.both, *numbers])
    return columns, rows


def _shown(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


def to_markdown(agreement: Agreement, pictures: Sequence[str] = ()) -> str:
    """The agreement as Markdown, with pictures, if their files are next to it."""
    first, second = map(escape_markdown, agreement.judges)
    lines = [f"# Agreement: {first} and {second}", ""]
    lines += [f"> **{escape_markdown(agreement.paired.remark)}**", ""] if agreement.paired.remark else []
    lines += [markdown_table(*_table(agreement)), "", METHOD_NOTE, "", COUNTS_NOTE, ""]
    lines += [part for picture in pictures for part in (f"![{picture}]({picture})", "")]
    for name, (table, rows, columns) in confusion(agreement).items():
        counts = [[row, *numbers] for row, numbers in zip(rows, table, strict=True)]
        lines += [f"## {name.capitalize()}: first judge down, second across", ""]
        lines += [markdown_table(("first", *columns), counts), ""]
    lines += [f"## Where they differ ({len(agreement.disagreements)})", ""]
    if agreement.disagreements:
        lines += [_examples(agreement), ""]
    if len(agreement.disagreements) > EXAMPLES:
        count = len(agreement.disagreements)
        lines += [f"The first {EXAMPLES} of {count}; `disagreements.jsonl` has all of them, whole.", ""]
    facts = facts_of_both(agreement.first, agreement.second)
    lines += ["## What was compared", "", markdown_table(("what", "first", "second"), facts), ""]
    return "\n".join(lines)


def _examples(agreement: Agreement) -> str:
    columns = ("question", "asked", "right answer", "prediction", "1st", "score", "why", "2nd", "score", "why")
    rows = []
    for question in agreement.disagreements[:EXAMPLES]:
        one, two = agreement.paired.first[question.id], agreement.paired.second[question.id]
        prediction = agreement.first.predictions.get(question.id)
        texts = [question.question, question.reference, (prediction.text if prediction else None) or ""]
        shown = [one_line(text, LETTERS) for text in texts]
        judged = [part for row in (one, two) for part in (_verdict(row), row.score, one_line(row.reason, LETTERS))]
        rows.append([question.id, *shown, *judged])
    return markdown_table(columns, rows)
