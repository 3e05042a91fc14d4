"""One record, whatever shape it came in, and what can be wrong with a row.

A :class:`Record` holds texts as they were written. Placeholders are those of its media's kind (see
:mod:`hound_plugin.records.parse`); bringing them to the front of a question is the prompt's business.
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
    """One clip or one image, as a row names it; nothing was looked up on disk.

    Attributes:
        kind: ``video`` or ``image``.
        path: a file or a folder of frames; empty for frames, and for bytes without a name.
        frames: a clip as a list of pictures, in the row's order.
        bytes: the file's content, where the row holds it.
        start, end: seconds; the part of a clip that is meant, None where the row does not say.
    """

    kind: MediaKind
    path: str = ""
    frames: tuple[str, ...] = ()
    bytes: bytes | None = None
    start: float | None = None
    end: float | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Every path in it."""
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
        id: text; empty where the row has none.
        media: clips, or images, in the order of their placeholders; never both kinds.
        system: a system prompt of the row's own, or empty.
        turns: the conversation. Of a pair: everything before the answers that are compared.
        chosen, rejected: of a pair; None in other rows.
        label: whether the last answer is a good one (KTO); None where the row does not say.
        unread_label: what stands in the row's label where it is none of true, false, 1 and 0.
        caption: a description that stands in for the clip.
        reference: an answer known to be good.
        options: the choices of a question, which its text shows too.
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
    """Why a row cannot be used: a short name to count by, the field that causes it, and what was found."""

    name: str
    field: str
    detail: str

    def __str__(self) -> str:
        return f"{self.name} (`{self.field}`): {self.detail}" if self.field else f"{self.name}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Note:
    """What was decided about a row that can be used; counted, and said once with its number of rows."""

    text: str


@dataclass(frozen=True, slots=True)
class Parsed:
    """What parsing a row gave: a record, or problems; and notes.

    Attributes:
        record: None where there are problems.
        problems: empty for a record.
        notes: decisions that whoever owns the data should hear of once.
        unknown: names of fields that nobody knows.
    """

    record: Record | None
    problems: tuple[Problem, ...] = ()
    notes: tuple[Note, ...] = ()
    unknown: tuple[str, ...] = ()


@dataclass(slots=True)
class Findings:
    """Problems and notes while one row is read."""

    problems: list[Problem] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def problem(self, name: str, where: str, expected: str, found: object) -> None:
        """Add a problem in the form ``expected ..., found ...``."""
        self.problems.append(Problem(name, where, f"expected {expected}, found {shown(found)}"))

    def unknown_at(self, where: str, name: str) -> None:
        """Add a field of an object inside the row that nobody knows; the same in every turn."""
        self.unknown.append(f"{re.sub(r'[0-9]+(?=])', '', where)}.{name}")

    def note(self, text: str) -> None:
        """Add a note."""
        self.notes.append(Note(text))


def naming_unknown(problems: Iterable[Problem], unknown: Iterable[str]) -> tuple[Problem, ...]:
    """Problems of what a row lacks (``no answer`` ...) with the names of its fields that nobody reads."""
    names = ", ".join(f"`{name}`" for name in unknown)
    return tuple(
        replace(problem, detail=f"{problem.detail}; these fields of the row are not read: {names}")
        if names and problem.name.startswith("no ")
        else problem
        for problem in problems
    )


class Words(str):
    """What was found, in words of ours instead of a value of the row: no quotes around it."""


def shown(value: object, most: int = 120) -> str:
    """A value in a message, cut to ``most`` characters."""
    text = str(value) if isinstance(value, Words) else repr(value)
    return text if len(text) <= most else text[: most - 3] + "..."
