"""Parses replies that state a verdict besides the score: yes or no. Nothing is ever guessed.

The grammar is that of :mod:`hound_plugin.judge.parsing`, with two more rules::

    statement = verdict { blank line } line | object
    verdict   = [ "#".. | "-" | "+" ] [ "final" | "overall" ] "verdict" ( ":" | "=" ) ( "yes" | "no" ) [ "." ]   a line

The object has one key "verdict" (or "pred", as in published prompts) that is "yes" or "no". If it is all that a reply
says, it may be written as Python writes it: ``{'pred': 'yes', 'score': 4}``.
"""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass

from hound_plugin.judge.markup import without_markup
from hound_plugin.judge.parsing import (
    EMPHASIS,
    MissingError,
    Scale,
    Statement,
    find_statement,
    last_line,
)
from hound_plugin.llm.reasoning import visible

KEYS = ("verdict", "pred")
WORDS = {"yes": True, "no": False}
_LINE = re.compile(
    r"\s*(?:#{1,6}\s|[-+•]\s)?\s*(?:(?:final|overall)\s+)?verdict\s*[:：=]\s*[\"'\[(]*(yes|no)[\"'\])]*[.。]?\s*",
    re.IGNORECASE,
)
_MENTION = re.compile(
    r"(?<![^\W\d_])(?:verdict|pred)[\"'\s]*[:：=][\s\"'\[(]*(yes|no)\b(?!\W{0,3}(?:/|\||or\b))", re.IGNORECASE
)
_PYTHON = re.compile(r"\s*(?:```(?:python|json)?\s*)?(\{\s*'[^{}]{1,4000}\})\s*(?:```)?[\s.]*")


@dataclass(frozen=True)
class VerdictReading:
    """The result of parsing a reply: ``score`` and ``correct``, or None for both and ``why`` there is none."""

    score: int | None
    correct: bool | None
    why: str = ""


def read_verdict(text: str, scale: Scale) -> VerdictReading:
    """The score and the verdict of a reply, by the grammar above.

    Args:
        text: the whole reply.
        scale: the valid scores.
    """
    shown = visible(text)
    try:
        shown = _as_json(shown)
        statement = find_statement(shown, scale)
        correct, start = _of_object(statement) if statement.values is not None else _of_lines(shown, statement.start)
        plain = shown.translate(EMPHASIS)
        for mention in (*_MENTION.finditer(plain), *_MENTION.finditer(without_markup(plain))):
            if not start <= mention.start() < statement.end and WORDS[mention[1].lower()] != correct:
                raise MissingError(f"its verdict is {_word(correct)} but it also says {mention[0][:40]!r}")
    except MissingError as problem:
        return VerdictReading(None, None, str(problem))
    return VerdictReading(statement.score, correct)


def _word(correct: bool) -> str:
    return "yes" if correct else "no"


def _of_object(statement: Statement) -> tuple[bool, int]:
    values = statement.values or {}
    stated = [value for name, value in values.items() if name.strip().lower() in KEYS]
    word = stated[0].strip().lower() if len(stated) == 1 and isinstance(stated[0], str) else ""
    if word not in WORDS:
        raise MissingError('its JSON object has no single key `verdict` that is "yes" or "no"')
    return WORDS[word], statement.start


def _of_lines(text: str, end: int) -> tuple[bool, int]:
    """The verdict of the last line before the score, and where that line starts."""
    line, start = last_line(text[:end])
    match = _LINE.fullmatch(line.translate(EMPHASIS).strip())
    if match is None:
        raise MissingError("there is no line `VERDICT: yes` or `VERDICT: no` before its score")
    return WORDS[match[1].lower()], start


def _as_json(text: str) -> str:
    """A reply that is a Python dict and nothing else, as JSON; any other text as it is.

    Raises:
        MissingError: a key occurs twice.
    """
    match = _PYTHON.fullmatch(text)
    if match is None:
        return text
    try:
        tree = ast.parse(match[1], mode="eval").body
        if not isinstance(tree, ast.Dict):
            return text
        value = ast.literal_eval(tree)
        if len(value) != len(tree.keys):
            raise MissingError("its dict has the same key twice")
        return json.dumps({str(name): item for name, item in value.items()})
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def stated_reason(text: str, scale: Scale) -> str:
    """What a reply gives as its reason: the value of ``reason``, or the text before its statement; else empty."""
    shown = visible(text)
    try:
        statement = find_statement(shown, scale)
    except MissingError:
        return ""
    if statement.values is not None:
        return next((str(value) for name, value in statement.values.items() if name.strip().lower() == "reason"), "")
    line, start = last_line(shown[: statement.start])
    return shown[: start if _LINE.fullmatch(line.translate(EMPHASIS).strip()) else statement.start].strip()
