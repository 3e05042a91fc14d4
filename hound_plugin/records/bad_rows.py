"""One policy for rows that cannot be used, for everything that reads rows.

All problems are collected first. ``error`` then stops with a table of counts and first examples, and lists all problems
in a file; ``skip`` leaves the rows out, writes the same list, and stops if too large a share would be left out.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TextIO

from hound_plugin.errors import DataError, MediaNotFoundError, PlaceholderError
from hound_plugin.records.record import Note, Problem

OnBadRows = Literal["error", "skip"]
LIST = "bad_rows.jsonl"
MISSING = "media missing"
_ERRORS: dict[str, type[DataError | MediaNotFoundError]] = {
    "placeholders": PlaceholderError,
    MISSING: MediaNotFoundError,
}
MAX_SHARE = 0.01
_SHOWN = 30  # kinds of problems in a message


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row is: its file or data set, its number (from 1), and its id."""

    file: str
    row: int | None
    id: str = ""

    def __str__(self) -> str:
        row = "row unknown" if self.row is None else f"row {self.row}"
        parts = [self.file, row, f"id {self.id!r}" if self.id else ""]
        return ", ".join(part for part in parts if part)


@dataclass
class RowReport:
    """Problems and notes from the rows of one run.

    Attributes:
        what: the data set or file, for messages.
        rows: rows checked.
        bad: rows with at least one problem.
        counts: name of a problem -> rows that have it.
        examples: name of a problem -> the first place, with the problem.
        notes: decisions about rows that are used -> their number.
        unknown: names of unknown fields -> rows that have them.
        entries: the list, one entry per problem. Empty if there is a ``sink``.
        sink: receives the list as it grows, one JSON object per line, for files of any length.
    """

    what: str
    rows: int = 0
    bad: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, tuple[Place, Problem]] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    entries: list[dict[str, object]] = field(default_factory=list)
    sink: TextIO | None = None

    def add(self, place: Place, problems: Iterable[Problem]) -> bool:
        """Count a row's problems; returns whether it has any."""
        row_problems = list(problems)
        self.bad += bool(row_problems)
        self.counts.update({problem.name for problem in row_problems})
        for problem in row_problems:
            self.examples.setdefault(problem.name, (place, problem))
            entry = _entry(place, problem)
            if self.sink is None:
                self.entries.append(entry)
            else:
                self.sink.write(to_lines([entry]))
        return bool(row_problems)

    def add_notes(self, notes: Iterable[Note | str], unknown: Iterable[str], rows: int = 1) -> None:
        """Count notes and unknown fields of ``rows`` rows that have them."""
        for note in notes:
            self.notes[note.text if isinstance(note, Note) else note] += rows
        for name in unknown:
            self.unknown[name] += rows

    def table(self) -> str:
        """Lines of count, problem and first example, most frequent first."""
        width = max((len(name) for name in self.counts), default=0)
        lines = []
        for name, count in self.counts.most_common(_SHOWN):
            place, problem = self.examples[name]
            where = f"`{problem.field}`: " if problem.field else ""
            place = replace(place, file="") if place.file == self.what else place
            lines.append(f"{count:>9,}  {name:<{width}}  {place}: {where}{problem.detail}")
        if len(self.counts) > _SHOWN:
            lines.append(f"           and {len(self.counts) - _SHOWN} more kinds")
        return "\n".join(lines)

    def remarks(self) -> list[str]:
        """A line per note and one for unknown fields, with their numbers of rows."""
        lines = [f"{self.what}: {text} ({count:,} rows)" for text, count in self.notes.most_common()]
        names = ", ".join(f"`{name}` ({count:,})" for name, count in self.unknown.most_common(20))
        more = f" and {len(self.unknown) - 20} more" if len(self.unknown) > 20 else ""
        return [*lines, *([f"{self.what}: fields that nothing reads, by rows: {names}{more}"] if names else [])]

    def settle(
        self, policy: OnBadRows, max_share: float, listed: Path | str | None, how_to_skip: str = "", lister: str = ""
    ) -> str:
        """Stop, or return a sentence about what is left out; empty if every row can be used.

        Args:
            policy: ``error`` or ``skip``.
            max_share: with ``skip``, the largest share of rows that may be left out.
            listed: path of the list, for the message.
            how_to_skip: what the user sets to leave bad rows out; empty where that is not possible.
            lister: the command that lists them all, if they are not listed yet.

        Raises:
            DataError: rows are bad and the policy is ``error``, or too many are.
        """
        if not self.bad:
            return ""
        summary = f"{self.bad:,} of {self.rows:,} rows of {self.what} cannot be used"
        where = f" All of them are listed in {listed}." if listed else f" `{lister}` lists them all." if lister else ""
        if policy == "error":
            skipping = f", or leave them out with {how_to_skip}" if how_to_skip else ""
            advice = f"Correct or remove them{skipping}.{where}"
            raise error_of(self.counts)(f"{summary}:\n{self.table()}\n{advice}")
        if self.bad > max_share * self.rows + 1e-9:
            raise DataError(
                f"{summary}, more than the share of {max_share:g} that may be left out (`max_bad_rows`):\n"
                f"{self.table()}\nCorrect them, or raise `max_bad_rows`.{where}"
            )
        return f"{summary} and are left out:\n{self.table()}\n{where.strip()}".rstrip()


def _entry(place: Place, problem: Problem) -> dict[str, object]:
    return {
        "file": place.file,
        "row": place.row,
        "id": place.id or None,
        "problem": problem.name,
        "field": problem.field,
        "detail": problem.detail,
    }


def error_of(names: Iterable[str]) -> type[DataError | MediaNotFoundError]:
    """The error class to raise: a narrower one if all problems are of its kind."""
    kinds = {_ERRORS.get(name, DataError) for name in names}
    return kinds.pop() if len(kinds) == 1 else DataError


def to_lines(entries: Sequence[dict[str, object]]) -> str:
    """The list as JSON lines."""
    return "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
