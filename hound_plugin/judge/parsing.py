"""Scores out of answers, strictly: a score that is plainly there, or None. Nothing is ever guessed."""

from __future__ import annotations

import json
import re
from typing import Any

LOWEST, HIGHEST = 1, 5
_FENCE = re.compile(r"\A```(?:json)?\s*\n(.*)\n```\Z", re.DOTALL)
_LINE = re.compile(r"SCORE: ([1-5])", re.ASCII)
_ANY_LINE = re.compile(r"^[\s*_#>`-]*SCORE\b", re.IGNORECASE | re.MULTILINE)


def parse_json(text: str) -> int | None:
    """The score of ``{"reason": text, "score": 1..5}``; None for anything else.

    A code fence around the whole object is allowed. More or fewer keys, a key twice, a score that is no whole number
    or is out of range, and text beside the object are not.
    """
    stripped = text.strip()
    fenced = _FENCE.match(stripped)
    try:
        found = json.loads(fenced[1] if fenced else stripped, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or set(found) != {"reason", "score"} or not isinstance(found["reason"], str):
        return None
    score = found["score"]
    return score if type(score) is int and LOWEST <= score <= HIGHEST else None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise ValueError("a key stands twice")
    return dict(pairs)


def parse_text(text: str) -> int | None:
    """The score of an answer whose last line is ``SCORE: n`` and which has no other line that begins so."""
    lines = text.strip().splitlines()
    if not lines or len(_ANY_LINE.findall(text)) != 1:
        return None
    found = _LINE.fullmatch(lines[-1].strip())
    return int(found[1]) if found else None
