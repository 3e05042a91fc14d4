"""Rows of a data file, one at a time: JSON lines of any length of file, JSON arrays of modest size."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hound_plugin.corpus.files import readable_size
from hound_plugin.errors import DataError

LONGEST_LINE = 16 << 20
LARGEST_ARRAY = 1 << 30


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        number: line in JSON lines, place in an array; from 1.
        value: the object, or None if it is none.
        reason: why there is no object.
        size: bytes that it takes in the file, with the empty lines before it; 0 in an array.
    """

    number: int
    value: dict[str, Any] | None
    reason: str = ""
    size: int = 0


def read_rows(path: Path) -> Iterator[Row]:
    """Stream a JSON or JSONL file, whatever its name ends in; empty lines are skipped.

    Raises:
        DataError: the file does not exist, is empty, or is an array that is damaged or too large to be read whole.
    """
    if not path.is_file():
        raise DataError(f"Expected a file of JSON lines; there is none at {path}. Check the path.")
    with path.open("rb") as file:
        beginning = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not beginning and path.stat().st_size <= 4096:
        raise DataError(f"Expected rows in {path}; it is empty. Download or write it again.")
    yield from _array(path) if beginning.startswith(b"[") else _lines(path)


def _lines(path: Path) -> Iterator[Row]:
    size = 0
    with path.open("rb") as file:
        for number in _count():
            line = file.readline(LONGEST_LINE)
            if not line:
                return
            size += len(line)
            if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
                while (rest := file.readline(LONGEST_LINE)) and not rest.endswith(b"\n"):
                    size += len(rest)
                yield Row(number, None, f"a line of more than {readable_size(LONGEST_LINE)}", size + len(rest))
            elif line.strip():
                yield _row(number, line, size)
            else:
                continue
            size = 0


def _count() -> Iterator[int]:
    number = 0
    while True:
        number += 1
        yield number


def _row(number: int, line: bytes, size: int) -> Row:
    try:
        value = json.loads(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
        return Row(number, None, f"no JSON: {str(error)[:120]}", size)
    if not isinstance(value, dict):
        return Row(number, None, f"an object was expected, found {type(value).__name__}", size)
    return Row(number, value, size=size)


def _array(path: Path) -> Iterator[Row]:
    if path.stat().st_size > LARGEST_ARRAY:
        raise DataError(
            f"Expected JSON lines in {path}, or an array of at most {readable_size(LARGEST_ARRAY)}; it has "
            f"{readable_size(path.stat().st_size)}. Write one object a line, for example with `jq -c '.[]'`."
        )
    try:
        values = json.loads(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"Expected a JSON array in {path}; {error}. The file is damaged; fetch it again.") from error
    for number, value in enumerate(values, 1):
        good = isinstance(value, dict)
        yield Row(number, value if good else None, "" if good else f"an object was expected, found {value!r:.80}")
