"""Rows of a Parquet file, and rows as one. A null is a field that is not there, as a column has it in every row."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hound_plugin.errors import DataError
from hound_plugin.records.files import PathLike, whole_file
from hound_plugin.records.row_sources import open_rows

ROWS = 1024  # read at a time
SUFFIX = ".parquet"


def read_parquet(path: PathLike) -> Iterator[tuple[dict[str, Any] | None, str]]:
    """Each row, or None and why it has no value.

    Raises:
        DataError: it is not a whole Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open_rows(path) as file:
        try:
            for batch in pq.ParquetFile(file).iter_batches(batch_size=ROWS):
                for row in batch.to_pylist():
                    reason = _refused(row)
                    yield (None, reason) if reason else (_without_nulls(row), "")
        except pa.ArrowException as error:
            raise DataError(f"{path}: expected a whole Parquet file: {error} Download or write it again.") from error


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
    """Write rows as a whole file; columns in the order in which the rows first have them.

    Raises:
        DataError: a field has values of two types.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = dict.fromkeys(name for row in rows for name in row)
    columns = {}
    for name in names:
        try:
            columns[name] = pa.array([row.get(name) for row in rows])
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(
                f"{path}: a column of Parquet has values of one type, and those of {name!r} have several: {error}. "
                "Write JSON lines instead (a name that ends in .jsonl)."
            ) from error
    with whole_file(path, "wb") as file:
        pq.write_table(pa.table(columns), file)
