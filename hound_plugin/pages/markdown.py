"""Markdown from texts that others wrote: they are shown as they are, and neither run nor load anything."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SPECIAL = re.compile(r"([\\`*\[\]|~$]|(?<!\w)_|_(?!\w))")
_ADDRESS = re.compile(r"(?i)\b(https?|ftp|mailto|www)([:.])")


def escaped(text: object) -> str:
    """A text for a cell, or for inside a line, of Markdown: in one line, without markup, HTML or links."""
    line = " ".join(str(text).split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = _SPECIAL.sub(r"\\\1", line)
    return _ADDRESS.sub(r"\1&#8203;\2", line)  # viewers make links of bare addresses


def cell(value: object) -> str:
    """A value for a table: four digits of a fraction, a dash for None, anything else as text."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Lines of a table."""
    lines = ["| " + " | ".join(map(escaped, columns)) + " |", "|" + "---|" * len(columns)]
    return lines + ["| " + " | ".join(_escaped_cell(value) for value in row) + " |" for row in rows]


def _escaped_cell(value: object) -> str:
    return cell(value) if value is None or isinstance(value, int | float) else escaped(value)
