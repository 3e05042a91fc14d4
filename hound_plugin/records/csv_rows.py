"""Rows of a table of separated values (CSV): each cell is the text in the file.

No cell becomes a number, a truth value or nothing: ``007`` stays ``007``, and ``NA`` is a text. An empty cell is
absent.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from hound_plugin.errors import DataError

LONGEST_CELL = 16 << 20  # characters
_HOW = "Write one row a line in UTF-8, or save the table as JSON lines."

CsvRow = dict[str, str] | str
"""Cells by column, or why the row has none."""


def read_header(path: Path, separator: str = ",") -> list[str]:
    """The names of a table's columns; one without a name, as pandas writes its index, is ``Unnamed: NUMBER``.

    Args:
        path: the file.
        separator: one character.

    Raises:
        DataError: as :func:`read_csv`.
    """
    return _columns(path, next(_lines(path, separator), []))


def read_csv(path: Path, separator: str = ",") -> Iterator[tuple[int, CsvRow]]:
    """Number, from 1 below the header, and cells of each row; empty lines are left out, and so are empty cells.

    A row with more or fewer cells than the header comes as the reason why it cannot be read.

    Args:
        path: the file.
        separator: one character.

    Raises:
        DataError: the file is empty, not UTF-8, has two columns of one name, or a quotation mark in the wrong place.
    """
    lines = _lines(path, separator)
    columns = _columns(path, next(lines, []))
    for number, cells in enumerate(lines, 1):
        if len(cells) == len(columns):
            yield number, {name: cell for name, cell in zip(columns, cells, strict=True) if cell}
        else:
            begin = separator.join(cells)[:100]
            yield number, f"expected {len(columns)} cells, as the header has, found {len(cells)}; it begins {begin!r}"


def _lines(path: Path, separator: str) -> Iterator[list[str]]:
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=separator, strict=True)
        try:
            yield from (cells for cells in reader if cells)
        except UnicodeDecodeError as error:
            raise DataError(f"Expected a table (CSV) in UTF-8; {path} is not: {error}. {_HOW}") from error
        except csv.Error as error:
            raise DataError(
                f'{path}, line {reader.line_num}: expected cells of a table (CSV), with `""` for a quotation mark '
                f"in a quoted cell; {error}. {_HOW}"
            ) from error


def _columns(path: Path, header: Sequence[str]) -> list[str]:
    names = [name or f"Unnamed: {number}" for number, name in enumerate(header)]
    twice = [name for name in names if names.count(name) > 1]
    if not names:
        raise DataError(f"Expected a table (CSV) with a header in {path}; the file is empty. Write it again.")
    if twice:
        raise DataError(f"Expected columns of different names in {path}; two are `{twice[0]}`. Rename or remove one.")
    return names
