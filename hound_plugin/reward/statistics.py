"""Numbers of the report: rank correlation, agreement, histograms. Small, and without scipy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np


def ranks(values: Sequence[float]) -> np.ndarray:
    """Ranks from 1; ties share their mean rank."""
    array = np.asarray(values, dtype=float)
    _, inverse, counts = np.unique(array, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]


def pearson(one: Sequence[float], two: Sequence[float]) -> float:
    """Linear correlation, -1 to 1; NaN for fewer than two values or a constant side."""
    if len(one) < 2:
        return math.nan
    a, b = (np.asarray(side, dtype=float) - np.mean(side) for side in (one, two))
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale else math.nan


def spearman(one: Sequence[float], two: Sequence[float]) -> float:
    """Rank correlation (Spearman), -1 to 1; NaN as :func:`pearson`."""
    if len(one) < 2:
        return math.nan
    return pearson(list(ranks(one)), list(ranks(two)))


def kappa(
    one: Sequence[int], two: Sequence[int], labels: Sequence[int] = (1, 2, 3, 4, 5), weighted: bool = False
) -> float:
    """Cohen's kappa of two raters, at most 1 (``weighted``: by squared distance); NaN where it has no value."""
    if not one:
        return math.nan
    index = {label: number for number, label in enumerate(labels)}
    table = np.zeros((len(labels), len(labels)))
    for a, b in zip(one, two, strict=True):
        table[index[a], index[b]] += 1
    table /= table.sum()
    chance = np.outer(table.sum(1), table.sum(0))
    distance = np.subtract.outer(np.arange(len(labels)), np.arange(len(labels)))
    weights = distance**2 if weighted else (distance != 0).astype(float)
    expected = float((weights * chance).sum())
    return 1 - float((weights * table).sum()) / expected if expected else math.nan


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
