"""Charts have a tick under their bars, a scale that holds them, and nothing outside the drawing."""

from __future__ import annotations

import pytest

from hound_plugin.pages.charts import (
    HEIGHT,
    LEFT,
    MOST_TICKS,
    WIDTH,
    Chart,
    bar_chart,
    density_chart,
    even_bins,
    histogram,
)


def check_inside(chart: Chart) -> None:
    for bar in chart.bars:
        assert bar.x >= LEFT
        assert bar.x + bar.width <= WIDTH
        assert 0 <= bar.y <= bar.y + bar.height <= HEIGHT
    for tick in chart.ticks:
        assert 0 <= tick.x <= WIDTH
        assert 0 <= tick.y <= HEIGHT


@pytest.mark.parametrize("counts", [[0, 0, 0], [1, 0, 3], [7, 149, 20], [10**6, 1, 2], []])
def test_bars_have_ticks_and_a_scale(counts: list[int]) -> None:
    labels = [str(number) for number in range(len(counts))]
    chart = bar_chart("scores", labels, [("chosen", "good", counts), ("rejected", "bad", counts)], "score", "pairs")
    check_inside(chart)
    texts = [tick.text for tick in chart.ticks]
    assert all(label in texts for label in labels)
    top = max(int(text.replace(",", "")) for text in texts if text.replace(",", "").isdecimal())
    assert top >= max(counts, default=0)
    heights = [bar.height for bar in chart.bars]
    assert all((height > 0) == (count > 0) for height, count in zip(heights, counts * 2, strict=True))


def test_many_bars_have_some_ticks_and_long_labels_are_cut() -> None:
    labels = [f"a very long name of set {number}" for number in range(30)]
    chart = bar_chart("x", labels, [("", "plain", list(range(30)))], "x", "y")
    check_inside(chart)
    under = [tick for tick in chart.ticks if tick.text.endswith("…")]
    assert 2 <= len(under) <= MOST_TICKS
    assert chart.bars[7].title == "a very long name of set 7: 7"


def test_density() -> None:
    chart = density_chart("x", ["0", "1"], ["1", "2", "3"], [[0, 1], [2, 0], [0, 4]], "words", "score")
    check_inside(chart)
    assert [bar.title for bar in chart.bars] == ["1, 1: 1", "0, 2: 2", "1, 3: 4"]
    assert chart.bars[-1].opacity == 1.0
    assert chart.bars[0].y > chart.bars[-1].y, "low scores are at the bottom"


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([], ["0"]),
        ([0, 3], ["0", "1", "2", "3"]),
        ([5, 24], [f"{low}-{low + 4}" for low in range(0, 25, 5)]),
        ([119], [f"{low}-{low + 9}" for low in range(0, 120, 10)]),
        ([120], [f"{low}-{low + 19}" for low in range(0, 140, 20)]),
    ],
)
def test_bins(values: list[int], labels: list[str]) -> None:
    edges, named = even_bins(values, 12)
    assert named == labels
    assert sum(histogram(values, edges)) == len(values)
    assert len(edges) == len(named) + 1
