"""Intervals against simulations with known truth, and against scipy and statsmodels."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hound_plugin.evaluation.statistics import (
    Estimate,
    accuracy,
    by_sample_size,
    clips_for,
    cluster_sums,
    mcnemar,
    mean_score,
    paired_difference,
    standard_error,
)

REPO = Path(__file__).resolve().parents[2]
REPEATS = 400
TOLERANCE = 3.5 * math.sqrt(0.95 * 0.05 / REPEATS)  # three and a half standard errors of a coverage of 95%


def _clips(source: np.random.Generator, clips: int, most: int = 5) -> tuple[list[int], np.ndarray]:
    """Clusters of 1 to ``most`` questions, and the clip of each question."""
    sizes = source.integers(1, most + 1, clips)
    clusters = np.repeat(np.arange(clips), sizes)
    return clusters.tolist(), clusters


def _coverage(draw: Callable[[np.random.Generator], Estimate | None], truth: float) -> float:
    source = np.random.default_rng(20)
    hits = 0
    for _ in range(REPEATS):
        found = draw(source)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= truth <= found.high
    return hits / REPEATS


@pytest.mark.parametrize(("truth", "clips"), [(0.5, 60), (0.8, 60), (0.95, 80), (0.7, 300)])
def test_the_interval_of_an_accuracy_covers_the_truth(truth: float, clips: int) -> None:
    """Clips differ in difficulty (beta-binomial, correlation 0.5), as questions about one clip do."""

    def draw(source: np.random.Generator) -> Estimate | None:
        clusters, index = _clips(source, clips)
        difficulty = source.beta(truth, 1 - truth, clips)
        return accuracy((source.random(len(index)) < difficulty[index]).tolist(), clusters)

    assert abs(_coverage(draw, truth) - 0.95) < TOLERANCE + 0.01


def test_the_page_says_what_the_simulation_found() -> None:
    """`benchmarks/interval_coverage.py` wrote the table; the page has its lowest and highest figures."""
    text = (REPO / "benchmarks" / "results" / "interval_coverage.txt").read_text()
    page = " ".join((REPO / "docs" / "evaluation.md").read_text().split())
    found: dict[str, list[float]] = {}
    for what, *_, covered in re.findall(r"\| (.+) \| (.+) \| (.+) \| (.+) \| ([\d.]+) \|", text):
        found.setdefault(what, []).append(float(covered))
    assert list(found) == ["accuracy", "mean score"]
    for shares in found.values():
        assert f"{min(shares)} to {max(shares)}" in page


def test_an_interval_that_ignores_clips_does_not_cover_it() -> None:
    """The simulation can tell the two apart: each question as its own cluster is far too narrow."""

    def draw(source: np.random.Generator) -> Estimate | None:
        clusters, index = _clips(source, 60, most=9)
        difficulty = source.beta(0.4, 0.1, 60)
        return accuracy((source.random(len(index)) < difficulty[index]).tolist(), list(range(len(clusters))))

    assert _coverage(draw, 0.8) < 0.85


def test_the_interval_of_a_mean_score_covers_the_truth() -> None:
    def draw(source: np.random.Generator) -> Estimate | None:
        clusters, index = _clips(source, 60)
        level = source.choice([2.0, 3.0, 4.0], 60)
        return mean_score((level[index] + source.choice([-1, 0, 1], len(index))).tolist(), clusters)

    assert abs(_coverage(draw, 3.0) - 0.95) < TOLERANCE


def test_the_paired_bootstrap_covers_the_truth() -> None:
    """The second model is right 10 points more often; both share the difficulty of the clip."""

    def draw(source: np.random.Generator) -> Estimate | None:
        clusters, index = _clips(source, 80)
        easy = source.choice([0.3, 0.8], 80)[index]
        first, second = source.random(len(index)) < easy, source.random(len(index)) < easy + 0.1
        return paired_difference(first.tolist(), second.tolist(), clusters, seed=int(source.integers(1 << 30)))

    assert abs(_coverage(draw, 0.1) - 0.95) < TOLERANCE + 0.01


def test_rare_differences_are_covered_too() -> None:
    """One clip in a hundred differs, so that a third of such comparisons of 100 clips shows no difference at all."""

    def draw(source: np.random.Generator) -> Estimate | None:
        clusters, index = _clips(source, 100)
        second = (source.random(100) < 0.01)[index]
        return paired_difference([False] * len(index), second.tolist(), clusters, seed=int(source.integers(1 << 30)))

    assert _coverage(draw, 0.01) > 0.95 - TOLERANCE


@pytest.mark.parametrize(("gain", "span"), [(0, 1.0), (1, 1.0), (-1, 1.0), (0, 4.0), (2, 4.0)])
def test_clips_that_differ_alike_are_not_certainty(gain: float, span: float) -> None:
    """Fifty clips: another 7% of all clips would be missed by one sample in forty."""
    clusters = [number // 2 for number in range(100)]
    found = paired_difference([0.0] * 100, [gain] * 100, clusters, span=span)
    assert found is not None
    assert found.mean == gain
    unseen = 1 - 0.025 ** (1 / 50)
    assert 0.07 < unseen < 0.072
    assert found.low == pytest.approx(gain - unseen * (span + gain))
    assert found.high == pytest.approx(gain + unseen * (span - gain))


def test_the_standard_error_is_that_of_a_clustered_regression() -> None:
    api = pytest.importorskip("statsmodels.api")
    source = np.random.default_rng(3)
    clusters, index = _clips(source, 40)
    values = source.normal(size=len(index)) + source.normal(size=40)[index]
    fitted = api.OLS(values, np.ones(len(values))).fit(
        cov_type="cluster", cov_kwds={"groups": index, "use_correction": True}, use_t=True
    )
    assert standard_error(values.tolist(), clusters) == pytest.approx(fitted.bse[0], rel=1e-9)


def test_clips_of_one_question_give_wilsons_interval() -> None:
    stats = pytest.importorskip("statsmodels.stats.proportion")
    values = [True] * 700 + [False] * 300
    found = accuracy(values, list(range(1000)))
    assert found is not None
    low, high = stats.proportion_confint(700, 1000, method="wilson")
    assert (found.low, found.high) == (pytest.approx(low, abs=2e-4), pytest.approx(high, abs=2e-4))


def test_the_bootstrap_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    source = np.random.default_rng(5)
    clusters, index = _clips(source, 100)
    first, second = source.random(len(index)) < 0.5, source.random(len(index)) < 0.6
    found = paired_difference(first.tolist(), second.tolist(), clusters)
    sums, sizes = cluster_sums((second.astype(float) - first).tolist(), clusters)
    expected = stats.bootstrap(
        (sums, sizes), lambda a, b, axis=-1: a.sum(axis) / b.sum(axis),
        paired=True, vectorized=True, method="percentile", n_resamples=4000, rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    assert found is not None
    assert (found.low, found.high) == (pytest.approx(expected.low, abs=0.006), pytest.approx(expected.high, abs=0.006))
    assert found == paired_difference(first.tolist(), second.tolist(), clusters)


@pytest.mark.parametrize("value", [True, False])
def test_all_alike_is_not_certainty(value: bool) -> None:
    """Ten clips with four questions each, all right: worth ten answers, not forty, and not a width of zero."""
    found = accuracy([value] * 40, [number // 4 for number in range(40)])
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert found.mean == float(value)
    assert 0.25 < found.high - found.low < 0.4
    assert found.low == 0.0 or found.high == 1.0


def test_one_clip_or_none_gives_no_interval() -> None:
    assert accuracy([], []) is None
    assert mean_score([], []) is None
    assert paired_difference([], [], []) is None
    assert accuracy([True, False], ["a", "a"]) == Estimate(0.5, None, None, 2, 1)
    assert mean_score([1, 3], ["a", "a"]) == Estimate(2.0, None, None, 2, 1)
    assert by_sample_size([1.0], ["a"]) == []


def test_scores_stay_on_their_scale() -> None:
    for scores in ([5, 5, 5, 4], [5, 5, 5, 5], [1, 1, 1, 2], [1, 1, 1, 1]):
        found = mean_score(scores, ["a", "b", "c", "d"], (1, 5))
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        assert 1 <= found.low <= found.mean <= found.high <= 5
        assert found.high - found.low > 1, "four clips that look alike are no certainty"


def test_the_interval_of_a_mean_score_holds_near_the_end_of_its_scale() -> None:
    """Few clips, most of them with the highest score: a symmetric interval covers the truth 74 times in 100."""

    def draw(source: np.random.Generator) -> Estimate | None:
        clusters, index = _clips(source, 20)
        return mean_score((1 + source.binomial(4, source.beta(0.95, 0.05, 20)[index])).tolist(), clusters, (1, 5))

    assert _coverage(draw, 4.8) > 0.81


def test_mcnemar_by_hand_and_against_the_binomial() -> None:
    stats = pytest.importorskip("scipy.stats")
    first = [True] * 12 + [False] * 3 + [True] * 30 + [False] * 5
    second = [False] * 12 + [True] * 3 + [True] * 30 + [False] * 5
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second) == (12, 3)
    assert found.p_value == pytest.approx(stats.binomtest(3, 15).pvalue)
    assert mcnemar([True, False], [True, False]).p_value == 1.0


def test_more_clips_narrow_the_interval() -> None:
    source = np.random.default_rng(0)
    clusters, index = _clips(source, 400)
    steps = by_sample_size((source.random(len(index)) < 0.7).astype(float).tolist(), clusters)
    assert [number for number, _ in steps] == sorted({number for number, _ in steps})
    assert steps[-1][0] == 400
    last, tenth = steps[-1][1], next(estimate for number, estimate in steps if number >= 40)
    assert last.high is not None
    assert last.low is not None
    assert tenth.high is not None
    assert tenth.low is not None
    assert last.high - last.low < (tenth.high - tenth.low) / 2
    assert clips_for(last, (last.high - last.low) / 4) == pytest.approx(1600, abs=2)
    assert clips_for(Estimate(1, None, None, 3, 1), 0.01) is None


@pytest.mark.parametrize("score", [0.1, 1 / 3, 0.7, 2 / 3])
@pytest.mark.parametrize("clips", [3, 7, 29])
@pytest.mark.parametrize("repeats", [1, 2, 3])
def test_equal_scores_that_are_not_exact_have_a_whole_interval(score: float, clips: int, repeats: int) -> None:
    """Rounding is no spread: it made intervals without any width."""
    clusters = [clip for clip in range(clips) for _ in range(repeats if clip else 1)]
    for low, high in ((0.0, 1.0), (1.0, 5.0)):
        scores = [low + score * (high - low)] * len(clusters)
        found = mean_score(scores, clusters, (low, high))
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        exact = _wilson(score, clips)
        np.testing.assert_allclose([(found.low - low) / (high - low), (found.high - low) / (high - low)], exact)
    first = [0.3 if number % 2 else 0.1 + 0.2 for number in range(len(clusters))]
    difference = paired_difference(first, [0.3 + score] * len(clusters), clusters)
    plain = paired_difference([0.0] * len(clusters), [0.5] * len(clusters), clusters)
    assert difference is not None
    assert plain is not None
    widths = [(found.high or 0.0) - (found.low or 0.0) for found in (difference, plain)]
    assert widths[0] == pytest.approx(widths[1])
    assert widths[1] > 0


def _wilson(share: float, count: int) -> list[float]:
    """Wilson's interval for a share of ``count`` independent answers, with Student's t."""
    from scipy.stats import t

    square = float(t.ppf(0.975, count - 1)) ** 2
    centre, scale = share + square / (2 * count), 1 + square / count
    half = math.sqrt(square * (share * (1 - share) / count + square / (4 * count**2)))
    return [(centre - half) / scale, (centre + half) / scale]
