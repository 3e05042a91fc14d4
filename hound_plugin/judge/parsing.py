"""Parses scores from a judge's replies: a score that is stated plainly, or None and why. Nothing is ever guessed.

The grammar (``docs/reward.md`` shows examples, which the tests read)::

    reply     = { reasoning | prose | statement } statement end     all statements of a reply name the same number
    statement = line | object
    line      = [ "#".. | "-" | "+" ] [ "final" | "overall" ] "score" ( ":" | "=" ) rating [ "." ]   a line of its own
    object    = a JSON object with one key "score", whose value is a rating, as a number or a string; its other values
                are strings that are not numbers, or null. It begins a line, or follows a colon or a code fence
    rating    = number [ ( "/" | "out of" ) top ] | one pair of brackets, quotes or \\boxed{} around that
    number    = digits 0-9 without sign, fraction (4.0 is 4) or leading zero, from the scale's lowest to its highest
    top       = the highest number of the scale
    end       = blank lines, rules (---), fences, leaked end-of-turn tokens

Case does not matter, and Markdown emphasis around a statement or its parts is ignored. Reasoning is never read: the
text inside ``<think>`` and similar tags (:mod:`hound_plugin.llm.reasoning`), and all that precedes a closing tag that
was never opened (the chat templates of some models open it). A reply whose reasoning never ends has no score. A quoted
line (``> SCORE: 5``, or in quotation marks) or object is not a statement of the judge, nor is what follows an opening
marker of the request (:func:`hound_plugin.judge.prompts.fence`); but if it names another number, the score is missing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hound_plugin.judge.markup import without_markup
from hound_plugin.llm.reasoning import visible

EMPHASIS = str.maketrans(dict.fromkeys("*_`", " "))
_RULE = " \t\r*_`~-="
_AFTER_OBJECT = " \t\r\n*_`~.。"
_MARKER = re.compile(r"<<<(END )?[A-Z]{1,20} [0-9a-f]{12}>>>")
_NUMERIC = re.compile(r"\W*\d[\d.,]*(?:\s*(?:/|[-–—]|(?:out\s+)?of|to)\s*\d[\d.,]*)?\W*", re.IGNORECASE)

_LINE = re.compile(r"\s*(?:#{1,6}\s|[-+•]\s)?\s*(?:(?:final|overall)\s+)?score\s*[:：=](?P<value>.*)", re.IGNORECASE)
_WHOLE = r"(0|[1-9][0-9]{0,8})(?:\.0{1,9})?"
_RATING = re.compile(rf"{_WHOLE}(?:\s*(?:/|\bout\s+of\b)\s*{_WHOLE})?", re.IGNORECASE)
_OPENING = re.compile(r'\{[ \t\r\n]*["}]')
_PAIRS = ("[]", "()", "<>", '""', "''", "$$")
_BOXED = re.compile(r"\\boxed\s*\{(.*)\}")

_MENTION = re.compile(
    r"(?<![^\W\d_])score[\"'\s]*+(?:\([^()\n]{0,40}\))?[\"'\s]*+[:：=][\s\"'\\$]*(?:boxed)?", re.IGNORECASE
)
_BRACKETED = re.compile(r"[<\[({][<\[({\s]*([^<>\[\](){}]*)")
_PLACEHOLDER = re.compile(r"\d+\s*(?:[-–—,|…]|\.\.|to\b|or\b|through\b)", re.IGNORECASE)
_STATED = re.compile(
    r"[-+−]?\d[\d.,]*(?:\s*(?:/|\bout\s+of\b)\s*\d[\d.,]*)?(?:\s*[-–—]\s*\d+)?", re.IGNORECASE
)  # fmt: skip


@dataclass(frozen=True)
class Scale:
    """The scores that a judge may give: whole numbers from ``lowest`` to ``highest``."""

    lowest: int = 1
    highest: int = 5

    def __contains__(self, number: float) -> bool:
        return self.lowest <= number <= self.highest

    def __str__(self) -> str:
        return f"{self.lowest} to {self.highest}"


@dataclass(frozen=True)
class Reading:
    """The result of parsing a reply: its ``score``, or None and ``why`` there is none."""

    score: int | None
    why: str = ""


@dataclass(frozen=True)
class Statement:
    """Where a reply states its score: from ``start`` to ``end``, as a JSON object with ``values`` or as a line."""

    score: int
    start: int
    end: int
    values: Mapping[str, Any] | None


class MissingError(Exception):
    """A reply does not state what it was asked for; the message says why."""


def read_score(text: str, scale: Scale = Scale()) -> Reading:
    """The score of a reply, by the grammar above.

    Args:
        text: the whole reply.
        scale: the valid scores; its highest is the only valid denominator.
    """
    try:
        return Reading(find_statement(visible(text), scale).score)
    except MissingError as problem:
        return Reading(None, str(problem))


def find_statement(text: str, scale: Scale) -> Statement:
    """The statement that ends a reply.

    Args:
        text: what :func:`hound_plugin.llm.reasoning.visible` leaves of a reply.
        scale: the valid scores.

    Raises:
        MissingError: there is none, or the reply also says otherwise.
    """
    if not text.strip():
        raise MissingError("it has no answer outside its reasoning, or the reasoning never ends")
    if next((not marker[1] for marker in reversed(list(_MARKER.finditer(text)))), False):
        raise MissingError("it repeats a text of the request without the marker that ends it")
    located = _last_object(text)
    if located is not None and not text[located[2] :].strip(_AFTER_OBJECT):
        value, start, end = located
        if not _may_begin(text[text.rfind("\n", 0, start) + 1 : start]):
            raise MissingError("its JSON object is quoted, or part of a sentence or of another object")
        statement = Statement(_of_object(value, scale), start, end, value)
    else:
        line, start = last_line(text)
        statement = Statement(_of_line(line, scale), start, len(text), None)
    for position, number in _mentions(text, scale):
        if not statement.start <= position < statement.end and number != statement.score:
            raise MissingError(f"it ends with {statement.score} but also says {text[position : position + 40]!r}")
    return statement


# --- a line


def last_line(text: str) -> tuple[str, int]:
    """The last line that is not just a rule or a fence, and where it starts."""
    end = len(text)
    for line in reversed(text.splitlines(keepends=True)):
        end -= len(line)
        if line.rstrip("\n").strip(_RULE):
            return line, end
    return "", 0


def _of_line(line: str, scale: Scale) -> int:
    match = _LINE.fullmatch(line.translate(EMPHASIS).strip())
    if match is None:
        raise MissingError("it ends neither with a line `SCORE: N` nor with a JSON object that has a score")
    return _rating(match["value"], scale)


def _rating(text: str, scale: Scale) -> int:
    """The number of ``4``, ``4/5``, ``4 out of 5``, ``[4]``, ``\\boxed{4}``."""
    rest = text.strip()
    rest = rest[:-1].strip() if rest[-1:] in (".", "。") else rest
    for _ in range(3):
        boxed = _BOXED.fullmatch(rest)
        if boxed:
            rest = boxed[1].strip()
        elif len(rest) > 2 and rest[0] + rest[-1] in _PAIRS:
            rest = rest[1:-1].strip()
    match = _RATING.fullmatch(rest)
    if match is None:
        raise MissingError(f"{text.strip()[:40]!r} is not a whole number from {scale}")
    if match[2] and int(match[2]) != scale.highest:
        raise MissingError(f"{rest!r} is on another scale than {scale}")
    return _on_scale(int(match[1]), scale)


def _on_scale(number: int, scale: Scale) -> int:
    if number not in scale:
        raise MissingError(f"{number} is outside {scale}")
    return number


# --- a JSON object


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise MissingError("a JSON object has the same key twice")
    return dict(pairs)


def _no_number(text: str) -> None:
    raise MissingError(f"{text} is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_constant=_no_number,
    parse_int=lambda digits: int(digits) if len(digits) < 18 else float(digits),
    strict=False,  # a line break inside a reason
)


def _last_object(text: str) -> tuple[dict[str, Any], int, int] | None:
    """The last JSON object outside any other, with its start and end; takes time linear in the length of the text."""
    located, position, tries, budget = None, 0, 200, 8 * len(text) + 1000
    while opening := _OPENING.search(text, position):
        try:
            value, position = _DECODER.raw_decode(text, opening.start())
            located = (value, opening.start(), position)
        except json.JSONDecodeError as error:
            budget -= error.pos - position
            position = max(opening.start() + 1, error.pos)  # objects before are part of this one
            tries -= 1
        except RecursionError:
            raise MissingError("its JSON is nested too deeply") from None
        if tries < 0 or budget < 0:
            raise MissingError("it has too many braces that are not JSON")
    return located


def _may_begin(before: str) -> bool:
    """Whether an object after this beginning of its line is a statement: nothing, a fence, a colon, or an object."""
    before = before.translate(EMPHASIS).strip(" \t\r~-+•\ufeff")
    before = before[:-4].rstrip() if before[-4:].lower() in ("json", "text") else before
    if not before or before[-1] == "}":
        return True
    return before[-1] in ":：" and before[0] not in ">{[" and before[:-1].rstrip()[-1:] not in tuple("\"'{}[]")


def _of_object(value: dict[str, Any], scale: Scale) -> int:
    names = [name for name in value if name.strip().lower() == "score"]
    if len(names) != 1:
        raise MissingError(f"its JSON object has {len(names) or 'no'} key `score`; it has {_listed(value)}")
    others = [name for name, other in value.items() if name != names[0] and not _is_text(other)]
    if others:
        raise MissingError(f"its JSON object has values besides the score that are not strings: {_listed(others)}")
    score = value[names[0]]
    if isinstance(score, str):
        return _rating(score, scale)
    if isinstance(score, bool) or not isinstance(score, int | float) or score != score // 1:
        raise MissingError(f"the score {score!r:.40} is not a whole number from {scale}")
    return _on_scale(int(score), scale)


def _is_text(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not _NUMERIC.fullmatch(value[:200].translate(EMPHASIS)))


def _listed(names: Any) -> str:
    return ", ".join(f"{name:.20}" for name in list(names)[:5]) or "none"


# --- whatever else it says


def _mentions(text: str, scale: Scale) -> Iterator[tuple[int, int | None]]:
    """Every position of a ``score:`` that a number follows, and the number; None if it is not on the scale.

    ``SCORE: N`` and ``SCORE: <1-5>`` are placeholders, not numbers. Tags of HTML, its entities and commands of LaTeX
    hide no number: ``Score: <b>2</b>`` is one.
    """
    plain = text.translate(EMPHASIS)
    shown = without_markup(plain)
    for version in (plain, shown) if shown != plain else (plain,):
        yield from _mentions_of(version, scale)


def _mentions_of(plain: str, scale: Scale) -> Iterator[tuple[int, int | None]]:
    for mention in _MENTION.finditer(plain):
        rest = plain[mention.end() : mention.end() + 80]
        bracketed = _BRACKETED.match(rest)
        if bracketed:
            rest = bracketed[1].strip(" \"'$")
            if _PLACEHOLDER.match(rest):
                continue
        stated = _STATED.match(rest)
        if stated:
            try:
                yield mention.start(), _rating(stated[0].rstrip(".,"), scale)
            except MissingError:
                yield mention.start(), None
