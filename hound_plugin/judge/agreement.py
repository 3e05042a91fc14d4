"""How far two sets of judgements agree: correlation, rank correlation, kappa. Tested against scipy and statsmodels."""

from __future__ import annotations

import math
from collections.abc import Sequence

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


def kappa(one: Sequence[int], two: Sequence[int], labels: Sequence[int], weighted: bool = False) -> float:
    """Cohen's kappa of two raters, at most 1 (``weighted``: by squared distance); NaN where it has no value.

    Args:
        one, two: what each rater said about the same things.
        labels: everything that they may say, in order.
        weighted: by the squared distance of labels.
    """
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
