"""Measures of a prediction against the right answer, without a judge and without a network.

All of them compare words (:mod:`hound_plugin.records.words`), without regard to case, punctuation and spacing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from hound_plugin.errors import EnvironmentMismatchError
from hound_plugin.records.words import overlap, words_of


def exact_match(prediction: str, reference: str) -> float:
    """1 if both have the same words in the same order, else 0."""
    return float(words_of(prediction) == words_of(reference))


def contains(prediction: str, reference: str) -> float:
    """1 if the prediction has the reference's words one after another, else 0; never within a word."""
    inner, outer = words_of(reference), words_of(prediction)
    length = len(inner)
    return float(bool(inner) and any(outer[at : at + length] == inner for at in range(len(outer) - length + 1)))


def token_f1(prediction: str, reference: str) -> float:
    """F1 of the two bags of words, 0 to 1."""
    return overlap(words_of(prediction), words_of(reference))


def rouge_l(prediction: str, reference: str) -> float:
    """ROUGE-L: F1 by the longest common subsequence of words, 0 to 1 (package rouge-score).

    Raises:
        EnvironmentMismatchError: rouge-score is not installed.
    """
    return float(_scorer().score(reference, prediction)["rougeL"].fmeasure)


class _Words:
    """Our words as a tokenizer of rouge-score, whose own drops every letter outside of ASCII."""

    def tokenize(self, text: str) -> list[str]:
        return words_of(text)


@cache
def _scorer() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise EnvironmentMismatchError(
            f"ROUGE-L needs the package rouge-score: {error}. Run: pip install rouge-score"
        ) from error
    return RougeScorer(["rougeL"], tokenizer=_Words())


METRICS: Mapping[str, Callable[[str, str], float]] = {
    "exact_match": exact_match,
    "contains": contains,
    "token_f1": token_f1,
    "rouge_l": rouge_l,
}
VERDICTS = ("exact_match", "contains")
"""Metrics that say whether an answer is right; the others only say how close it is."""


def measure(prediction: str, reference: str) -> dict[str, float]:
    """Every metric by name, each from 0 to 1; empty without a reference.

    Raises:
        EnvironmentMismatchError: rouge-score is not installed.
    """
    if not words_of(reference):
        return {}
    return {name: round(metric(prediction, reference), 6) for name, metric in METRICS.items()}
