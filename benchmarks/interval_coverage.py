"""How often do the 95% intervals of an evaluation contain the truth?

python benchmarks/interval_coverage.py [--repeats 2000] [--seed 0]

Draws verdicts and scores for which the truth is known, of clips with 1 to 5 questions each, and counts how often the
interval contains it. Prints a row for each true value, number of clips and correlation of the questions about a clip,
then the lowest and the highest figure. A count of N repeats is itself uncertain: by ± 1 point for 2000.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Sequence

import numpy as np

from hound_plugin.evaluation.statistics import Estimate, accuracy, mean_score

SHARES, CLIPS, CORRELATIONS = (0.5, 0.8, 0.95), (20, 60, 300), (0.0, 0.5)
LARGEST_CLIP = 5
Draw = Callable[[np.random.Generator], Estimate | None]
Row = tuple[str, float, int, float, float]


def clip_of_each(source: np.random.Generator, clips: int) -> np.ndarray:
    """The clip of each question: 1 to ``LARGEST_CLIP`` of them about each of ``clips``."""
    return np.repeat(np.arange(clips), source.integers(1, LARGEST_CLIP + 1, clips))


def chance(source: np.random.Generator, share: float, clips: int, correlation: float) -> np.ndarray:
    """The chance of a right answer, clip by clip: beta-distributed, with this correlation of two answers on a clip."""
    if not correlation:
        return np.full(clips, share)
    spread = (1 - correlation) / correlation
    return source.beta(share * spread, (1 - share) * spread, clips)


def verdicts(share: float, clips: int, correlation: float) -> Draw:
    """An accuracy."""

    def draw(source: np.random.Generator) -> Estimate | None:
        index = clip_of_each(source, clips)
        right = source.random(len(index)) < chance(source, share, clips, correlation)[index]
        return accuracy(right.tolist(), index.tolist())

    return draw


def scores(share: float, clips: int, correlation: float) -> Draw:
    """A mean score from 1 to 5: one, and a point for each of four chances."""

    def draw(source: np.random.Generator) -> Estimate | None:
        index = clip_of_each(source, clips)
        found = 1 + source.binomial(4, chance(source, share, clips, correlation)[index])
        return mean_score(found.tolist(), index.tolist(), (1, 5))

    return draw


def coverage(draw: Draw, truth: float, repeats: int, seed: int) -> float:
    """The share of intervals that contain the truth."""
    source = np.random.default_rng(seed)
    hits = 0
    for _ in range(repeats):
        estimate = draw(source)
        assert estimate is not None
        assert estimate.low is not None
        assert estimate.high is not None
        hits += estimate.low <= truth <= estimate.high
    return hits / repeats


def simulate(repeats: int, seed: int, clips: Sequence[int] = CLIPS) -> list[Row]:
    """What, its true value, clips, correlation and coverage, for every combination."""
    rows: list[Row] = []
    for share, number, correlation in itertools.product(SHARES, clips, CORRELATIONS):
        for what, make, truth in (
            ("accuracy", verdicts, share),
            ("mean score", scores, 1 + 4 * share),
        ):
            found = coverage(make(share, number, correlation), truth, repeats, seed)
            rows.append((what, truth, number, correlation, found))
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print("| interval of | truth | clips | correlation | contains the truth, % |\n|---|---|---|---|---|")
    rows = sorted(simulate(arguments.repeats, arguments.seed))
    for what, truth, clips, correlation, found in rows:
        print(f"| {what} | {truth:g} | {clips} | {correlation:g} | {100 * found:.1f} |")
    for name in dict.fromkeys(row[0] for row in rows):
        shares = [100 * row[-1] for row in rows if row[0] == name]
        print(f"\n{name}: {min(shares):.1f} to {max(shares):.1f}")


if __name__ == "__main__":
    main()
