"""What people read of a run: the report (Markdown, plots, one self-contained HTML page) and the pairs' dataset card."""

from __future__ import annotations

import base64
import html
import io
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hound_plugin.records.files import write_json, write_whole
from hound_plugin.records.jsonl import read_objects
from hound_plugin.reward.run_folder import Row
from hound_plugin.reward.settings import RewardSettings

PAIRS_ON_PAGE = 300
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:1em 0}td,th{border:1px solid #ccc;padding:.3em .7em;text-align:left;"
    "vertical-align:top}img{max-width:100%}.smoke{background:#fff3cd;border:1px solid #e0c060;padding:.7em}"
    ".text{white-space:pre-wrap}"
)


def write_report(folder: Path, summary: Mapping[str, Any], stages: Mapping[str, Any], pair_file: Path) -> Path:
    """Write ``report/``; returns the path of the HTML page.

    Args:
        folder: the run folder.
        summary: of :func:`hound_plugin.reward.summary.summarise`.
        stages: counts, tokens and cost by stage, as in ``run.json``.
        pair_file: the pairs; the page shows the first of them.
    """
    target = folder / "report"
    plots = draw_plots(summary)
    for name, data in plots.items():
        write_whole(target / name, data)
    sections = tables(summary, stages)
    write_whole(target / "report.md", to_markdown(summary, sections, list(plots)))
    write_whole(target / "report.html", to_html(summary, sections, plots, list(read_objects(pair_file))))
    points = {**summary, "length_score": {k: v for k, v in summary["length_score"].items() if k != "points"}}
    write_json(target / "report.json", {**points, "stages": stages})
    return target / "report.html"


Table = tuple[str, Sequence[str], Sequence[Sequence[Any]]]


def tables(summary: Mapping[str, Any], stages: Mapping[str, Any]) -> list[Table]:
    """Every table of the report: heading, columns, rows."""
    sections: list[Table] = [("Counts", ("what", "number"), list(summary["counts"].items()))]
    if summary["missing_by_reason"]:
        sections.append(("Judgements without a score", ("why", "number"), list(summary["missing_by_reason"].items())))
    dropped = stages.get("pairs", {})
    for key, title in (("questions_dropped", "Questions without a pair"), ("pairs_dropped", "Pairs left out")):
        if dropped.get(key):
            sections.append((title, ("why", "number"), list(dropped[key].items())))
    columns = ("source", "questions", "answers", "scored", "mean_score", "pairs")
    sections.append(("By source", columns, [[row[name] for name in columns] for row in summary["sources"]]))
    numbers, pairs = summary["length_score"], summary["pairs"]
    sections.append(
        (
            "Length and score",
            ("what", "value"),
            [
                ("Spearman of words and score, all answers", numbers["spearman"]),
                ("the same within questions, mean", numbers["spearman_within_questions"]),
                ("words of chosen answers, mean", pairs["mean_words"][0]),
                ("words of rejected answers, mean", pairs["mean_words"][1]),
                ("pairs whose chosen answer is longer", pairs["chosen_longer"]),
            ],
        )
    )
    for key, title in (("agreement", "Agreement of two judgements"), ("second", "Agreement with the second judge")):
        if summary[key]:
            sections.append((title, ("what", "value"), list(summary[key].items())))
    for stage in ("sample", "judge"):
        usage = stages.get(f"{stage}_usage")
        if usage:
            names = ("requests", "answers", "prompt_tokens", "completion_tokens", "uncounted", "cost")
            sections.append((f"Use of the {stage} server", ("what", "value"), [(n, usage.get(n)) for n in names]))
    return sections


def to_markdown(summary: Mapping[str, Any], sections: Sequence[Table], plots: Sequence[str]) -> str:
    """The report as Markdown."""
    lines = ["# Preference data: report", ""]
    if summary["smoke_test"]:
        lines += [f"> **{summary['smoke_test']}**", ""]
    for title, columns, rows in sections:
        lines += [f"## {title}", "", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        lines += ["| " + " | ".join(_cell(value).replace("|", "\\|") for value in row) + " |" for row in rows]
        lines.append("")
    lines += [f"![{name}]({name})" for name in plots]
    judges = "\n".join(f"- `{judge}`" for judge in summary["judges"])
    return "\n".join([*lines, "", "## Judges", "", judges, ""])


def to_html(
    summary: Mapping[str, Any], sections: Sequence[Table], plots: Mapping[str, bytes], pairs: Sequence[Row]
) -> str:
    """The report as one HTML page; all text in it is escaped."""
    parts = ["<!doctype html><html lang=en><meta charset=utf-8><title>Preference data: report</title>"]
    parts.append(f"<style>{STYLE}</style><h1>Preference data: report</h1>")
    if summary["smoke_test"]:
        parts.append(f"<p class=smoke><b>{html.escape(summary['smoke_test'])}</b></p>")
    for title, columns, rows in sections:
        parts += [f"<h2>{html.escape(title)}</h2>", _html_table(columns, rows)]
    for name, data in plots.items():
        parts.append(f'<img alt="{name}" src="data:image/png;base64,{base64.b64encode(data).decode()}">')
    parts.append("<h2>Judges</h2><ul>" + "".join(f"<li>{html.escape(j)}" for j in summary["judges"]) + "</ul>")
    shown = pairs[:PAIRS_ON_PAGE]
    parts.append(f"<h2>Pairs ({len(shown)} of {len(pairs)})</h2>")
    names = ("id", "video", "prompt", "chosen", "chosen_score", "rejected", "rejected_score")
    parts.append(_html_table(names, [[pair.get(name, pair.get("image", "")) for name in names] for pair in shown]))
    return "\n".join(parts) + "</html>\n"


def _html_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    head = "".join(f"<th>{html.escape(name)}" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td class=text>{html.escape(_cell(value))}</td>" for value in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


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
    axes.set(title=f"length and score, Spearman {_cell(value)}", xlabel="words", ylabel="score")


# --- the dataset card


def dataset_card(
    settings: RewardSettings, rows: Sequence[Row], judge: Mapping[str, Any], provenance: Mapping[str, Any]
) -> str:
    """Markdown with the hub's header: what the data set contains, how it was made, how to train on it."""
    pairs, name = settings.pairs, settings.pairs.name
    smoke = (
        f"\n> **{provenance['smoke_test']}.** Do not publish or train on it.\n" if "smoke_test" in provenance else ""
    )
    lengths = [(len(row["chosen"].split()), len(row["rejected"].split())) for row in rows]
    longer = sum(one > two for one, two in lengths)
    means = [statistics.fmean(side) for side in zip(*lengths, strict=True)] if lengths else [0.0, 0.0]
    given = pairs.model_dump(exclude={"name"})
    policy = ", ".join(f"{key} {value}" for key, value in given.items())
    return f"""---
tags: [preference, video, dpo, llava-hound]
size_categories: [{_size(len(rows))}]
---
# {name}
{smoke}
{len(rows)} preference pairs on {len({row["question_id"] for row in rows})} questions about videos.

| how it was made | |
|---|---|
| answers | {settings.sample.n} per question from `{provenance.get("sampler", "")}`, T {settings.sample.temperature}, \
top_p {settings.sample.top_p} |
| judge | `{judge.get("model", "")}` ({judge.get("backend", "")}), protocol `{judge.get("protocol", "")}` |
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
