"""Two answers to one conversation: everything before them is the prompt, including earlier answers and the system."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hound_plugin.records import fields
from hound_plugin.records.messages import Conversation, read_messages, text_of
from hound_plugin.records.placeholders import without_placeholders
from hound_plugin.records.record import Findings, Media, Turn, Words

_REJECTED = (*fields.REJECTED, fields.REJECTED_MESSAGES)
_TRANSCRIPT = re.compile(
    r"\W{0,6}(?:human|user)\W{0,3}:.*\n\W{0,6}(?:assistant|gpt|bot)\W{0,3}:",
    re.IGNORECASE | re.DOTALL,
)
_LONG = 20  # characters of a question that no answer begins with by chance
_FIELDS = frozenset((*fields.CHOSEN, *_REJECTED))


@dataclass(frozen=True)
class Pair:
    """Two answers to compare. In other rows ``chosen`` and ``rejected`` are None, and ``turns`` is the conversation."""

    turns: tuple[Turn, ...]
    chosen: str | None = None
    rejected: str | None = None
    is_pair: bool = False


@dataclass(frozen=True)
class _Side:
    """The conversation that ends with one of the answers, with its system prompts and media."""

    turns: list[Turn]
    systems: list[str]
    inline: list[Media]


def read_pair(row: Mapping[str, Any], base: Conversation, findings: Findings) -> Pair:
    """The pair of a row, from answers as texts, messages or whole conversations.

    Args:
        row: the row.
        base: its conversation; ms-swift's ends with the chosen answer. The system prompt and the media that only the
            answers' conversations name are added to it.
        findings: takes the problems: answers that differ in turns, end with the user, are equal or blank.
    """
    if row.keys().isdisjoint(_FIELDS):
        return Pair(tuple(base.turns))
    chosen_name = next((name for name in fields.CHOSEN if name in row), "")
    rejected_name = next((name for name in _REJECTED if name in row), "")
    _check_duplicate_fields(row, findings)
    before = len(findings.problems)
    if not rejected_name:
        findings.problem("no rejected", "rejected", "two answers to compare", Words("only `chosen`"))
    turns = list(base.turns)
    if chosen_name and turns and turns[-1].role == "assistant" and _turns_of(row[chosen_name]) == turns:
        turns = turns[:-1]  # the conversation already includes the chosen answer
    chosen = rejected = _Side(turns, base.systems, base.inline)
    if chosen_name:
        chosen = _side(row[chosen_name], chosen_name, turns, base, findings)
    elif turns and turns[-1].role == "assistant":  # ms-swift
        turns = turns[:-1]
    else:
        findings.problem("no chosen", "chosen", "two answers to compare", Words(f"only `{rejected_name}`"))
    if rejected_name:
        rejected = _side(row[rejected_name], rejected_name, turns, base, findings)
    if len(findings.problems) == before:
        _check_sides(chosen, rejected, rejected_name, findings)
        _check_answers(chosen.turns, rejected.turns, chosen_name or "messages", rejected_name, findings)
    if len(findings.problems) > before:
        return Pair(tuple(turns), "", "", is_pair=True)
    base.systems, base.inline = [*base.systems, *chosen.systems], chosen.inline
    return Pair(tuple(chosen.turns[:-1]), chosen.turns[-1].text, rejected.turns[-1].text, is_pair=True)


def _turns_of(value: Any) -> list[Turn]:
    return read_messages(value, "", Findings()).turns if isinstance(value, list | tuple) else []


def _check_duplicate_fields(row: Mapping[str, Any], findings: Findings) -> None:
    for names in (fields.CHOSEN, _REJECTED):
        given = [name for name in names if name in row]
        if any(row[name] != row[given[0]] for name in given[1:]):
            findings.problem("answer twice", given[1], f"the same as in `{given[0]}`", row[given[1]])


def _side(value: Any, name: str, turns: list[Turn], base: Conversation, findings: Findings) -> _Side:
    """The conversation that ends with this answer."""
    empty = _Side([], base.systems, base.inline)
    if isinstance(value, list | tuple) and value and all(text_of(item) is not None for item in value):
        if len(value) > 1:
            findings.problem("several answers", name, "one answer; write one row per pair", value)
            return empty
        value = value[0]
    text = text_of(value)
    if text is not None:
        return _Side([*turns, Turn("assistant", text)], base.systems, base.inline)
    if isinstance(value, Mapping) and value.get("from", value.get("role")) is None:
        value = {**value, "role": "assistant"}
    if not isinstance(value, Mapping | list | tuple) or not value:
        findings.problem("answer", name, "text, a message or a list of messages", value)
        return empty
    messages = read_messages(value, name, findings)
    systems = messages.systems or base.systems
    if messages.turns and messages.turns[0].role == "user" and turns and messages.turns[: len(turns)] == turns:
        return _Side(
            messages.turns, systems, messages.inline or base.inline
        )  # the answer repeats the full conversation
    return _Side([*turns, *messages.turns], systems, [*base.inline, *messages.inline])


def _check_sides(chosen: _Side, rejected: _Side, name: str, findings: Findings) -> None:
    if chosen.systems != rejected.systems:
        findings.problem(
            "turns differ", name, "two answers under one system prompt", [chosen.systems, rejected.systems]
        )
    if chosen.inline != rejected.inline:
        paths = [[item.path for item in side.inline] for side in (chosen, rejected)]
        findings.problem("turns differ", name, "two answers to the same clip or image", paths)


def _check_answers(
    chosen: list[Turn], rejected: list[Turn], chosen_name: str, rejected_name: str, findings: Findings
) -> None:
    if len(chosen) != len(rejected) or chosen[:-1] != rejected[:-1]:
        counts = f"{len(chosen)} and {len(rejected)} turns" if len(chosen) != len(rejected) else "different turns"
        findings.problem(
            "turns differ", rejected_name, "two answers to one conversation: the same turns before them", Words(counts)
        )
        return
    for name, turns in ((chosen_name, chosen), (rejected_name, rejected)):
        if not turns or turns[-1].role != "assistant":
            findings.problem("no answer", name, "an answer by the assistant at the end", [turn.role for turn in turns])
        elif not turns[-1].text.strip():
            findings.problem("blank answer", name, "an answer that has text", turns[-1].text)
    _check_transcripts(chosen, rejected, chosen_name, findings)
    if chosen and rejected and chosen[-1].text.strip() == rejected[-1].text.strip():
        findings.problem("equal answers", rejected_name, "two different answers", chosen[-1].text)


def _check_transcripts(chosen: list[Turn], rejected: list[Turn], name: str, findings: Findings) -> None:
    """Refuse conversations that are written as one text: what came before the answer would be learned as answer."""
    texts = [turns[-1].text.strip() for turns in (chosen, rejected) if turns]
    question = without_placeholders(chosen[-2].text) if len(chosen) > 1 else ""
    repeated = len(question) >= _LONG and all(text.startswith(question) for text in texts)
    if texts and (repeated or all(map(_TRANSCRIPT.match, texts))):
        expected = "the answer alone, or a conversation as a list of messages; the text begins with the question"
        findings.problem("a whole conversation", name, expected, texts[0])
