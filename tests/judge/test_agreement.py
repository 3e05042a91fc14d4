"""Correlations and agreement against known values, and against scipy, which the host installs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hound_plugin.judge.agreement import kappa, pearson, ranks, spearman
from hound_plugin.pages.charts import histogram

FIVE = range(1, 6)


def test_ranks_share_ties() -> None:
    assert ranks([3, 1, 3, 2]).tolist() == [3.5, 1, 3.5, 2]


def test_spearman_against_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    one, two = rng.integers(1, 6, 200).tolist(), rng.integers(1, 6, 200).tolist()
    assert spearman(one, two) == pytest.approx(stats.spearmanr(one, two).statistic, abs=1e-12)
    assert spearman(one, one) == pytest.approx(1)
    assert pearson([1, 2, 3], [-1, -2, -3]) == pytest.approx(-1)


def test_kappa_by_hand() -> None:
    # 2 x 2 table 20, 5, 10, 15: observed 0.7, by chance 0.5, kappa 0.4
    one = [1] * 25 + [2] * 25
    two = [1] * 20 + [2] * 5 + [1] * 10 + [2] * 15
    assert kappa(one, two, FIVE) == pytest.approx(0.4)
    assert kappa(one, two, FIVE, weighted=True) == pytest.approx(0.4)  # two labels: the same
    assert kappa([1, 2, 3], [1, 2, 3], FIVE) == 1
    assert kappa([1, 5], [5, 1], FIVE, weighted=True) < kappa([1, 2], [2, 1], FIVE, weighted=True) + 1e-9


def test_weighted_kappa_by_another_formula() -> None:
    rng = np.random.default_rng(1)
    one = rng.integers(1, 6, 300)
    two = np.clip(one + rng.integers(-1, 2, 300), 1, 5)
    by_chance = np.mean((one[:, None] - two[None, :]) ** 2)
    expected = 1 - np.mean((one - two) ** 2) / by_chance
    assert kappa(one.tolist(), two.tolist(), FIVE, weighted=True) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_kappa_against_statsmodels(weighted: bool) -> None:
    raters = pytest.importorskip("statsmodels.stats.inter_rater")
    rng = np.random.default_rng(2)
    one = rng.integers(0, 6, 400)
    two = np.where(rng.random(400) < 0.5, one, rng.integers(0, 6, 400))
    table = np.zeros((6, 6))
    np.add.at(table, (one, two), 1)
    expected = raters.cohens_kappa(table, wt="quadratic" if weighted else None, return_results=False)
    assert kappa(one.tolist(), two.tolist(), range(6), weighted) == pytest.approx(expected, abs=1e-12)


def test_no_value_is_no_number() -> None:
    assert math.isnan(spearman([1], [1]))
    assert math.isnan(spearman([1, 1], [1, 2]))
    assert math.isnan(kappa([], [], FIVE))
    assert math.isnan(kappa([3, 3], [3, 3], FIVE))


def test_histogram_keeps_the_last_edge() -> None:
    assert histogram([1, 1.4, 3, 5], (1, 2, 3, 4, 5)) == [2, 0, 1, 1]
