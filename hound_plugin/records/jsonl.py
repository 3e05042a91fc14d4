"""Rows of a data file, one at a time: JSON lines and Parquet of any size, JSON arrays of modest size; also at a URL.

Lines are read in one way and consumed in two: :func:`read_rows` yields every line and says what is wrong with it,
:func:`read_objects` requires all of them to be valid.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

from hound_plugin.errors import DataError
from hound_plugin.records.files import PathLike
from hound_plugin.records.parquet import read_parquet
from hound_plugin.records.row_sources import PARQUET, is_file, is_url, open_rows

LONGEST_LINE = 16 << 20
LARGEST_ARRAY = 1 << 30

NO_OBJECT = "no object"
KEY_TWICE = "key twice"
NOT_A_NUMBER = "not a number"
HALF_A_CHARACTER = "half a character"
NOT_JSON = "not a value of JSON"

_BOM = b"\xef\xbb\xbf"
_OTHER_FORMATS = {
    b"\xff\xfe": "UTF-16; convert it with `iconv -f UTF-16 -t UTF-8`",
    b"\xfe\xff": "UTF-16; convert it with `iconv -f UTF-16 -t UTF-8`",
    b"\x1f\x8b": "compressed; unpack it with `gunzip`",
    b"BZh": "compressed; unpack it with `bunzip2`",
    b"\xfd7zXZ": "compressed; unpack it with `unxz`",
    b"\x28\xb5\x2f\xfd": "compressed; unpack it with `unzstd`",
    b"PK": "a spreadsheet or another zip archive; save its rows as JSON lines, or unpack it",
    b"\xd0\xcf\x11\xe0": "a spreadsheet or another document of Office; save its rows as JSON lines",
}
_WEB_PAGE = (b"<!doctype html", b"<html")
_SEPARATED = (
    "a table of separated values (CSV); a data set of a training may have it under a name that ends in .csv, the rest "
    "takes JSON lines (`pandas.read_csv(..., dtype=str, keep_default_na=False).to_json(..., orient='records', "
    "lines=True)`)"
)
_MAYBE_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        number: line number in JSON lines, position in an array; from 1.
        value: the object, or None if it is not valid as a whole.
        reason: why there is no object.
        size: bytes that it takes in the file, including empty lines before it; 0 in an array.
        problem: the kind of ``reason``: ``NO_OBJECT``, ``KEY_TWICE``, ``NOT_A_NUMBER`` (NaN, infinity, a number too
            large) or ``HALF_A_CHARACTER``, in Parquet ``NOT_JSON``; empty if there is an object.
        is_torn: the last line, cut off in the middle.
    """

    number: int
    value: dict[str, Any] | None
    reason: str = ""
    size: int = 0
    problem: str = ""
    is_torn: bool = False


def read_rows(path: PathLike) -> Iterator[Row]:
    """Stream a JSON, JSONL or Parquet file, whatever its suffix; empty lines are skipped, bad rows have a reason.

    Args:
        path: on a disk, or a URL that fsspec knows.

    Raises:
        DataError: the file does not exist, is empty, is not UTF-8 text, or is an array that is damaged or too large to
            be read at once.
    """
    if not is_file(path):
        raise DataError(f"Expected a file of JSON lines or Parquet; {path} is not a file. Check the path.")
    yield from _rows(path, mend=False)


def read_objects(path: PathLike, *, complete: bool = False) -> Iterator[dict[str, Any]]:
    """Objects of a JSON or JSONL file, all of which must be valid; none if there is no file.

    Half a surrogate pair, which cannot be encoded, becomes ``?``, as it does on writing.

    Args:
        path: the file.
        complete: nobody is writing the file; otherwise a truncated last line, as a killed run leaves it, is left out.

    Raises:
        DataError: a line is not a JSON object, has a key twice, NaN or a number too large; the message names the line.
    """
    if not (is_file(path) if is_url(path) else Path(path).exists()):
        return
    for row in _rows(path, mend=True):
        if row.value is not None:
            yield row.value
        elif complete or not row.is_torn:
            raise DataError(f"{path}, line {row.number}: expected a JSON object: {row.reason}.")


def read_lines(file: BinaryIO, *, mend: bool = False, lenient: bool = False) -> Iterator[Row]:
    """Rows of an open file of JSON lines; see :func:`read_rows`.

    Args:
        file: positioned at its beginning.
        mend: half a surrogate pair becomes ``?`` instead of a reason.
        lenient: accept duplicate keys (the last one counts), NaN and numbers of any size, as Python's JSON does.
    """
    size = 0
    for number in count(1):
        line = file.readline(LONGEST_LINE)
        if not line:
            return
        size += len(line)
        if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
            while (rest := file.readline(LONGEST_LINE)) and not rest.endswith(b"\n"):
                size += len(rest)
            reason = f"a line of more than {_megabytes(LONGEST_LINE)}"
            yield Row(number, None, reason, size + len(rest), NO_OBJECT, not rest)
        elif (content := line.removeprefix(_BOM) if number == 1 else line).strip():
            yield _row(number, content, size, mend, _ANY_NUMBER if lenient else _DECODER)
        else:
            continue
        size = 0


def _is_table(beginning: bytes) -> bool:
    """Whether the first two lines are a header and a row below it: no JSON, and as many separators in the row."""
    lines = [line.strip() for line in beginning.splitlines()[:2]]
    if len(lines) < 2 or any(line.startswith((b"{", b"[")) for line in lines):
        return False
    header, row = lines
    return any(0 < header.count(separator) <= row.count(separator) for separator in (b",", b";", b"\t"))


def _rows(path: PathLike, mend: bool) -> Iterator[Row]:
    with open_rows(path) as file:
        beginning = file.read(4096)
        if not beginning and not mend:
            raise DataError(f"Expected rows in {path}; the file is empty. Download or write it again.")
        if beginning.startswith(PARQUET):
            yield from _columns(path, file)
            return
        for mark, description in _OTHER_FORMATS.items():
            if beginning.startswith(mark):
                raise DataError(f"Expected a file of JSON lines in UTF-8; {path} is {description}.")
        beginning = beginning.removeprefix(_BOM).lstrip()
        if _is_table(beginning):
            raise DataError(f"Expected a file of JSON lines; {path} is {_SEPARATED}.")
        if beginning[:14].lower().startswith(_WEB_PAGE):
            raise DataError(
                f"Expected a file of JSON lines or Parquet; {path} is a web page (HTML). Use the address of the file "
                "itself (its `raw` or `resolve` link), and check that it can be read without logging in."
            )
        if beginning.startswith(b"["):
            yield from _array(path, file, mend)
            return
        if re.match(rb"\{[ \t\r]*\n", beginning):
            raise DataError(
                f"Expected one object per line, or an array, in {path}; it is one object over several lines. Write one "
                "row per line, for example with `jq -c '.data[]'` if they are under `data`."
            )
        file.seek(0)
        yield from read_lines(file, mend=mend)


def _columns(path: PathLike, file: BinaryIO) -> Iterator[Row]:
    for number, (value, reason) in enumerate(read_parquet(path, file), 1):
        yield Row(number, value, reason, problem="" if value is not None else NOT_JSON)


# --- one row


class _RefusedError(ValueError):
    def __init__(self, problem: str, reason: str) -> None:
        super().__init__(reason)
        self.problem = problem


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise _RefusedError(KEY_TWICE, f"the key {twice!r:.80} appears twice in one object; remove one of them")
    return value


def _no_constant(text: str) -> None:
    raise _RefusedError(NOT_A_NUMBER, f"{text} is not JSON; write a number or null")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _RefusedError(NOT_A_NUMBER, f"the number {text:.40} is too large")
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
_ANY_NUMBER = json.JSONDecoder(parse_int=lambda digits: int(digits) if len(digits) < 20 else float(digits))
_LENIENT = json.JSONDecoder(parse_int=str, parse_float=str)  # finds the end of a refused value
_DAMAGED = (json.JSONDecodeError, UnicodeDecodeError, RecursionError)


def read_text(text: str, number: int = 1) -> Row:
    """One row from its JSON text."""
    return _row(number, text.encode("utf-8", "surrogatepass"), 0, mend=False)


def _row(number: int, line: bytes, size: int, mend: bool, decoder: json.JSONDecoder = _DECODER) -> Row:
    try:
        text = line.decode("utf-8")
        return _checked(number, decoder.decode(text), text, size, mend)
    except _DAMAGED as error:
        torn = not line.endswith(b"\n") and not isinstance(error, RecursionError)
        return Row(number, None, f"not valid JSON: {str(error)[:120]}", size, NO_OBJECT, torn)
    except ValueError as error:
        return _refused(number, error, size)


def _refused(number: int, error: ValueError, size: int) -> Row:
    if isinstance(error, _RefusedError):
        return Row(number, None, str(error), size, error.problem)
    return Row(number, None, "an integer has more than 4300 digits", size, NOT_A_NUMBER)  # Python's own limit


def _checked(number: int, value: Any, text: str, size: int, mend: bool) -> Row:
    if not isinstance(value, dict):
        return Row(number, None, f"expected an object, found {value!r:.80}", size, NO_OBJECT)
    if _MAYBE_SURROGATE.search(text):
        encoded = json.dumps(value, ensure_ascii=False)
        try:
            encoded.encode("utf-8")
        except UnicodeEncodeError:
            if not mend:
                reason = (
                    "a text contains half a character (one half of a surrogate pair, \\ud800 to \\udfff); correct it"
                )
                return Row(number, None, reason, size, HALF_A_CHARACTER)
            value = json.loads(encoded.encode("utf-8", "replace"))
    return Row(number, value, size=size)


# --- arrays


def _array(path: PathLike, file: BinaryIO, mend: bool) -> Iterator[Row]:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if size > LARGEST_ARRAY:
        raise DataError(
            f"Expected JSON lines in {path}, or an array of at most {_megabytes(LARGEST_ARRAY)}; it has "
            f"{_megabytes(size)}. Write one object per line, for example with `jq -c '.[]'`."
        )
    try:
        text = file.read().removeprefix(_BOM).decode("utf-8")
        yield from _items(text, mend)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"Expected a JSON array in {path}; {error}. The file is damaged; download it again.") from error


def _items(text: str, mend: bool) -> Iterator[Row]:
    """The rows of an array, decoded one at a time, so that a refused one does not affect the others."""
    position = _skip(text, text.index("[") + 1)
    at_end = text[position : position + 1] == "]"
    for number in count(1):
        if at_end:
            break
        start = position
        try:
            value, position = _DECODER.raw_decode(text, start)
            row = _checked(number, value, text[start:position], 0, mend)
        except _DAMAGED:
            raise
        except ValueError as error:
            position = _LENIENT.raw_decode(text, start)[1]
            row = _refused(number, error, 0)
        yield row
        position = _skip(text, position)
        mark = text[position : position + 1]
        if mark not in (",", "]"):
            raise json.JSONDecodeError("Expecting ',' delimiter", text, position)
        at_end = mark == "]"
        position = _skip(text, position + 1) if not at_end else position
    if _skip(text, position + 1) != len(text):
        raise json.JSONDecodeError("Extra data", text, position + 1)


def _skip(text: str, position: int) -> int:
    space = _SPACE.match(text, position)
    assert space is not None
    return space.end()


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
