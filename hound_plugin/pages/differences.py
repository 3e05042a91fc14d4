"""Where two answers differ, in words."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

Piece = tuple[str, bool]
"""A stretch of text, and whether only this side has it."""

LONGEST = 2000
"""Words of a text that is compared; longer ones are shown unmarked."""
_WORD = re.compile(r"\s*\S+")


def differences(text: str, other: str) -> list[Piece]:
    """``text`` in pieces, those that ``other`` lacks marked; joined they are ``text``.

    Words are compared without case and punctuation, and marks cover whole words. Texts of more than :data:`LONGEST`
    words are one unmarked piece.
    """
    mine, theirs = _WORD.findall(text), _WORD.findall(other)
    if max(len(mine), len(theirs)) > LONGEST:
        return [(text, False)]
    matcher = SequenceMatcher(None, [_bare(word) for word in mine], [_bare(word) for word in theirs], autojunk=False)
    pieces: list[Piece] = []
    for name, start, end, _, _ in matcher.get_opcodes():
        if start < end:
            pieces += _piece("".join(mine[start:end]), name != "equal")
    rest = text[sum(map(len, mine)) :]  # white space at the end
    return [*pieces, (rest, False)] if rest else pieces


def _piece(text: str, is_marked: bool) -> list[Piece]:
    """The white space before a marked stretch is not marked."""
    words = text.lstrip()
    space = text[: len(text) - len(words)]
    if not is_marked or not space:
        return [(text, is_marked)]
    return [(space, False), (words, True)]


def _bare(word: str) -> str:
    bare = re.sub(r"\W", "", word).casefold()
    return bare or word.strip()
