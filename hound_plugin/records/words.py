"""The words of a text in any script, for every measure that compares or counts words.

A word is a run of letters and digits with the marks that belong to them (accents, vowel signs of Indic scripts), case
folded and composed (NFC), so that two spellings of one character are one word. Scripts that put no spaces between words
(Chinese, Japanese, Thai, Lao, Khmer, Burmese and others) have no words that a program could count without a dictionary:
there, each letter with its marks is one.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Hashable, Sequence
from functools import cache

_PLAIN = re.compile(r"\w+")
_JOINERS = dict.fromkeys(map(ord, "\u200c\u200d"))
_SPACELESS = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"  # Burmese
    "\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\uaa80-\uaadf"  # Khmer, Tai scripts
    "\u1b00-\u1b7f\ua980-\ua9df"  # Balinese, Javanese
    "\u3005-\u3007\u3021-\u3029\u3031-\u303c\u3041-\u312f\u31a0-\u31bf\u31f0-\u31ff\uff66-\uff9f"  # kana, bopomofo
    "\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\uf900-\ufaff\U0001b000-\U0001b16f\U00020000-\U0003ffff"  # Chinese, Yi
)


def words_of(text: str) -> list[str]:
    """The words of a text in their order, by the rules above."""
    if text.isascii():
        return _PLAIN.findall(text.lower())
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return [word.translate(_JOINERS) for word in _any_script().findall(folded)]


@cache
def _any_script() -> re.Pattern[str]:
    letter = rf"(?:[^\W{_SPACELESS}]|\d)"
    marks = rf"[{_marks()}]"
    joined = r"[\u200c\u200d](?=\w)"  # within a word of Persian or Hindi
    return re.compile(rf"{letter}(?:{letter}|{marks}|{joined})*|[{_SPACELESS}](?<=\w){marks}*")


def _marks() -> str:
    """All marks that stand with a letter, as ranges; not those that choose between pictures (emoji)."""
    codes = [
        code
        for code in range(0x20000)  # the planes above have variation selectors alone
        if unicodedata.category(chr(code)) in ("Mn", "Mc")
        and not unicodedata.name(chr(code), "").startswith("VARIATION SELECTOR")
    ]
    groups = itertools.groupby(enumerate(codes), key=lambda item: item[1] - item[0])
    ranges = [[code for _, code in group] for _, group in groups]
    return "".join(f"{chr(run[0])}-{chr(run[-1])}" for run in ranges)


def overlap(one: Sequence[Hashable], two: Sequence[Hashable]) -> float:
    """F1 of two bags of words, 0 to 1."""
    common = sum((Counter(one) & Counter(two)).values())
    total = len(one) + len(two)
    return 2 * common / total if total else 0.0
