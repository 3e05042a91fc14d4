"""What people read of a run: ``report.md``, ``sets.csv``, ``table.tex``, pictures; the HTML page is another module."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

from hound_plugin.evaluation.facts import run_facts
from hound_plugin.evaluation.items import FAILED, JUDGED, STATUSES, UNANSWERED, UNREADABLE
from hound_plugin.evaluation.plots import draw_accuracy, draw_estimates, draw_sample_size
from hound_plugin.evaluation.published import SOURCE, WARNING, PublishedRow, published_rows
from hound_plugin.evaluation.run_folder import REPORT, EvaluationRun
from hound_plugin.evaluation.statistics import Estimate, accuracy, by_sample_size, clips_for, mean_score
from hound_plugin.evaluation.summary import ALL, SetSummary, Summary, judgements_of, summarise
from hound_plugin.pages.content import Table
from hound_plugin.records.files import write_whole
from hound_plugin.records.tables import csv_table, escape_markdown, latex_table, markdown_table, one_line

HEADINGS = {JUDGED: "answered", UNREADABLE: "unreadable", FAILED: "failed", UNANSWERED: "unanswered"}
"""A reply with a verdict or score, one that cannot be read, no reply for good; and no prediction to judge."""
COUNTS_NOTE = (
    "Answered: the judge's reply has a verdict or a score. Unreadable: it has none that is stated plainly. Failed: "
    "there is no reply. Unanswered: there is no prediction. `accuracy` is over the answered questions; `if wrong` is "
    "over all questions, with the other three counted as wrong. Intervals are 95% and treat clips as units, because "
    "questions about one clip tend to be right or wrong together."
)
SHOWN_REPLIES, REPLY_LETTERS, SHOWN_REASONS = 5, 300, 8
NARROW = 0.01
"""Half of the width of an interval, for which the report says how many clips it takes."""

Cells = tuple[Sequence[str], list[list[Any]]]


def write_report(run: EvaluationRun, seed: int = 0) -> Path:
    """Write ``report/`` of a run; returns the path of ``report.md``.

    Args:
        run: judged, at least in part.
        seed: of the order of clips in the picture of the sample size.

    Raises:
        DataError: nothing is judged yet.
    """
    summary, published = summarise(run), published_rows(run.suite)
    folder = run.folder / REPORT
    names = {row.name for row in summary.sets}
    references = [row for row in published if row.set in names]
    title = f"{run.suite}: {run.name}"
    if summary.total.accuracy is not None:
        pictures = {"accuracy.png": draw_accuracy(summary, references, title)}
    else:
        rows = [(row.name, row.score) for row in summary.rows]
        pictures = {"scores.png": draw_estimates(rows, 1, "mean score; 95% by clip", title)}
    pictures |= _sample_size(run, seed)
    for name, data in pictures.items():
        write_whole(folder / name, data)
    write_whole(folder / "sets.csv", sets_csv(summary, references))
    write_whole(folder / "table.tex", sets_latex(run, summary, references))
    write_whole(folder / "report.md", to_markdown(run, summary, references, list(pictures)))
    return folder / "report.md"


def _sample_size(run: EvaluationRun, seed: int) -> dict[str, bytes]:
    judged = judgements_of(run)
    rows = [(judged[question.id], question.cluster) for question in run.questions]
    values: list[tuple[float, Hashable]] = [(row.correct, clip) for row, clip in rows if row.correct is not None]
    estimator: Callable[..., Estimate | None] = accuracy
    what, factor = "accuracy, %", 100.0
    if not values:
        values = [(row.score, clip) for row, clip in rows if row.score is not None]
        what, factor, estimator = "mean score", 1.0, mean_score
    steps = by_sample_size([value for value, _ in values], [clip for _, clip in values], estimator, seed)
    title = f"{run.suite}: {run.name}, all questions"
    return {"sample_size.png": draw_sample_size(steps, what, factor, title)} if len(steps) > 1 else {}


# --- numbers as texts


def percent(estimate: Estimate | None) -> str | None:
    """``71.4 (65.0 to 77.2)``, in %; None without an estimate."""
    return interval_text(estimate, 100, 1)


def points(estimate: Estimate | None) -> str | None:
    """``+3.2 (-1.0 to +7.4)``, a difference in points."""
    return interval_text(estimate, 100, 1, "+")


def interval_text(estimate: Estimate | None, factor: float, digits: int, sign: str = "") -> str | None:
    """An estimate with its interval, both multiplied by ``factor``."""
    if estimate is None:
        return None
    mean = f"{factor * estimate.mean:{sign}.{digits}f}"
    if estimate.low is None or estimate.high is None:
        return f"{mean} (no interval: 1 clip)"
    return f"{mean} ({factor * estimate.low:{sign}.{digits}f} to {factor * estimate.high:{sign}.{digits}f})"


def sets_table(summary: Summary) -> Cells:
    """The main table: counts, accuracies and mean score of every set."""
    columns = ("set", "questions", "clips", *HEADINGS.values(), "accuracy, %", "if wrong, %", "mean score")
    rows = [
        [
            row.name, row.questions, row.clips, *(row.statuses[status] for status in STATUSES),
            percent(row.accuracy), percent(row.accuracy_if_wrong), interval_text(row.score, 1, 2),
        ]
        for row in summary.rows
    ]  # fmt: skip
    return columns, rows


def _metrics_table(summary: Summary) -> Cells:
    names = list(summary.total.metrics)
    columns = ("set", "questions", *HEADINGS.values(), *names)
    rows = [
        [row.name, row.questions, *(row.statuses[s] for s in STATUSES), *(percent(row.metrics.get(n)) for n in names)]
        for row in summary.rows
    ]
    return columns, rows


def _original_table(summary: Summary) -> Cells:
    columns = ("set", "questions", *HEADINGS.values(), "original's accuracy, %", "of", "original's average", "of")
    rows = [
        [
            row.name, row.questions, *(row.statuses[status] for status in STATUSES),
            None if found["accuracy"] is None else f"{100 * found['accuracy']:.2f}",
            f"{found['yes_count'] + found['no_count']} with yes or no",
            None if found["average_score"] is None else f"{found['average_score']:.2f}",
            f"{found['n_scored']} with a score",
        ]
        for row in summary.rows
        if (found := row.original) is not None
    ]  # fmt: skip
    return columns, rows


def _published_table(references: Sequence[PublishedRow]) -> Cells:
    columns = ("set", "model", "judge", "accuracy, %", "mean score")
    return columns, [[r.set, r.model, r.judge, f"{100 * r.accuracy:.2f}", f"{r.score:.2f}"] for r in references]


def page_tables(run: EvaluationRun) -> list[Table]:
    """The tables of the report for the HTML page; published numbers with their warning.

    Raises:
        DataError: nothing is judged yet.
    """
    summary = summarise(run)
    names = {row.name for row in summary.sets}
    references = [row for row in published_rows(run.suite) if row.set in names]
    found = [("Results", sets_table(summary), " ".join([*remarks(summary), COUNTS_NOTE]))]
    if summary.total.original is not None:
        found.append(("As the original counts", _original_table(summary), _ORIGINAL_NOTE))
    if summary.total.metrics:
        found.append(("Measures without a judge", _metrics_table(summary), _METRICS_NOTE))
    if references:
        found.append(("Published numbers", _published_table(references), f"{WARNING} Source: {SOURCE}"))
    return [
        Table(title, tuple(columns), tuple(tuple(row) for row in rows), note.replace("`", ""))
        for title, (columns, rows), note in found
    ]


# --- files


def to_markdown(
    run: EvaluationRun, summary: Summary, references: Sequence[PublishedRow], pictures: Sequence[str]
) -> str:
    """The report as Markdown."""
    lines = [f"# {escape_markdown(run.suite)}: {escape_markdown(run.name)}", ""]
    for remark in remarks(summary):
        lines += [f"> **{remark}**", ""]
    lines += ["## Results", "", markdown_table(*sets_table(summary)), "", COUNTS_NOTE, ""]
    lines += [part for name in pictures for part in (f"![{name}]({name})", "")]
    if summary.total.original is not None:
        lines += ["## As the original counts", "", _ORIGINAL_NOTE, "", markdown_table(*_original_table(summary)), ""]
    if summary.total.metrics:
        lines += ["## Measures without a judge", "", _METRICS_NOTE, "", markdown_table(*_metrics_table(summary)), ""]
    lines += _sample_size_lines(summary)
    lines += _missing_lines(run, summary)
    if references:
        lines += ["## Published numbers", "", f"> **{WARNING}**", "", markdown_table(*_published_table(references)), ""]
        lines += [f"Source: <{SOURCE}>", ""]
    lines += ["## What was run", "", markdown_table(("what", "value"), run_facts(run)), ""]
    return "\n".join(lines)


_METRICS_NOTE = "In %, over questions with a prediction; the best of all accepted answers counts."
_ORIGINAL_NOTE = (
    "`parsing: original`: scores and verdicts above are what the original's parsers read, guesses included, and below "
    "are its own denominators: replies without yes or no drop out of the accuracy, replies without a score out of the "
    "average, and failed and unanswered questions out of both."
)


def remarks(summary: Summary) -> list[str]:
    """What a reader must know before the numbers; trusted texts of ours."""
    found = []
    if summary.judge.get("backend") == "lexical":
        metric = summary.judge.get("metric", "")
        found.append(
            f"No judge: `{metric}` with the reference decides. It takes other words for the same thing as wrong."
        )
    if summary.judge.get("parsing") == "original":
        found.append("Replies are read as the original reads them, guesses included.")
    if not summary.judge:
        found.append("run.json does not say who judged.")
    if summary.total.cut:
        found.append(
            f"{summary.total.cut} of {summary.total.questions} predictions were cut at the limit of tokens: their end "
            "is missing. A higher `predict.max_new_tokens` in a run of its own shows what difference it makes."
        )
    missing = summary.total.questions - summary.total.statuses[JUDGED]
    if missing:
        found.append(f"{missing} of {summary.total.questions} questions have no verdict and no score.")
    return found


def _sample_size_lines(summary: Summary) -> list[str]:
    rows = []
    for row in summary.rows:
        estimate = row.accuracy
        if estimate is not None and estimate.low is not None and estimate.high is not None:
            half = (estimate.high - estimate.low) / 2
            counts = [row.statuses[status] for status in STATUSES]
            rows.append(
                [row.name, *counts, percent(estimate), row.clips, f"{100 * half:.1f}", clips_for(estimate, NARROW)]
            )
    if not rows:
        return []
    columns = ("set", *HEADINGS.values(), "accuracy, %", "clips", "± points", "clips for ± 1 point")
    return ["## Sample size", "", markdown_table(columns, rows), ""]


def _missing_lines(run: EvaluationRun, summary: Summary) -> list[str]:
    lines = []
    for status, reasons in summary.reasons.items():
        if reasons:
            shown = list(reasons.items())[:SHOWN_REASONS]
            rows = [[one_line(reason, REPLY_LETTERS) or "no reason given", number] for reason, number in shown]
            more = len(reasons) - len(shown)
            lines += [f"## Why {HEADINGS[status]}", "", markdown_table(("reason", "questions"), rows), ""]
            lines += [f"{more} further reasons.", ""] if more > 0 else []
    replies = [(row.id, row.raw) for row in run.judgements.values() if row.status == UNREADABLE][:SHOWN_REPLIES]
    if replies:
        rows = [[name, one_line(reply, REPLY_LETTERS) or "(empty)"] for name, reply in replies]
        lines += ["First replies that could not be read:", "", markdown_table(("question", "reply"), rows), ""]
    return lines


def sets_csv(summary: Summary, references: Sequence[PublishedRow]) -> str:
    """Every number of every set; published rows say so in ``source``."""
    estimates = ("accuracy", "accuracy_if_wrong", "score")
    columns = ["source", "set", "judge", "model", "parsing", "questions", "clips", *HEADINGS.values(), "cut"]
    columns += [f"{name}{part}" for name in estimates for part in ("", "_low", "_high", "_n")]
    columns += list(summary.total.metrics)
    columns += ["original_accuracy", "original_accuracy_n", "original_average_score", "original_average_score_n"]
    rows = [_csv_row(row, summary, estimates) for row in summary.rows]
    for item in references:
        values: dict[str, Any] = {
            "source": f"published: other judge, not comparable; {SOURCE}",
            "set": item.set,
            "judge": item.judge,
        }
        values |= {"model": item.model, "accuracy": round(item.accuracy, 6), "score": item.score}
        rows.append(values)
    return csv_table(columns, [[row.get(name) for name in columns] for row in rows])


def _csv_row(row: SetSummary, summary: Summary, estimates: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {
        "source": "this run", "set": row.name, "judge": summary.judge.get("model"),
        "parsing": summary.judge.get("parsing"), "questions": row.questions, "clips": row.clips,
        **{HEADINGS[status]: number for status, number in row.statuses.items()}, "cut": row.cut,
        **{name: round(estimate.mean, 6) for name, estimate in row.metrics.items()},
    }  # fmt: skip
    for name in estimates:
        estimate: Estimate | None = getattr(row, name)
        if estimate is not None:
            parts = {"": estimate.mean, "_low": estimate.low, "_high": estimate.high, "_n": estimate.n}
            values |= {f"{name}{part}": None if v is None else round(v, 6) for part, v in parts.items()}
    if row.original is not None:
        values["original_accuracy"] = row.original["accuracy"]
        values["original_accuracy_n"] = row.original["yes_count"] + row.original["no_count"]
        values["original_average_score"] = row.original["average_score"]
        values["original_average_score_n"] = row.original["n_scored"]
    return values


def sets_latex(run: EvaluationRun, summary: Summary, references: Sequence[PublishedRow]) -> str:
    """The main table for a paper; published rows below a rule, with the warning in the caption."""
    columns, rows = sets_table(summary)
    groups = [len(rows) - 1] if rows and rows[-1][0] == ALL else []
    judge = summary.judge.get("model") or "unknown"
    caption = f"{run.suite}, {run.name}; judge {judge}, prompt {summary.judge.get('protocol') or 'none'}. "
    caption += "Intervals are 95%, clustered by clip."
    if summary.judge.get("parsing") == "original":
        caption += " Replies are read as the original reads them."
    if references:
        groups.append(len(rows))
        caption += f" Below the last rule: published, by other judges. {WARNING} Source: {SOURCE}"
        blank = [None] * (len(columns) - 4)
        rows += [
            [f"{r.set}: {r.model}, {r.judge}", *blank, f"{100 * r.accuracy:.2f}", None, f"{r.score:.2f}"]
            for r in references
        ]
    return latex_table(columns, rows, caption, groups)
