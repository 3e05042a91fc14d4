"""Why `datasets` could not give each column of a JSON file one type: the row and column where two types clash."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from datasets.exceptions import DatasetGenerationError

from hound_plugin.errors import DataError

Texts = Callable[[Path], Iterator[tuple[int, str]]]
Place = tuple[str, int]  # file, row
_KINDS = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list", dict: "an object"}
HOUND = 'Write "formatting": "hound" into its entry of dataset_info.json: that format reads rows of any types'


def explain_failure(attr: Any, files: list[tuple[str, Path]], texts: Texts, error: Exception) -> DataError | None:
    """The user's error for a data set that failed to load; None if it failed for another reason.

    Args:
        attr: the data set's entry of ``dataset_info.json``.
        files: name for the user, and path, of each of its files.
        texts: number and JSON text of each row of a file.
        error: what `datasets` raised; quoted if it could not build the data set and no better reason is known.
    """
    where = f"dataset {attr.dataset_name!r}"
    try:
        problem = _first_problem(files, texts)
    except DataError as unreadable:
        return DataError(f"{where}: {unreadable}")
    if problem is None and not isinstance(error, DatasetGenerationError):
        return None
    if problem is None:
        while error.__cause__ is not None and isinstance(error.__cause__, Exception):
            error = error.__cause__
        reason = str(error).strip().splitlines() or [type(error).__name__]
        problem = f"{files[0][0]} cannot be read as columns of one type each: {reason[0][:300]}"
    return DataError(
        f"{where}: {problem}. `formatting: {attr.formatting}` needs the same columns in every file, and one type a "
        f"column. {HOUND}; or correct the file."
    )


def _first_problem(files: list[tuple[str, Path]], texts: Texts) -> str | None:
    seen: dict[str, tuple[str, Place]] = {}
    columns: dict[str, set[str]] = {}
    for name, path in files:
        columns[name] = set()
        for number, text in texts(path):
            try:
                row = json.loads(text)
            except (ValueError, RecursionError) as error:
                return f"{name}, row {number} is not valid JSON ({error}): {text[:100]!r}"
            if not isinstance(row, dict):
                return f"{name}, row {number} is not a JSON object: {text[:100]!r}"
            columns[name].update(row)
            for column, kind in _kinds(row):
                first, (file, line) = seen.setdefault(column, (kind, (name, number)))
                if first != kind:
                    there = f"row {line}" if file == name else f"{file}, row {line}"
                    return f"{name}, row {number}: `{column}` is {kind}, and {first} in {there}"
    for name, path in files:
        with path.open("rb") as handle:
            if handle.read(3) == b"\xef\xbb\xbf":
                return f"{name} begins with a byte order mark"
    return _other_columns(columns)


def _other_columns(columns: dict[str, set[str]]) -> str | None:
    """A column that some of several files lack."""
    for name, own in columns.items():
        for other, others in columns.items():
            if own - others:
                return f"{name} has the column `{min(own - others)}`, and {other} does not"
    return None


def _kinds(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every path in a row, such as ``conversations[].value``, and the kind of value there."""
    if path and value is not None:
        yield path, _KINDS[type(value)]
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _kinds(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for item in value:
            yield from _kinds(item, f"{path}[]")
