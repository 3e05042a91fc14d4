"""Intervals and tests for accuracies and mean scores, where several questions share a clip.

Questions about one clip are right or wrong together, so that they carry less information than as many questions about
different clips. Every interval here treats the clip as the unit (a cluster).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hound_plugin.errors import EnvironmentMismatchError

CONFIDENCE = 0.95
RESAMPLES = 4000
_AT_A_TIME = 500
_ROUNDING = 1e-9  # shares that differ by less are equal: thirds and means of means are not exact


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval; ``low`` and ``high`` are None where there are fewer than two clips."""

    mean: float
    low: float | None
    high: float | None
    n: int
    clusters: int


@dataclass(frozen=True)
class McNemar:
    """McNemar's exact test of paired verdicts: questions that only the first, and only the second, got right."""

    only_first: int
    only_second: int
    p_value: float


def cluster_sums(values: Sequence[float], clusters: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the values of each cluster, in the order in which clusters first occur."""
    index: dict[Hashable, int] = {}
    position = np.array([index.setdefault(cluster, len(index)) for cluster in clusters], dtype=int)
    array = np.asarray(values, dtype=float)
    size = len(index)
    return np.bincount(position, array, size), np.bincount(position, minlength=size).astype(float)


def standard_error(values: Sequence[float], clusters: Sequence[Hashable]) -> float:
    """Cluster-robust standard error of the mean, as of a regression on a constant; NaN for fewer than two clusters."""
    sums, sizes = cluster_sums(values, clusters)
    count, total = len(sizes), sizes.sum()
    if count < 2:
        return math.nan
    residuals = sums - sizes * (sums.sum() / total)
    return math.sqrt(float(residuals @ residuals) * count / (count - 1)) / float(total)


def accuracy(correct: Sequence[bool], clusters: Sequence[Hashable]) -> Estimate | None:
    """A share with its 95% interval: Wilson's, with the number of independent answers that the clips are worth.

    That number is what gives the cluster-robust variance, at most the number of answers; where all answers are equal,
    the number of clips. Student's t with clips - 1 degrees of freedom replaces the normal distribution.

    Args:
        correct: verdicts.
        clusters: the clip of each.

    Returns:
        None of no verdicts.
    """
    if not len(correct):
        return None
    return _on_scale([float(value) for value in correct], clusters, (0.0, 1.0), most=len(correct))


def _on_scale(
    values: Sequence[float], clusters: Sequence[Hashable], bounds: tuple[float, float], most: float = math.inf
) -> Estimate:
    """A mean between two bounds with Wilson's interval, which neither leaves them nor shrinks to nothing at one.

    Args:
        values: one or more.
        clusters: the clip of each.
        bounds: of the scale.
        most: largest number of independent answers that the clips may be worth.
    """
    lowest, span = bounds[0], bounds[1] - bounds[0]
    shares = [(value - lowest) / span for value in values]
    count, share = len(set(clusters)), math.fsum(shares) / len(shares)
    mean = math.fsum(values) / len(values)
    if count < 2:
        return Estimate(mean, None, None, len(values), count)
    error = standard_error(shares, clusters)
    independent = share * (1 - share) / error**2 if error > _ROUNDING else float(count)
    independent = min(independent, most)
    square = _t(count) ** 2
    centre = (share + square / (2 * independent)) / (1 + square / independent)
    half = math.sqrt(square * (share * (1 - share) / independent + square / (4 * independent**2)))
    half /= 1 + square / independent
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return Estimate(mean, lowest + span * low, lowest + span * high, len(values), count)


def mean_score(
    scores: Sequence[float], clusters: Sequence[Hashable], bounds: tuple[float, float] | None = None
) -> Estimate | None:
    """A mean with its 95% interval by the cluster-robust standard error and Student's t.

    On a scale with ends it is Wilson's, as for an accuracy: near an end few clips look alike by chance, and the
    symmetric interval would be too narrow.

    Args:
        scores: numbers.
        clusters: the clip of each.
        bounds: ends of the scale, if it has any.

    Returns:
        None of no scores.
    """
    if not len(scores):
        return None
    if bounds is not None:
        return _on_scale(scores, clusters, bounds)
    mean, count = math.fsum(scores) / len(scores), len(set(clusters))
    if count < 2:
        return Estimate(mean, None, None, len(scores), count)
    half = _t(count) * standard_error(scores, clusters)
    return Estimate(mean, mean - half, mean + half, len(scores), count)


def _t(count: int) -> float:
    """How many standard errors an interval extends, with this number of clusters."""
    from scipy.stats import t

    return float(t.ppf((1 + CONFIDENCE) / 2, count - 1))


def paired_difference(
    first: Sequence[float], second: Sequence[float], clusters: Sequence[Hashable], seed: int = 0, span: float = 1.0
) -> Estimate | None:
    """Mean of ``second - first`` with its 95% interval: percentiles of a bootstrap that resamples whole clips.

    Where all clips differ alike, such as not at all, resampling shows nothing; then the interval allows for the
    largest share of differing clips that a sample of this size may have missed: 3.7% for 100 clips.

    Args:
        first, second: values of the same questions.
        clusters: the clip of each.
        seed: of the resampling; equal seeds give equal intervals.
        span: largest difference that a question can have.

    Returns:
        None of no questions.
    """
    if not len(first):
        return None
    differences = np.asarray(second, dtype=float) - np.asarray(first, dtype=float)
    sums, sizes = cluster_sums(differences.tolist(), clusters)
    mean, count = float(sums.sum() / sizes.sum()), len(sizes)
    if count < 2:
        return Estimate(mean, None, None, len(differences), count)
    if np.ptp(sums / sizes) <= _ROUNDING * span:
        unseen = 1 - ((1 - CONFIDENCE) / 2) ** (1 / count)
        low, high = mean - unseen * (span + mean), mean + unseen * (span - mean)
        return Estimate(mean, low, high, len(differences), count)
    source = np.random.default_rng(seed)
    means = []
    for start in range(0, RESAMPLES, _AT_A_TIME):
        chosen = source.integers(0, count, (min(_AT_A_TIME, RESAMPLES - start), count))
        means.append(sums[chosen].sum(1) / sizes[chosen].sum(1))
    low, high = np.quantile(np.concatenate(means), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(mean, float(low), float(high), len(differences), count)


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> McNemar:
    """McNemar's exact test; it treats questions as independent, which :func:`paired_difference` does not.

    Raises:
        EnvironmentMismatchError: statsmodels is not installed.
    """
    try:
        from statsmodels.stats.contingency_tables import mcnemar as exact_test
    except ImportError as error:
        raise EnvironmentMismatchError(
            f"Comparing runs needs the package statsmodels: {error}. Run: pip install statsmodels"
        ) from error
    pairs = [(bool(a), bool(b)) for a, b in zip(first, second, strict=True)]
    table = [[pairs.count((True, True)), pairs.count((True, False))], [pairs.count((False, True)), 0]]
    result = exact_test(table, exact=True)
    return McNemar(table[0][1], table[1][0], min(1.0, float(result.pvalue)))


def by_sample_size(
    values: Sequence[float],
    clusters: Sequence[Hashable],
    estimator: Callable[[Sequence[Any], Sequence[Hashable]], Estimate | None] = mean_score,
    seed: int = 0,
    steps: int = 40,
) -> list[tuple[int, Estimate]]:
    """The estimate from the first clips of a random order, for growing numbers of clips: how it settles.

    Args:
        values: verdicts or scores.
        clusters: the clip of each.
        estimator: :func:`accuracy` or :func:`mean_score`.
        seed: of the order.
        steps: numbers of clips to look at, evenly spread on a logarithmic scale.

    Returns:
        ``(clips, estimate)``; empty for fewer than two clips.
    """
    names = list(dict.fromkeys(clusters))
    if len(names) < 2:
        return []
    order = np.random.default_rng(seed).permutation(len(names))
    rank = {names[index]: position for position, index in enumerate(order)}
    ranks = [rank[cluster] for cluster in clusters]
    numbers = np.unique(np.geomspace(2, len(names), steps).round().astype(int)).tolist()
    found = []
    for number in numbers:
        kept = [index for index, place in enumerate(ranks) if place < number]
        estimate = estimator([values[index] for index in kept], [clusters[index] for index in kept])
        if estimate is not None:
            found.append((number, estimate))
    return found


def clips_for(estimate: Estimate, half_width: float) -> int | None:
    """About how many clips give an interval this narrow on both sides, from the width of this one; None if unknown."""
    if estimate.low is None or estimate.high is None or estimate.high <= estimate.low:
        return None
    return math.ceil(estimate.clusters * ((estimate.high - estimate.low) / 2 / half_width) ** 2)
