"""What people read of a run: the report (Markdown, plots, one self-contained HTML page) and the pairs' dataset card."""

from __future__ import annotations

import io
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hound_plugin.pages.content import Table
from hound_plugin.pages.frames import FrameReader
from hound_plugin.records.files import write_json, write_whole
from hound_plugin.records.jsonl import read_objects
from hound_plugin.records.questions import Question
from hound_plugin.records.tables import escape_markdown, markdown_table, shown_value
from hound_plugin.records.words import words_of
from hound_plugin.reward.candidates import read_candidates
from hound_plugin.reward.facts import recorded_judges, run_facts
from hound_plugin.reward.page import missing_replies, report_page
from hound_plugin.reward.run_folder import SCORES, Row, excluded_ids
from hound_plugin.reward.scoring import latest
from hound_plugin.reward.settings import RewardSettings

Facts = Sequence[tuple[str, Any]]


def write_report(
    folder: Path,
    settings: RewardSettings,
    questions: Sequence[Question],
    summary: Mapping[str, Any],
    stages: Mapping[str, Any],
    read: FrameReader,
) -> Path:
    """Write ``report/``; returns the path of the HTML page.

    Args:
        folder: the run folder.
        settings: of the run, to say what was run.
        questions: of the run.
        summary: of :func:`hound_plugin.reward.summary.summarise`.
        stages: counts, tokens and cost by stage, as in ``run.json``.
        read: reads the frames that are shown with the pairs.
    """
    target = folder / "report"
    plots = draw_plots(summary)
    for name, data in plots.items():
        write_whole(target / name, data)
    pairs = list(read_objects(folder / "pairs" / f"{settings.pairs.name}.jsonl"))
    scores = latest(folder / SCORES)
    answers = {(name, number): row for name, rows in read_candidates(folder).items() for number, row in rows.items()}
    facts = run_facts(settings, recorded_judges(scores), list(answers.values()))
    sections = tables(summary, stages)
    missing = missing_replies(scores, answers)
    write_whole(target / "report.md", to_markdown(summary, facts, sections, list(plots), missing))
    known = {question.id: question for question in questions}
    dropped = excluded_ids(folder)
    page = report_page(summary, facts, sections, pairs, known, scores, answers, dropped, read)
    write_whole(target / "report.html", page)
    points = {**summary, "length_score": {k: v for k, v in summary["length_score"].items() if k != "points"}}
    write_json(target / "report.json", {**points, "stages": stages})
    return target / "report.html"


def tables(summary: Mapping[str, Any], stages: Mapping[str, Any]) -> list[Table]:
    """Every table of the report."""
    sections = [Table("Counts", ("what", "number"), tuple(summary["counts"].items()))]
    if summary["missing_by_reason"]:
        rows = tuple(summary["missing_by_reason"].items())
        sections.append(Table("Judgements without a score", ("why", "number"), rows))
    left_out = stages.get("pairs", {})
    for key, title in (("questions_dropped", "Questions without a pair"), ("pairs_dropped", "Pairs left out")):
        if left_out.get(key):
            sections.append(Table(title, ("why", "number"), tuple(left_out[key].items())))
    columns = ("source", "questions", "answers", "scored", "mean_score", "pairs")
    by_source = tuple(tuple(row[name] for name in columns) for row in summary["sources"])
    sections.append(Table("By source", tuple(name.replace("_", " ") for name in columns), by_source))
    numbers, pairs = summary["length_score"], summary["pairs"]
    lengths = (
        ("Spearman of words and score, all answers", numbers["spearman"]),
        ("the same within questions, mean", numbers["spearman_within_questions"]),
        ("words of chosen answers, mean", pairs["mean_words"][0]),
        ("words of rejected answers, mean", pairs["mean_words"][1]),
        ("pairs whose chosen answer is longer", pairs["chosen_longer"]),
    )
    sections.append(Table("Length and score", ("what", "value"), lengths))
    for key, title in (("agreement", "Agreement of two judgements"), ("second", "Agreement with the second judge")):
        if summary[key]:
            rows = tuple((name.replace("_", " "), value) for name, value in summary[key].items())
            sections.append(Table(title, ("what", "value"), rows))
    for stage in ("sample", "judge"):
        usage = stages.get(f"{stage}_usage")
        if usage:
            names = ("requests", "answers", "prompt_tokens", "completion_tokens", "uncounted", "cost")
            rows = tuple((name.replace("_", " "), usage.get(name)) for name in names)
            sections.append(Table(f"Use of the {stage} server", ("what", "value"), rows))
    return sections


def to_markdown(
    summary: Mapping[str, Any],
    facts: Facts,
    sections: Sequence[Table],
    plots: Sequence[str],
    missing: Mapping[str, Any],
) -> str:
    """The report as Markdown; texts of others are escaped."""
    lines = ["# Preference data: report", ""]
    if summary["smoke_test"]:
        lines += [f"> **{escape_markdown(summary['smoke_test'])}**", ""]
    lines += ["## What was run", "", markdown_table(("what", "value"), facts), ""]
    for section in sections:
        lines += [f"## {escape_markdown(section.title)}", "", markdown_table(section.columns, section.rows), ""]
    lines += [f"![{name}]({name})" for name in plots]
    if missing["rows"]:
        columns = ("answer", "why", "text", "reply")
        rows = [(row["id"], row["why"], row["answer"], row["raw"][:500]) for row in missing["rows"]]
        lines += ["", f"## {missing['title']}: replies", "", missing["note"], "", markdown_table(columns, rows)]
    judges = [f"- {escape_markdown(judge)}" for judge in summary["judges"]]
    return "\n".join([*lines, "", "## Judges, as recorded", "", *judges, ""])


def draw_plots(summary: Mapping[str, Any]) -> dict[str, bytes]:
    """PNG files: scores; scores and lengths of pairs; length against score."""
    from matplotlib.figure import Figure  # without pyplot: no window, no global state

    plots = {}
    for name, draw in (("scores.png", _draw_scores), ("pairs.png", _draw_pairs), ("length.png", _draw_length)):
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        draw(figure, summary)
        if summary["smoke_test"]:
            figure.suptitle(summary["smoke_test"], fontsize=8, color="darkred")
        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=110, format="png", metadata={"Software": None})
        plots[name] = buffer.getvalue()
    return plots


def _draw_scores(figure: Any, summary: Mapping[str, Any]) -> None:
    axes = figure.subplots()
    scores = [str(score) for score in summary["scores"]["middles"]]
    axes.bar(scores, summary["scores"]["counts"], color="#4477aa")
    axes.set(title="scores of answers", xlabel="score", ylabel="answers")


def _draw_pairs(figure: Any, summary: Mapping[str, Any]) -> None:
    left, right = figure.subplots(1, 2)
    pairs = summary["pairs"]
    positions = range(len(pairs["middles"]))
    left.bar([p - 0.2 for p in positions], pairs["chosen_scores"], 0.4, label="chosen", color="#228833")
    left.bar([p + 0.2 for p in positions], pairs["rejected_scores"], 0.4, label="rejected", color="#cc6677")
    left.set_xticks(list(positions), [str(score) for score in pairs["middles"]])
    left.set(title="scores in pairs", ylabel="pairs")
    left.legend()
    sides = list(zip(*pairs["lengths"], strict=True)) or [(), ()]
    right.hist([list(side) for side in sides], bins=20, label=["chosen", "rejected"], color=["#228833", "#cc6677"])
    right.set(title="lengths in pairs", xlabel="words", ylabel="pairs")


def _draw_length(figure: Any, summary: Mapping[str, Any]) -> None:
    axes = figure.subplots()
    points = summary["length_score"]["points"]
    axes.plot([p[0] for p in points], [p[1] for p in points], ".", alpha=0.3, color="#4477aa")
    value = summary["length_score"]["spearman"]
    axes.set(title=f"length and score, Spearman {shown_value(value)}", xlabel="words", ylabel="score")


# --- the dataset card


def dataset_card(
    settings: RewardSettings, rows: Sequence[Row], judge: Mapping[str, Any], provenance: Mapping[str, Any]
) -> str:
    """Markdown with the hub's header: what the data set contains, how it was made, how to train on it."""

    def text(value: Any) -> str:
        return escape_markdown(str(value))

    pairs, name, sample = settings.pairs, settings.pairs.name, settings.sample
    sampler = text(provenance.get("sampler", ""))
    answers = f"{sample.n} per question from {sampler}, T {sample.temperature}, top_p {sample.top_p}"
    if sample.backend == "given":
        answers = f"from the file {text(sample.answers)}, by {sampler}"
    smoke = (
        f"\n> **{provenance['smoke_test']}.** Do not publish or train on it.\n" if "smoke_test" in provenance else ""
    )
    lengths = [(len(words_of(row["chosen"])), len(words_of(row["rejected"]))) for row in rows]
    longer = sum(one > two for one, two in lengths)
    means = [statistics.fmean(side) for side in zip(*lengths, strict=True)] if lengths else [0.0, 0.0]
    given = pairs.model_dump(exclude={"name"})
    policy = ", ".join(f"{key} {value}" for key, value in given.items())
    return f"""---
tags: [preference, video, dpo, llava-hound]
size_categories: [{_size(len(rows))}]
---
# {text(name)}
{smoke}
{len(rows)} preference pairs on {len({row["question_id"] for row in rows})} questions about videos.

| how it was made | |
|---|---|
| answers | {answers} |
| judge | {text(judge.get("model", ""))} ({text(judge.get("backend", ""))}), \
protocol {text(judge.get("protocol", ""))} |
| judgements per answer | {settings.judge.k} |
| pairs | {policy} |
| seed | {settings.seed} |
| words, chosen / rejected (mean) | {means[0]:.1f} / {means[1]:.1f}; chosen is longer in {longer} of {len(rows)} |

Fields: `id`, `video` or `image`, `prompt`, `chosen`, `rejected`, `chosen_score`, `rejected_score` (1 to 5, or on the
scale of the protocol; null for a reference answer, which was not judged), `question_id`, `chosen_candidate`,
`rejected_candidate`, `source`, `judge`, `protocol`, `sampler`. Scores are a language model's opinion.

To train on it with LLaMA-Factory: `dataset: {name}`, `dataset_dir:` this folder, `media_dir:` the folder that the
clips' paths are relative to, `stage: dpo`.
"""


def _size(number: int) -> str:
    for limit, text in ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K")):
        if number < limit:
            return text
    return "100K<n<1M"
