"""Rows of JSON and CSV files as text: the format ``hound`` reads a data set without guessing column types.

``load_dataset("json", ...)`` gives every column one type, taken from the first rows; an id that is a number in one row
and a text in the next is an error there. Here every data set has the same three columns: the row's JSON
text, its number in the file and the file's name. :func:`row_of` turns them back into the row.
"""

from __future__ import annotations

import gzip
import json
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from datasets import Features, Value

from hound_plugin.errors import DataError
from hound_plugin.records.csv_rows import read_csv
from hound_plugin.records.files import full_disk_named
from hound_plugin.records.jsonl import NO_OBJECT, Row, read_rows, read_text
from hound_plugin.records.row_sources import is_parquet

_REASON = "\x00"  # begins a text that says why there is no row; JSON never begins like this
_TRUTHS = {"true": True, "false": False}
NOT_A_TRUTH = "neither true nor false"
ROW, NUMBER, FILE = "hound_row", "hound_number", "hound_file"
FEATURES = Features({ROW: Value("large_string"), NUMBER: Value("int64"), FILE: Value("string")})


def is_text_row(example: Mapping[str, Any]) -> bool:
    """Whether :func:`row_of` must read the example's row from text."""
    return ROW in example


class BadTextError(DataError):
    """A row's text is not a JSON object that can be read whole.

    Attributes:
        file, number: where it is.
        problem, reason: as :class:`hound_plugin.records.jsonl.Row` has them.
    """

    def __init__(self, file: str | None, number: int | None, problem: str, reason: str) -> None:
        super().__init__(f"{file}, row {number}: {reason}. Correct or remove the row.")
        self.file, self.number, self.problem, self.reason = file, number, problem, reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.file, self.number, self.problem, self.reason)


def row_of(example: Mapping[str, Any]) -> tuple[dict[str, Any], int | None, str | None]:
    """The row of a data set's example, its number (from 1) and its file; None where these are unknown.

    A row of typed columns (parquet) comes without the nulls that stand for what it does not have.

    Raises:
        BadTextError: the row is not a JSON object.
    """
    if not is_text_row(example):
        return {key: _without_nulls(value) for key, value in example.items() if value is not None}, None, None
    if example[ROW].startswith(_REASON):
        raise BadTextError(example[FILE], example[NUMBER], NO_OBJECT, example[ROW].removeprefix(_REASON))
    row = read_text(example[ROW], example[NUMBER])
    if row.value is None:
        reason = f"{row.reason}; it begins {example[ROW][:100]!r}"
        raise BadTextError(example[FILE], example[NUMBER], row.problem, reason)
    return row.value, example[NUMBER], example[FILE]


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def read_texts(path: Path, separator: str | None = None) -> Iterator[tuple[int, str]]:
    """Number and JSON text of each row of a JSON, JSONL or CSV file, also a gzipped one.

    A row that is not a JSON object comes as it is, for the parser to refuse by its number.

    Args:
        path: the file.
        separator: what separates the cells of a CSV file; None for JSON.

    Raises:
        DataError: the file is missing, empty, or a table or an array that is damaged or too large.
    """
    with plain_copy(path) as plain:
        try:
            if separator is None:
                yield from _read_plain(plain)
            for number, cells in read_csv(plain, separator) if separator is not None else ():
                yield number, _REASON + cells if isinstance(cells, str) else json.dumps(cells)
        except DataError as error:
            raise DataError(str(error).replace(str(plain), str(path))) from None


def _read_plain(path: Path) -> Iterator[tuple[int, str]]:
    position = 0
    if path.is_file() and is_parquet(path):  # the host reads it itself, with its types, under its name
        raise DataError(f"Expected a file of JSON lines; {path} is Parquet. Give it a name that ends in .parquet.")
    with path.open("rb") if path.is_file() else nullcontext() as file:
        for row in read_rows(path):
            if row.size and file is not None:
                file.seek(position)
                yield row.number, _line(row, file.read(row.size if row.value is not None else min(row.size, 1 << 20)))
                position += row.size
            elif row.value is not None:
                yield row.number, json.dumps(row.value)
            else:  # an element of an array that cannot be read whole
                yield row.number, _REASON + row.reason


def _line(row: Row, raw: bytes) -> str:
    text: str | None
    try:
        text = raw.removeprefix(b"\xef\xbb\xbf").decode().strip()
    except UnicodeDecodeError:
        text = None if row.value is None else json.dumps(row.value)  # JSON of another encoding
    if text is None or (row.value is None and row.size > len(raw)):
        return f"{_REASON}{row.reason}: {raw[:200].decode(errors='backslashreplace').strip()}"
    return text


@contextmanager
def plain_copy(path: Path) -> Iterator[Path]:
    """The file itself, or a temporary copy without gzip."""
    if not path.is_file():
        yield path  # refused by `read_rows`
        return
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    if not zipped:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="hound-rows-") as folder:
        plain = Path(folder, path.stem)
        try:
            with full_disk_named(plain), gzip.open(path) as file, plain.open("wb") as copy:
                shutil.copyfileobj(file, copy, 1 << 20)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"{path} is damaged or incomplete: {error}. Download it again.") from error
        yield plain


def generate_rows(files: list[str], names: list[str], separator: str | None = None) -> Iterator[dict[str, Any]]:
    """The rows of several files in the columns of ``FEATURES``; ``separator`` is that of CSV files."""
    for file, name in zip(files, names, strict=True):
        for number, text in read_texts(Path(file), separator):
            yield {ROW: text, NUMBER: number, FILE: name}


def generate_cells(
    files: list[str], names: list[str], separator: str, columns: list[str], truths: list[str]
) -> Iterator[dict[str, Any]]:
    """The rows of CSV files for another format of the host: a text or None for each column.

    Args:
        files, names: paths, and how the user knows them.
        separator: what separates cells.
        columns: all columns of the files.
        truths: those that the host wants as true or false.

    Raises:
        BadTextError: a row has too many or too few cells, or another text where true or false belongs.
    """
    for example in generate_rows(files, names, separator):
        row, number, file = row_of(example)
        cells: dict[str, Any] = {name: row.get(name) for name in columns}
        for name in truths:
            text = cells[name]
            cells[name] = None if text is None else _TRUTHS.get(text.strip().casefold())
            if text is not None and cells[name] is None:
                reason = f"expected true or false in `{name}`, found {text!r:.80}"
                raise BadTextError(file, number, NOT_A_TRUTH, reason)
        yield cells
