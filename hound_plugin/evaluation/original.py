"""The original's parsers of judges' replies and its denominators, reproduced exactly (``parsing: original``).

They guess where ours refuse: 4.8 becomes 4, "eyes" is a yes, a reply without any number is a 1, a 10 stays a 10. What
they cannot read drops out of the accuracy and of the mean score, each on its own. Use them to compare with published
numbers, and read the strict numbers too. Source: ``test/eval/eval_official_qa.py``, ``eval_qa.py`` and
``inference/utils.py`` of github.com/RifleZhang/LLaVA-Hound-DPO, commit ec2381f.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal

from hound_plugin.errors import SettingsError

OriginalProtocol = Literal["official", "caption"]
PROTOCOLS: tuple[OriginalProtocol, ...] = ("official", "caption")
CORRECT_FROM = 3.0
"""Protocol ``caption``: lowest score of a right answer."""
WITHOUT_A_NUMBER = 1.0

_OFFICIAL_SCORE = re.compile(r"""'score'\s*:\s*(\d+)|"score"\s*:\s*(\d+)""")
_CAPTION_SCORE = re.compile(r"Score: (\d+\.?\d*)")
_NUMBER = re.compile(r"\b\d+\.?\d*\b")


def original_protocol(verdict: bool) -> OriginalProtocol:
    """Which of the original's parsers reads the replies of a judge."""
    return "official" if verdict else "caption"


def original_verdict(protocol: str, text: str | None) -> tuple[float | None, bool | None]:
    """Score and verdict of a judge's reply, as the original reads it.

    Args:
        protocol: ``official`` (yes or no, and a score) or ``caption`` (a score; right from 3 on).
        text: the reply; None if there is none.

    Returns:
        ``(score, correct)``, each None where the original finds none. Scores may be outside of the protocol's range.

    Raises:
        SettingsError: an unknown protocol.
    """
    if protocol not in PROTOCOLS:
        raise SettingsError(f"protocol: expected {' or '.join(PROTOCOLS)}, got {protocol!r}.", "protocol")
    if text is None:
        return None, None
    if protocol == "caption":
        score = _caption_score(text)
        return score, score >= CORRECT_FROM
    try:
        return _official_score(text), _official_verdict(text)
    except ValueError:  # a number of thousands of digits: the original skips the whole reply
        return None, None


def _official_score(text: str) -> int | None:
    """The digits after the first quoted key; what follows them, such as ``.8``, is not looked at."""
    match = _OFFICIAL_SCORE.search(text)
    return int(match[1] or match[2]) if match else None


def _official_verdict(text: str) -> bool | None:
    """Substrings: "yesterday" is a yes, "I do not know" a no."""
    lower = text.lower()
    if "yes" in lower:
        return True
    return False if "no" in lower else None


def _caption_score(text: str) -> float:
    """The number after ``Score: ``; else the most frequent number in the text, or the mean of those in a tie."""
    if match := _CAPTION_SCORE.search(text):
        return float(match[1])
    numbers = Counter(float(number) for number in _NUMBER.findall(text))
    if not numbers:
        return WITHOUT_A_NUMBER
    most = max(numbers.values())
    tied = [number for number, count in numbers.items() if count == most]
    return sum(tied) / len(tied)


def original_summary(protocol: str, texts: Iterable[str | None]) -> dict[str, Any]:
    """The original's aggregate of replies.

    Args:
        protocol: as in :func:`original_verdict`.
        texts: one reply for each prediction; None for those without one, which do not count.

    Returns:
        ``accuracy`` (0 to 1) over ``yes_count + no_count`` replies, ``average_score`` over ``n_scored``, ``n`` (replies
        that were given), and ``result_string`` as in the original's result file. The original divides by zero where
        ours are None.

    Raises:
        SettingsError: an unknown protocol.
    """
    readings = [original_verdict(protocol, text) for text in texts if text is not None]
    scores = [score for score, _ in readings if score is not None]
    verdicts = [correct for _, correct in readings if correct is not None]
    accuracy = sum(verdicts) / len(verdicts) if verdicts else None
    average = sum(scores) / len(scores) if scores else None
    return {
        "accuracy": accuracy,
        "average_score": average,
        "yes_count": sum(verdicts),
        "no_count": len(verdicts) - sum(verdicts),
        "n_scored": len(scores),
        "n": len(readings),
        "result_string": None if accuracy is None or average is None else f"{accuracy * 100:.2f}/{average:.2f}",
    }
