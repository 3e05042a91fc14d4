"""Two models on the same questions with the same judge: paired differences, tests, wins and losses."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hound_plugin.evaluation.facts import facts_of_both
from hound_plugin.evaluation.items import STATUSES, Judgement, Question, count_statuses
from hound_plugin.evaluation.pairing import Paired, check_same_judge, pair
from hound_plugin.evaluation.plots import draw_estimates
from hound_plugin.evaluation.report import COUNTS_NOTE, HEADINGS, interval_text, percent, points, remarks
from hound_plugin.evaluation.run_folder import EvaluationRun
from hound_plugin.evaluation.statistics import Estimate, McNemar, accuracy, mcnemar, paired_difference
from hound_plugin.evaluation.summary import ALL, summarise
from hound_plugin.records.files import write_rows, write_whole
from hound_plugin.records.tables import csv_table, escape_markdown, latex_table, markdown_table, one_line

EXAMPLES = 10
LETTERS = 240
METHOD_NOTE = (
    "Differences are second minus first, in points, over questions with a verdict in both runs; `if wrong` is over all "
    "common questions, with missing verdicts counted as wrong. Intervals are 95%, from a bootstrap that resamples "
    "whole clips; where all clips differ alike, they allow for rare differences that a sample of this size can "
    "miss. `p` is of McNemar's exact test, which takes questions as independent: where the two disagree, trust "
    "the interval."
)


@dataclass(frozen=True)
class SetComparison:
    """One test set, or all common questions.

    Attributes:
        name: of the set, or ``ALL``.
        questions, clips: that both runs have.
        both: questions with a verdict in both.
        statuses: of the first and the second run, questions by status.
        accuracies: of both runs, over ``both``.
        difference: of the accuracies, over ``both``.
        if_wrong: the same over all questions, missing verdicts counted as wrong.
        score: difference of the mean scores, over questions with a score in both.
        test: McNemar's, over ``both``; ``only_second`` are wins of the second run, ``only_first`` its losses.
    """

    name: str
    questions: int
    clips: int
    both: int
    statuses: tuple[Mapping[str, int], Mapping[str, int]]
    accuracies: tuple[Estimate | None, Estimate | None]
    difference: Estimate | None
    if_wrong: Estimate | None
    score: Estimate | None
    test: McNemar | None


@dataclass(frozen=True)
class Change:
    """A question on which the runs differ; ``gain`` is positive if the second is better, in verdicts or in scores."""

    question: Question
    first: str
    second: str
    judgements: tuple[Judgement, Judgement]
    gain: float

    def to_row(self) -> dict[str, Any]:
        """As a JSON object, whole texts."""
        one, two = self.judgements
        return {
            "id": self.question.id, "set": self.question.set, "clip": self.question.clip, "gain": self.gain,
            "question": self.question.question, "reference": self.question.reference,
            "first": self.first, "first_correct": one.correct, "first_score": one.score, "first_reason": one.reason,
            "second": self.second, "second_correct": two.correct, "second_score": two.score,
            "second_reason": two.reason,
        }  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """Everything that a comparison says."""

    first: EvaluationRun
    second: EvaluationRun
    sets: list[SetComparison]
    total: SetComparison
    changes: list[Change]
    remarks: list[str]

    @property
    def rows(self) -> list[SetComparison]:
        """The sets, and all questions if there is more than one set."""
        return [*self.sets, self.total] if len(self.sets) > 1 else self.sets

    @property
    def wins(self) -> list[Change]:
        """Questions that only the second run got right, or scored higher where there are no verdicts."""
        return [change for change in self.changes if change.gain > 0]

    @property
    def losses(self) -> list[Change]:
        """The opposite."""
        return [change for change in self.changes if change.gain < 0]

    def to_markdown(self) -> str:
        """The comparison as Markdown."""
        return to_markdown(self)


def compare(first: EvaluationRun, second: EvaluationRun, seed: int = 0) -> Comparison:
    """Compare two runs, question by question.

    Args:
        first: the one to compare with, such as before training.
        second: the one that may be better.
        seed: of the bootstrap.

    Raises:
        DataError: the runs share no question, the same id is another question, they were judged differently, or one is
            not judged.
        EnvironmentMismatchError: statsmodels is not installed.
    """
    notes = check_same_judge(first, second)
    paired = pair(first, second)
    notes = [*([paired.remark] if paired.remark else []), *notes]
    one, two = summarise(first), summarise(second)
    said = remarks(one), remarks(two)
    notes += [f"Of both runs: {remark}" for remark in said[0] if remark in said[1]]
    notes += [f"Of the first run: {remark}" for remark in said[0] if remark not in said[1]]
    notes += [f"Of the second run: {remark}" for remark in said[1] if remark not in said[0]]
    groups: dict[str, list[Question]] = {}
    for question in paired.questions:
        groups.setdefault(question.set, []).append(question)
    span = one.scale[1] - one.scale[0]
    sets = [_compare_set(name, questions, paired, seed, span) for name, questions in groups.items()]
    total = _compare_set(ALL, paired.questions, paired, seed, span)
    return Comparison(first, second, sets, total, _changes(first, second, paired, bool(total.both)), notes)


def _compare_set(name: str, questions: Sequence[Question], paired: Paired, seed: int, span: float) -> SetComparison:
    one = [paired.first[question.id] for question in questions]
    two = [paired.second[question.id] for question in questions]
    clips = [question.cluster for question in questions]
    verdicts = _where([row.correct for row in one], [row.correct for row in two], clips)
    scores = _where([row.score for row in one], [row.score for row in two], clips)
    wrong = [bool(row.correct) for row in one], [bool(row.correct) for row in two]
    return SetComparison(
        name=name,
        questions=len(questions),
        clips=len(set(clips)),
        both=len(verdicts[0]),
        statuses=(count_statuses(one), count_statuses(two)),
        accuracies=(accuracy(verdicts[0], verdicts[2]), accuracy(verdicts[1], verdicts[2])),
        difference=paired_difference(*verdicts, seed=seed),
        if_wrong=paired_difference(*wrong, clips, seed=seed) if verdicts[0] else None,
        score=paired_difference(*scores, seed=seed, span=span),
        test=mcnemar(verdicts[0], verdicts[1]) if verdicts[0] else None,
    )


def _where(
    one: Sequence[Any], two: Sequence[Any], clips: Sequence[Hashable]
) -> tuple[list[Any], list[Any], list[Hashable]]:
    """Both values and the clip, where neither is None."""
    kept = [(a, b, clip) for a, b, clip in zip(one, two, clips, strict=True) if a is not None and b is not None]
    return [a for a, _, _ in kept], [b for _, b, _ in kept], [clip for _, _, clip in kept]


def _changes(first: EvaluationRun, second: EvaluationRun, paired: Paired, by_verdict: bool) -> list[Change]:
    """Questions with another verdict, or another score where there are no verdicts; largest gain in scores first."""
    found = []
    for question in paired.questions:
        one, two = paired.first[question.id], paired.second[question.id]
        gain = (two.score or 0.0) - (one.score or 0.0)
        if by_verdict:
            if None in (one.correct, two.correct) or one.correct == two.correct:
                continue
            gain = (1.0 if two.correct else -1.0) + gain / 1000  # the verdict decides, the score orders
        elif None in (one.score, two.score) or not gain:
            continue
        answers = [run.predictions[question.id].text or "" for run in (first, second)]
        found.append(Change(question, answers[0], answers[1], (one, two), round(gain, 6)))
    return sorted(found, key=lambda change: (-abs(change.gain), change.question.id))


# --- files


def write_comparison(comparison: Comparison, folder: Path) -> Path:
    """Write ``compare.md``, ``compare.csv``, ``compare.tex``, ``differences.png`` and ``changes.jsonl``.

    Returns the path of ``compare.md``.
    """
    write_whole(folder / "differences.png", draw_comparison(comparison))
    write_whole(folder / "compare.csv", _csv(comparison))
    columns, rows = _table(comparison)
    caption = f"{_name(comparison.second)} against {_name(comparison.first)}. {METHOD_NOTE}"
    write_whole(folder / "compare.tex", latex_table(columns, rows, caption))
    write_rows(folder / "changes.jsonl", [change.to_row() for change in comparison.changes])
    write_whole(folder / "compare.md", to_markdown(comparison, picture="differences.png"))
    return folder / "compare.md"


def draw_comparison(comparison: Comparison) -> bytes:
    """Differences of accuracy, or of mean scores without verdicts, as PNG."""
    title = f"{_name(comparison.second)} minus {_name(comparison.first)}"
    if comparison.total.both:
        rows = [(row.name, row.difference) for row in comparison.rows]
        return draw_estimates(rows, 100, "difference in accuracy, points; 95% by clip", title, zero=True)
    rows = [(row.name, row.score) for row in comparison.rows]
    return draw_estimates(rows, 1, "difference in mean score; 95% by clip", title, zero=True)


def _name(run: EvaluationRun) -> str:
    return f"{run.name} ({run.suite})"


def _table(comparison: Comparison) -> tuple[Sequence[str], list[list[Any]]]:
    columns = (
        "set", "questions", "clips", *(f"{text} 1st/2nd" for text in HEADINGS.values()), "both judged", "first, %",
        "second, %", "difference", "if wrong", "score difference", "wins", "losses", "p",
    )  # fmt: skip
    rows = []
    for row in comparison.rows:
        pairs = [f"{row.statuses[0][status]}/{row.statuses[1][status]}" for status in STATUSES]
        test: list[Any] = [None, None, None]
        if row.test is not None:
            test = [row.test.only_second, row.test.only_first, _p(row.test.p_value)]
        numbers = [percent(row.accuracies[0]), percent(row.accuracies[1]), points(row.difference), points(row.if_wrong)]
        score = interval_text(row.score, 1, 2, "+")
        rows.append([row.name, row.questions, row.clips, *pairs, row.both, *numbers, score, *test])
    return columns, rows


def _p(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def to_markdown(comparison: Comparison, picture: str | None = None) -> str:
    """The comparison as Markdown, with ``picture``, if that file is next to it."""
    first, second = escape_markdown(_name(comparison.first)), escape_markdown(_name(comparison.second))
    lines = [f"# {second} against {first}", ""]
    for note in comparison.remarks:
        lines += [f"> **{escape_markdown(note.replace('`', ''))}**", ""]
    lines += [_verdict(comparison), "", markdown_table(*_table(comparison)), "", METHOD_NOTE, "", COUNTS_NOTE, ""]
    lines += [f"![differences]({picture})", ""] if picture else []
    for title, changes in (("Wins of the second run", comparison.wins), ("Losses", comparison.losses)):
        lines += [f"## {title} ({len(changes)})", ""]
        if changes:
            lines += [_examples(changes[:EXAMPLES]), ""]
        if len(changes) > EXAMPLES:
            lines += [f"The first {EXAMPLES} of {len(changes)}; `changes.jsonl` has all of them, whole.", ""]
    facts = facts_of_both(comparison.first, comparison.second)
    lines += ["## What was compared", "", markdown_table(("what", "first", "second"), facts), ""]
    return "\n".join(lines)


def _verdict(comparison: Comparison) -> str:
    """One sentence on all common questions."""
    total = comparison.total
    found, unit, show = (
        (total.difference, "points of accuracy", points) if total.both else (total.score, "points", _score)
    )
    if found is None:
        return "No question has a verdict or a score in both runs."
    if found.low is None or found.high is None:
        return f"The second run differs by {show(found)} {unit}; one clip gives no interval."
    what, if_wrong = _conclusion(found), total.if_wrong
    text = f"The second run {what}: {show(found)} {unit}, from {found.n} questions about {found.clusters} clips."
    if if_wrong is not None and _conclusion(if_wrong) != what:
        text += f" With missing verdicts counted as wrong it {_conclusion(if_wrong)}: {show(if_wrong)} {unit}."
    return text


def _conclusion(difference: Estimate) -> str:
    if difference.low is not None and difference.low > 0:
        return "is better"
    return "is worse" if difference.high is not None and difference.high < 0 else "is not shown to be better or worse"


def _score(estimate: Estimate | None) -> str | None:
    return interval_text(estimate, 1, 2, "+")


def _examples(changes: Sequence[Change]) -> str:
    columns = ("question", "asked", "right answer", "first", "score", "second", "score", "the judge on the second")
    rows = []
    for change in changes:
        question, (one, two) = change.question, change.judgements
        texts = [question.question, question.reference, change.first, change.second, two.reason]
        asked, right, before, after, reason = (one_line(text, LETTERS) for text in texts)
        rows.append([question.id, asked, right, before, one.score, after, two.score, reason])
    return markdown_table(columns, rows)


def _csv(comparison: Comparison) -> str:
    columns = ["set", "questions", "clips", "both"]
    columns += [f"{which}_{text}" for which in ("first", "second") for text in HEADINGS.values()]
    estimates = ("first_accuracy", "second_accuracy", "difference", "difference_if_wrong", "score_difference")
    columns += [f"{name}{part}" for name in estimates for part in ("", "_low", "_high")]
    columns += ["wins", "losses", "mcnemar_p"]
    rows = []
    for row in comparison.rows:
        values: list[Any] = [row.name, row.questions, row.clips, row.both]
        values += [statuses[status] for statuses in row.statuses for status in STATUSES]
        for estimate in (*row.accuracies, row.difference, row.if_wrong, row.score):
            found = (None, None, None) if estimate is None else (estimate.mean, estimate.low, estimate.high)
            values += [None if value is None else round(value, 6) for value in found]
        test = row.test
        values += [None, None, None] if test is None else [test.only_second, test.only_first, test.p_value]
        rows.append(values)
    return csv_table(columns, rows)
