"""Two answers under one conversation: everything before them is the prompt, earlier answers and system included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hound_plugin.records import fields
from hound_plugin.records.messages import Conversation, read_messages, text_of
from hound_plugin.records.record import Findings, Media, Turn, Words

_REJECTED = (*fields.REJECTED, fields.REJECTED_MESSAGES)
_FIELDS = frozenset((*fields.CHOSEN, *_REJECTED))


@dataclass(frozen=True)
class Pair:
    """What is compared. For other rows ``chosen`` and ``rejected`` are None, and the turns are the conversation's."""

    turns: tuple[Turn, ...]
    chosen: str | None = None
    rejected: str | None = None
    is_pair: bool = False


@dataclass(frozen=True)
class _Side:
    """The conversation that ends with one of the answers, and what stands in it beside its turns."""

    turns: list[Turn]
    systems: list[str]
    inline: list[Media]


def read_pair(row: Mapping[str, Any], base: Conversation, found: Findings) -> Pair:
    """The pair of a row, from answers as texts, messages or whole conversations.

    Args:
        row: the row.
        base: its conversation; ms-swift's ends with the chosen answer. Gets the system prompt and the media that only
            the answers' conversations name.
        found: takes the problems: answers that differ in turns, end with the user, are equal or blank.
    """
    if row.keys().isdisjoint(_FIELDS):
        return Pair(tuple(base.turns))
    chosen_name = next((name for name in fields.CHOSEN if name in row), "")
    rejected_name = next((name for name in _REJECTED if name in row), "")
    _look_for_two_fields(row, found)
    before = len(found.problems)
    if not rejected_name:
        found.problem("no rejected", "rejected", "two answers to compare", Words("`chosen` alone"))
    turns = list(base.turns)
    if chosen_name and turns and turns[-1].role == "assistant" and _turns_of(row[chosen_name]) == turns:
        turns = turns[:-1]  # the conversation with the chosen answer, once more beside it
    chosen = rejected = _Side(turns, base.systems, base.inline)
    if chosen_name:
        chosen = _whole(row[chosen_name], chosen_name, turns, base, found)
    elif turns and turns[-1].role == "assistant":  # ms-swift
        turns = turns[:-1]
    else:
        found.problem("no chosen", "chosen", "two answers to compare", Words(f"`{rejected_name}` alone"))
    if rejected_name:
        rejected = _whole(row[rejected_name], rejected_name, turns, base, found)
    if len(found.problems) == before:
        _look_at_sides(chosen, rejected, rejected_name, found)
        _look_at_answers(chosen.turns, rejected.turns, chosen_name or "messages", rejected_name, found)
    if len(found.problems) > before:
        return Pair(tuple(turns), "", "", is_pair=True)
    base.systems, base.inline = [*base.systems, *chosen.systems], chosen.inline
    return Pair(tuple(chosen.turns[:-1]), chosen.turns[-1].text, rejected.turns[-1].text, is_pair=True)


def _turns_of(value: Any) -> list[Turn]:
    return read_messages(value, "", Findings()).turns if isinstance(value, list | tuple) else []


def _look_for_two_fields(row: Mapping[str, Any], found: Findings) -> None:
    for names in (fields.CHOSEN, _REJECTED):
        given = [name for name in names if name in row]
        if any(row[name] != row[given[0]] for name in given[1:]):
            found.problem("answer twice", given[1], f"the same as in `{given[0]}`", row[given[1]])


def _whole(value: Any, name: str, turns: list[Turn], base: Conversation, found: Findings) -> _Side:
    """The conversation that ends with this answer."""
    nothing = _Side([], base.systems, base.inline)
    if isinstance(value, list | tuple) and value and all(text_of(item) is not None for item in value):
        if len(value) > 1:
            found.problem("several answers", name, "one answer; write a row for each pair", value)
            return nothing
        value = value[0]
    text = text_of(value)
    if text is not None:
        return _Side([*turns, Turn("assistant", text)], base.systems, base.inline)
    if isinstance(value, Mapping) and value.get("from", value.get("role")) is None:
        value = {**value, "role": "assistant"}
    if not isinstance(value, Mapping | list | tuple) or not value:
        found.problem("answer", name, "a text, a message or a list of messages", value)
        return nothing
    said = read_messages(value, name, found)
    systems = said.systems or base.systems
    if said.turns and said.turns[0].role == "user" and turns and said.turns[: len(turns)] == turns:
        return _Side(said.turns, systems, said.inline or base.inline)  # the whole conversation again
    return _Side([*turns, *said.turns], systems, [*base.inline, *said.inline])


def _look_at_sides(chosen: _Side, rejected: _Side, name: str, found: Findings) -> None:
    if chosen.systems != rejected.systems:
        found.problem("turns differ", name, "two answers under one system prompt", [chosen.systems, rejected.systems])
    if chosen.inline != rejected.inline:
        paths = [[item.path for item in side.inline] for side in (chosen, rejected)]
        found.problem("turns differ", name, "two answers to the same clip or image", paths)


def _look_at_answers(chosen: list[Turn], rejected: list[Turn], one: str, other: str, found: Findings) -> None:
    if len(chosen) != len(rejected) or chosen[:-1] != rejected[:-1]:
        counts = f"{len(chosen)} and {len(rejected)} turns" if len(chosen) != len(rejected) else "different turns"
        found.problem(
            "turns differ", other, "two answers to one conversation: the same turns before them", Words(counts)
        )
        return
    for name, turns in ((one, chosen), (other, rejected)):
        if not turns or turns[-1].role != "assistant":
            found.problem("no answer", name, "an answer of the assistant at the end", [turn.role for turn in turns])
        elif not turns[-1].text.strip():
            found.problem("blank answer", name, "an answer with a text", turns[-1].text)
    if chosen and rejected and chosen[-1].text.strip() == rejected[-1].text.strip():
        found.problem("equal answers", other, "two different answers", chosen[-1].text)
