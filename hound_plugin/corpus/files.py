"""Sizes and counts for people; file writing lives in :mod:`hound_plugin.records.files`."""

from __future__ import annotations

from hound_plugin.records.files import whole_file as whole_file
from hound_plugin.records.files import write_json as write_json


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
    """An approximate number in thousands (``~17k``); ``?`` for None."""
    return "?" if rows is None else f"~{rows // 1000}k"
