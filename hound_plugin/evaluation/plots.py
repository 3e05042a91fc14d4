"""Pictures of an evaluation as PNG files."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

from hound_plugin.evaluation.published import PublishedRow
from hound_plugin.evaluation.statistics import Estimate
from hound_plugin.evaluation.summary import ALL, Summary
from hound_plugin.records.tables import one_line

OWN, COUNTED, REFERENCE, GRID = "#1f5fa8", "#c2571a", "#8a8a8a", "#dddddd"
MOST_LETTERS = 28  # of a name
ON_THE_EDGE: dict[str, Any] = {"clip_on": False, "zorder": 3}
"""Points at 0 or 100% are whole."""


def draw_accuracy(summary: Summary, published: Sequence[PublishedRow], title: str) -> bytes:
    """Accuracy of every set with its interval, with missing judgements left out and counted as wrong."""
    rows = [row for row in summary.rows if row.accuracy is not None]
    judges = sorted({row.judge for row in published})
    markers = dict(zip(judges, ("D", "s", "^", "v", "P"), strict=False))

    def draw(axes: Any) -> None:
        labelled: set[str] = set()

        def label(text: str) -> str | None:
            return None if text in labelled or labelled.add(text) else text  # type: ignore[func-returns-value]

        for place, row in enumerate(rows):
            _point(axes, row.accuracy, place - 0.14, 100, OWN, label("this run, 95% by clip"))
            _point(axes, row.accuracy_if_wrong, place + 0.04, 100, COUNTED, label("missing counted as wrong"))
            for reference in (item for item in published if item.set == row.name):
                axes.plot(
                    100 * reference.accuracy, place + 0.25, markers.get(reference.judge, "x"), markersize=5,
                    color=REFERENCE, markerfacecolor="white" if "SFT" in reference.model else REFERENCE,
                    label=label(f"published, {reference.model}, judge {reference.judge}"),
                )  # fmt: skip
        axes.set_yticks(range(len(rows)), [_name(row.name) for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0, 100)
        axes.set_xlabel("accuracy, %")
        axes.set_title(_plain(title), fontsize=10, loc="left")
        note = "published: other judges, not comparable" if published else None
        axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, title=note, title_fontsize=7)

    return figure_png((9.5, 1.4 + 0.75 * max(1, len(rows)) + (0.6 if published else 0)), draw)


def _point(
    axes: Any, estimate: Estimate | None, place: float, factor: float, colour: str, label: str | None = None
) -> None:
    """An estimate and its interval, both multiplied by ``factor``."""
    if estimate is None:
        return
    if estimate.low is not None and estimate.high is not None:
        axes.plot([factor * estimate.low, factor * estimate.high], [place, place], color=colour, linewidth=2)
    axes.plot(factor * estimate.mean, place, "o", color=colour, markersize=6, label=label, **ON_THE_EDGE)


def draw_sample_size(steps: Sequence[tuple[int, Estimate]], what: str, factor: float, title: str) -> bytes:
    """How an estimate and its interval settle with the number of clips.

    Args:
        steps: of :func:`hound_plugin.evaluation.statistics.by_sample_size`.
        what: the axis: what is estimated.
        factor: 100 for shares in %.
        title: of the picture.
    """

    def draw(axes: Any) -> None:
        clips = [number for number, _ in steps]
        axes.fill_between(
            clips,
            [factor * (e.mean if e.low is None else e.low) for _, e in steps],
            [factor * (e.mean if e.high is None else e.high) for _, e in steps],
            color=OWN, alpha=0.2, linewidth=0, label="95% by clip",
        )  # fmt: skip
        means = [factor * estimate.mean for _, estimate in steps]
        axes.plot(clips, means, color=OWN, marker=".", label="estimate", **ON_THE_EDGE)
        axes.axhline(factor * steps[-1][1].mean, color=REFERENCE, linewidth=0.8, linestyle="--", label="all clips")
        axes.set_xscale("log")
        ticks = [clip for clip in (2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000) if clip <= clips[-1]]
        axes.set_xticks(ticks, [str(clip) for clip in ticks])
        axes.minorticks_off()
        if factor == 100:
            axes.set_ylim(0, 100)
        axes.set_xlabel("clips, in a random order")
        axes.set_ylabel(what)
        axes.set_title(_plain(title), fontsize=10, loc="left")
        axes.legend(fontsize=8, frameon=False)

    return figure_png((7, 3.4), draw)


def draw_estimates(
    rows: Sequence[tuple[str, Estimate | None]], factor: float, axis: str, title: str, *, zero: bool = False
) -> bytes:
    """One estimate with its interval for each row.

    Args:
        rows: name and estimate.
        factor: 100 for shares in %.
        axis: what is estimated.
        title: of the picture.
        zero: whether zero is a line, as for differences.
    """

    def draw(axes: Any) -> None:
        if zero:
            axes.axvline(0, color=REFERENCE, linewidth=1)
        for place, (_, estimate) in enumerate(rows):
            _point(axes, estimate, place, factor, OWN)
        axes.set_yticks(range(len(rows)), [_name(name) for name, _ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(axis)
        axes.set_title(_plain(title), fontsize=10, loc="left")

    return figure_png((7, 1.4 + 0.5 * max(1, len(rows))), draw)


def draw_confusion(
    table: Sequence[Sequence[int]], rows: Sequence[str], columns: Sequence[str], axes_names: tuple[str, str], title: str
) -> bytes:
    """Counts of two judges' values against each other: ``table[row][column]``."""

    def draw(axes: Any) -> None:
        axes.imshow(table, cmap="Blues", aspect="equal")
        most = max((value for line in table for value in line), default=0)
        for y, line in enumerate(table):
            for x, value in enumerate(line):
                colour = "white" if value > most / 2 else "black"
                axes.text(x, y, str(value), ha="center", va="center", color=colour, fontsize=9)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_xticks(range(len(columns)), columns)
        axes.set_ylabel(_name(axes_names[0]))
        axes.set_xlabel(_name(axes_names[1]))
        axes.set_title(_plain(title), fontsize=10, loc="left")
        axes.grid(False)

    return figure_png((1.8 + 0.7 * len(columns), 1.5 + 0.7 * len(rows)), draw)


def figure_png(size: tuple[float, float], draw: Callable[[Any], None]) -> bytes:
    """A PNG of one pair of axes; equal input gives equal bytes."""
    from matplotlib.figure import Figure  # without pyplot: no window, no global state

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.set_axisbelow(True)
    axes.grid(axis="x", color=GRID, linewidth=0.7)
    draw(axes)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _name(text: str) -> str:
    """A name for an axis."""
    return "all questions" if text == ALL else _plain(one_line(text, MOST_LETTERS))


def _plain(text: str) -> str:
    """A text in which ``$`` begins no formula."""
    return text.replace("$", r"\$")
