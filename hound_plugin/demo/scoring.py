"""Exact match by kind of question, with Wilson intervals, and a table of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hound_plugin.demo.questions import KINDS, TIME_KINDS
from hound_plugin.errors import DataError, SettingsError

ALL, TIME = "all", "motion and order"


@dataclass(frozen=True)
class Tally:
    """``correct`` of ``total`` answers."""

    correct: int
    total: int

    @property
    def accuracy(self) -> float:
        """Share of correct answers, 0 to 1; NaN of none."""
        return self.correct / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """95% Wilson interval of the accuracy."""
        return wilson(self.correct, self.total)

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.correct + other.correct, self.total + other.total)


def wilson(correct: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson score interval of a share (E. B. Wilson, 1927).

    Returns:
        ``(low, high)``, each in [0, 1]; ``(0, 1)`` if ``total`` is 0.

    Raises:
        SettingsError: not ``0 <= correct <= total``.
    """
    if not 0 <= correct <= total:
        raise SettingsError(f"expected 0 <= correct <= total, got {correct} of {total}")
    if not total:
        return 0.0, 1.0
    share, square = correct / total, z * z
    centre = (share + square / (2 * total)) / (1 + square / total)
    half = z / (1 + square / total) * math.sqrt(share * (1 - share) / total + square / (4 * total * total))
    return max(0.0, centre - half), min(1.0, centre + half)


def normalise(text: str) -> str:
    """Lower case, single spaces, no full stop at the end."""
    return " ".join(text.split()).casefold().removesuffix(".").rstrip()


def is_right(prediction: str, accepted: Iterable[str]) -> bool:
    """Whether a prediction equals one of the accepted answers after :func:`normalise`."""
    return normalise(prediction) in {normalise(answer) for answer in accepted}


def score(questions: Sequence[Mapping[str, Any]], predictions: Mapping[str, str]) -> dict[str, Tally]:
    """Tally exact matches.

    Args:
        questions: rows of ``held_out_questions.jsonl``: ``id``, ``kind``, ``accepted``.
        predictions: question id -> the model's text. An empty text is a wrong answer.

    Returns:
        One tally for each kind that occurs, in the order of ``KINDS``, then ``TIME`` (motion and order together, if
        they occur) and ``ALL``.

    Raises:
        DataError: a question has no prediction.
    """
    missing = [str(question["id"]) for question in questions if question["id"] not in predictions]
    if missing:
        raise DataError(
            f"expected a prediction for each of {len(questions)} questions, {len(missing)} have none, "
            f"the first is {missing[0]!r}; give an empty text for a question without an answer"
        )
    tallies: dict[str, Tally] = {}
    for question in questions:
        right = is_right(predictions[question["id"]], question["accepted"])
        tallies[question["kind"]] = tallies.get(question["kind"], Tally(0, 0)) + Tally(int(right), 1)
    result = {kind: tallies[kind] for kind in [*KINDS, *sorted(tallies.keys() - set(KINDS))] if kind in tallies}
    timed = [tallies[kind] for kind in TIME_KINDS if kind in tallies]
    if timed:
        result[TIME] = sum(timed, Tally(0, 0))
    result[ALL] = sum(tallies.values(), Tally(0, 0))
    return result


def sentence_share(questions: Sequence[Mapping[str, Any]], predictions: Mapping[str, str]) -> float:
    """Share of questions with two forms of answer whose prediction is a sentence: it ends in a full stop.

    This is the style that the preference pairs ask for. NaN if there is no such question.
    """
    asked = [question for question in questions if len(question["accepted"]) > 1]
    if not asked:
        return math.nan
    return sum(predictions[question["id"]].rstrip().endswith(".") for question in asked) / len(asked)


def table(columns: Mapping[str, Mapping[str, Tally]]) -> str:
    """A plain-text table: one row per kind, one column of accuracy and interval per name.

    >>> print(table({"SFT": {"motion": Tally(9, 10)}}))
    kind      n  SFT
    motion   10   90.0% (60-98)
    """
    kinds = list(dict.fromkeys(kind for tallies in columns.values() for kind in tallies))
    width = max(map(len, ["kind", *kinds]))
    lines = [f"{'kind':<{width}}  {'n':>3}  " + "  ".join(f"{name:<15}" for name in columns)]
    for kind in kinds:
        number = max(tallies[kind].total for tallies in columns.values() if kind in tallies)
        cells = [_cell(tallies.get(kind)) for tallies in columns.values()]
        lines.append(f"{kind:<{width}}  {number:>3}  " + "  ".join(f"{cell:<15}" for cell in cells))
    return "\n".join(line.rstrip() for line in lines)


def _cell(tally: Tally | None) -> str:
    if tally is None:
        return "-"
    low, high = tally.interval
    return f"{100 * tally.accuracy:5.1f}% ({100 * low:.0f}-{100 * high:.0f})"
