"""Rows of a Parquet file, and rows as one. A null is a field that is not there, as a column has it in every row."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from hound_plugin.errors import DataError
from hound_plugin.records.files import PathLike, whole_file

ROWS = 1024  # read at a time
SUFFIX = ".parquet"


def read_parquet(path: PathLike, file: BinaryIO) -> Iterator[tuple[dict[str, Any] | None, str]]:
    """Each row, or None and why it has no value.

    Args:
        path: the file's name, for messages.
        file: the open file.

    Raises:
        DataError: it is not a whole Parquet file, or two of its columns have one name.
    """
    import pyarrow as pa

    batches = _batches(path, file)
    while True:
        try:
            batch = next(batches, None)
            rows = [] if batch is None else batch.to_pylist()
        except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
            if isinstance(error, DataError) or getattr(error, "errno", None):  # the disk's
                raise
            raise DataError(f"{path}: expected a whole Parquet file: {error} Download or write it again.") from error
        if batch is None:
            return
        for row in rows:
            reason = _refused(row)
            yield (None, reason) if reason else (_without_nulls(row), "")


def _batches(path: PathLike, file: Any) -> Iterator[Any]:
    import pyarrow.parquet as pq

    opened = pq.ParquetFile(file, page_checksum_verification=True)
    _check_names(path, opened.schema_arrow)
    yield from opened.iter_batches(batch_size=ROWS)


def _check_names(path: PathLike, fields: Any, within: str = "") -> None:
    """Of two values of one name a row would only have the last."""
    import pyarrow as pa

    for name, count in Counter(field.name for field in fields).items():
        if count > 1:
            raise DataError(f"{path}: expected one column {within + name!r}, got {count}. Rename or remove them.")
    for field in fields:
        kind, inner = field.type, within + field.name + "."
        while pa.types.is_list(kind) or pa.types.is_large_list(kind):
            kind = kind.value_type
        if pa.types.is_struct(kind):
            _check_names(path, list(kind), inner)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _refused(value: Any, where: str = "") -> str:
    """Why JSON would not have a value; empty if it would, or if it is bytes (of a picture)."""
    if isinstance(value, dict):
        return next(filter(None, (_refused(item, f"{where}.{name}".strip(".")) for name, item in value.items())), "")
    if isinstance(value, list):
        return next(filter(None, (_refused(item, where) for item in value)), "")
    if isinstance(value, float) and not math.isfinite(value):
        return f"the column {where} is {value}, not a number"
    if value is None or isinstance(value, str | int | float | bool | bytes):
        return ""
    return (
        f"the column {where} is a {type(value).__name__}; expected text, numbers, true or false, lists or objects of "
        "these"
    )


def write_parquet(path: PathLike, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as a whole file, with checksums; columns in the order in which the rows first have them.

    Half a surrogate pair in a text becomes ``?``, as in JSON lines.

    Raises:
        DataError: a field has values of two types, or one that Parquet or JSON does not have.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = _table(path, rows)
    with whole_file(path, "wb") as file:
        try:
            pq.write_table(table, file, write_page_checksum=True)
        except pa.ArrowNotImplementedError as error:  # an object that is empty in every row
            raise DataError(f"{path}: {error} Write JSON lines instead (a name that ends in .jsonl).") from error


def check_columns(path: PathLike, rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse what :func:`write_parquet` would, before the work whose results these rows will have.

    Raises:
        DataError: a field has values of two types, or one that Parquet or JSON does not have.
    """
    _table(path, rows)


def _table(path: PathLike, rows: Sequence[Mapping[str, Any]]) -> Any:
    import pyarrow as pa

    for row in rows:
        if reason := _refused(dict(row)):
            raise DataError(f"{path}: expected rows that can be written, got {row!r:.200}: {reason}.")
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {}
    for name in names:
        try:
            columns[name] = pa.array([_writable(row.get(name)) for row in rows])
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise DataError(
                f"{path}: a column of Parquet has values of one type, and whole numbers of 64 bits; those of {name!r} "
                f"do not: {error}. Write JSON lines instead (a name that ends in .jsonl)."
            ) from error
    return pa.table(columns)


def _writable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {_writable(name): _writable(item) for name, item in value.items()}
    return [_writable(item) for item in value] if isinstance(value, list) else value
