"""Small charts as rectangles and texts, which the templates draw as SVG; they need no script and scale no letters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 350, 200
LEFT, RIGHT, TOP, BOTTOM = 44, 6, 26, 40
MOST_TICKS = 9
LETTER = 6.3  # pixels, about


@dataclass(frozen=True)
class Bar:
    """A rectangle, in pixels; ``opacity`` from 0 to 1 or None."""

    x: float
    y: float
    width: float
    height: float
    tone: str
    title: str
    opacity: float | None = None


@dataclass(frozen=True)
class Tick:
    """A short text at a place, in pixels."""

    x: float
    y: float
    text: str
    anchor: str = "middle"
    tone: str = ""


@dataclass(frozen=True)
class Line:
    """A line of the grid, in pixels."""

    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True)
class Chart:
    """A drawing of ``width`` x ``height`` pixels."""

    title: str
    summary: str
    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    legend: tuple[tuple[str, str], ...] = ()
    width: int = WIDTH
    height: int = HEIGHT


def histogram(values: Sequence[float], edges: Sequence[float]) -> list[int]:
    """Counts between edges, the last one included."""
    return [int(count) for count in np.histogram(np.asarray(values, dtype=float), bins=list(edges))[0]]


def even_bins(values: Sequence[float], most: int) -> tuple[list[float], list[str]]:
    """Edges of at most ``most`` bins for whole numbers from 0, and a label for each, such as ``5`` or ``10-19``.

    The bins are 1, 2, 5, 10, 20, 50 ... wide.
    """
    top = int(max(values, default=0))
    width = next(step for step in _widths() if (top // step) + 1 <= most)
    starts = range(0, top + 1, width)
    labels = [str(start) if width == 1 else f"{start}-{start + width - 1}" for start in starts]
    return [*(start - 0.5 for start in starts), starts[-1] + width - 0.5], labels


def _widths() -> Iterator[int]:
    power = 1
    while True:
        yield from (power, 2 * power, 5 * power)
        power *= 10


def bar_chart(
    title: str, labels: Sequence[str], groups: Sequence[tuple[str, str, Sequence[int]]], x: str, y: str
) -> Chart:
    """Bars with a tick under each (under some, if there are many), and their counts on a scale from 0.

    Args:
        title: of the chart.
        labels: under the bars.
        groups: name, tone and counts of each group of bars; drawn side by side.
        x, y: names of the axes.
    """
    top = _round_up(max((max(counts, default=0) for _, _, counts in groups), default=0))
    inner_width, inner_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    slot = inner_width / max(1, len(labels))
    width = slot * 0.8 / len(groups)
    bars = []
    for index, (name, tone, counts) in enumerate(groups):
        for position, count in enumerate(counts):
            height = max(1.0, inner_height * count / top) if count else 0.0  # what is there can be seen
            left = LEFT + slot * (position + 0.1) + width * index
            text = f"{labels[position]}: {count}{f' {name}' if name else ''}"
            bars.append(Bar(_px(left), _px(TOP + inner_height - height), _px(width), _px(height), tone, text))
    every = math.ceil(len(labels) / MOST_TICKS)
    ticks = [
        Tick(_px(LEFT + slot * (position + 0.5)), HEIGHT - BOTTOM + 14, _fitted(label, slot * every))
        for position, label in enumerate(labels)
        if position % every == 0
    ]
    counts_ticks, lines = _scale(top, inner_height)
    legend = tuple((name, tone) for name, tone, _ in groups if name)
    summary = "; ".join(f"{label} {sum(counts[i] for _, _, counts in groups)}" for i, label in enumerate(labels))
    return Chart(title, summary, tuple(bars), (*ticks, *counts_ticks, *_axes(x, y)), lines, legend)


def density_chart(
    title: str, columns: Sequence[str], rows: Sequence[str], counts: Sequence[Sequence[int]], x: str, y: str
) -> Chart:
    """Counts by two values: the darker, the more.

    Args:
        title: of the chart.
        columns, rows: labels from left to right and from the bottom up.
        counts: ``[rows][columns]``.
        x, y: names of the axes.
    """
    inner_width, inner_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    slot, step = inner_width / max(1, len(columns)), inner_height / max(1, len(rows))
    most = max((count for row in counts for count in row), default=0)
    bars, ticks = [], []
    for number, row in enumerate(counts):
        y_of = TOP + inner_height - step * (number + 1)
        for position, count in enumerate(row):
            if count:
                opacity = round(0.15 + 0.85 * count / most, 3)
                name = f"{columns[position]}, {rows[number]}: {count}"
                x_of = LEFT + slot * position
                bars.append(Bar(_px(x_of), _px(y_of), _px(slot), _px(step), "plain", name, opacity))
        if number % math.ceil(len(rows) / MOST_TICKS) == 0:
            ticks.append(Tick(LEFT - 5, _px(y_of + step / 2 + 4), rows[number], "end"))
    every = math.ceil(len(columns) / MOST_TICKS)
    ticks += [
        Tick(_px(LEFT + slot * (position + 0.5)), HEIGHT - BOTTOM + 14, _fitted(label, slot * every))
        for position, label in enumerate(columns)
        if position % every == 0
    ]
    bottom = TOP + inner_height
    lines = (Line(LEFT, bottom, WIDTH - RIGHT, bottom), Line(LEFT, TOP, LEFT, bottom))
    summary = f"{sum(map(sum, counts))} in total, at most {most} in one field"
    return Chart(title, summary, tuple(bars), (*ticks, *_axes(x, y)), lines)


def _axes(x: str, y: str) -> tuple[Tick, ...]:
    return (
        Tick((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x, tone="axis"),
        Tick(2, 11, y, "start", "axis"),
    )


def _scale(top: int, inner_height: float) -> tuple[list[Tick], tuple[Line, ...]]:
    """Counts at the side, and the lines of the grid."""
    steps = next(count for count in (4, 5, 3, 2, 1) if top % count == 0)
    ticks, lines = [], []
    for step in range(steps + 1):
        y = TOP + inner_height * (1 - step / steps)
        ticks.append(Tick(LEFT - 5, _px(y + 4), f"{top * step // steps:,}", "end"))
        lines.append(Line(LEFT, _px(y), WIDTH - RIGHT, _px(y)))
    return ticks, tuple(lines)


def _round_up(most: int) -> int:
    """The top of a scale: 1, 2, 4, 5, 10 ... 20, 25, 40, 50, 100 ..."""
    if most <= 1:
        return 1
    power = 10 ** int(math.log10(most))
    steps = [power * factor // 2 for factor in (2, 3, 4, 5, 6, 8, 10, 12, 16, 20)]
    return next(step for step in steps if step >= most and step > 0)


def _fitted(label: str, width: float) -> str:
    """A label that fits under its bar; the bar's title has all of it."""
    most = max(2, int(width / LETTER))
    return label if len(label) <= most else label[: most - 1] + "…"


def _px(value: float) -> float:
    return round(value, 1)
