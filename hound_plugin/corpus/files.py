"""Files that are never seen half-written, and numbers as people read them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """Open a text file that appears under its name when it is complete: temporary sibling, flush, fsync, rename.

    When the block fails the temporary file is removed and an older file of that name stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write one JSON object with :func:`whole_file`."""
    with whole_file(path) as file:
        json.dump(value, file)


def readable_size(size: int | None) -> str:
    """Bytes in decimal units with three digits (``9.64 MB``), as the hub shows them; ``?`` for None."""
    if size is None:
        return "?"
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def readable_rows(rows: int | None) -> str:
    """About how many, in thousands (``~17k``); ``?`` for None."""
    return "?" if rows is None else f"~{rows // 1000}k"
