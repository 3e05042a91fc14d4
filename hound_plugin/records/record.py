"""One record, whatever shape it came in, and what can be wrong with a row.

A :class:`Record` keeps texts as they were written. Its placeholders match the kind of its media (see
:mod:`hound_plugin.records.parse`); moving them to the front of a question is the job of the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

MediaKind = Literal["video", "image"]
Role = Literal["user", "assistant"]


@dataclass(frozen=True, slots=True)
class Media:
    """One clip or one image, as a row names it; the disk has not been consulted.

    Attributes:
        kind: ``video`` or ``image``.
        path: a file or a folder of frames; empty for frames, and for bytes without a name.
        frames: a clip as a list of pictures, in the row's order.
        bytes: the file's content, if the row contains it.
        start, end: seconds; the part of the clip to use, None if the row does not say.
    """

    kind: MediaKind
    path: str = ""
    frames: tuple[str, ...] = ()
    bytes: bytes | None = None
    start: float | None = None
    end: float | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All its paths."""
        return self.frames or ((self.path,) if self.path else ())


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side says."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Record:
    """One row.

    Attributes:
        id: text; empty if the row has none.
        media: clips, or images, in the order of their placeholders; never both kinds.
        system: a system prompt of the row's own, or empty.
        turns: the conversation. For a pair: everything before the two answers.
        chosen, rejected: the answers of a pair; None in other rows.
        label: whether the last answer is a good one (KTO); None if the row does not say.
        unread_label: the row's label as text if it is not true, false, 1 or 0.
        caption: a description that stands in for the clip.
        reference: an answer known to be good.
        accepted: further answers known to be right.
        options: the choices of a question, which its text also shows.
        source: where the row comes from, for tables.
    """

    id: str = ""
    media: tuple[Media, ...] = ()
    system: str = ""
    turns: tuple[Turn, ...] = ()
    chosen: str | None = None
    rejected: str | None = None
    label: bool | None = None
    unread_label: str = ""
    caption: str = ""
    reference: str = ""
    accepted: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    source: str = ""

    @property
    def is_pair(self) -> bool:
        """Whether two answers are compared."""
        return self.chosen is not None or self.rejected is not None

    @property
    def questions(self) -> tuple[str, ...]:
        """What the user says."""
        return tuple(turn.text for turn in self.turns if turn.role == "user")


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a row cannot be used: a short name to count by, the field that causes it, and the details."""

    name: str
    field: str
    detail: str

    def __str__(self) -> str:
        return f"{self.name} (`{self.field}`): {self.detail}" if self.field else f"{self.name}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Note:
    """A decision about a usable row; reported once, with its number of rows."""

    text: str


@dataclass(frozen=True, slots=True)
class Parsed:
    """The result of parsing a row: a record or problems, and notes.

    Attributes:
        record: None if there are problems.
        problems: empty if there is a record.
        notes: decisions that the owner of the data should be told once.
        unknown: names of unknown fields.
    """

    record: Record | None
    problems: tuple[Problem, ...] = ()
    notes: tuple[Note, ...] = ()
    unknown: tuple[str, ...] = ()


@dataclass(slots=True)
class Findings:
    """Problems, notes and unknown fields, collected while one row is read."""

    problems: list[Problem] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def problem(self, name: str, where: str, expected: str, actual: object) -> None:
        """Add a problem in the form ``expected ..., found ...``."""
        self.problems.append(Problem(name, where, f"expected {expected}, found {shown(actual)}"))

    def unknown_at(self, where: str, name: str) -> None:
        """Add an unknown field of an object inside the row; turns are not told apart."""
        self.unknown.append(f"{re.sub(r'[0-9]+(?=])', '', where)}.{name}")

    def note(self, text: str) -> None:
        """Add a note."""
        self.notes.append(Note(text))


def naming_unknown(problems: Iterable[Problem], unknown: Iterable[str]) -> tuple[Problem, ...]:
    """Problems, where those about something missing (``no answer`` ...) also name the row's unread fields."""
    names = ", ".join(f"`{name}`" for name in unknown)
    return tuple(
        replace(problem, detail=f"{problem.detail}; these fields of the row are not read: {names}")
        if names and problem.name.startswith("no ")
        else problem
        for problem in problems
    )


class Words(str):
    """What a row has, in our words rather than as its value: shown without quotes."""


def shown(value: object, max_length: int = 120) -> str:
    """A value as text for a message, cut to ``max_length`` characters."""
    text = str(value) if isinstance(value, Words) else repr(value)
    return text if len(text) <= max_length else text[: max_length - 3] + "..."
