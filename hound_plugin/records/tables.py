r"""Tables for people as Markdown, CSV and LaTeX. Whatever is in a cell stays in it.

Cells may hold what a model or somebody else wrote: no text becomes markup, a link, a formula of a spreadsheet or a
command of LaTeX. Numbers are cells of numbers: format them before if they should be rounded.

>>> print(markdown_table(("name", "n"), [("a|b <b>", 1)]))
| name | n |
|---|---|
| a\|b \<b\> | 1 |
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from typing import Any

Rows = Sequence[Sequence[Any]]

NOTHING = "-"
"""Shown for None."""
_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~$&!])")
_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]|[\t\r\n]")
_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "`": r"\textasciigrave{}",
}  # fmt: skip


def one_line(text: str, most: int | None = None) -> str:
    """A text on one line: breaks as ⏎, other control characters as spaces; cut after ``most`` characters with …."""
    text = re.sub(r"\r\n?|\n|\u2028|\u2029|\x85|\x0b|\x0c", " ⏎ ", text.strip())
    text = "".join(character if character.isprintable() else " " for character in text)
    return text if most is None or len(text) <= most else text[: max(0, most - 1)] + "…"


def escape_markdown(text: str, most: int | None = None) -> str:
    """A text that Markdown shows as it is, on one line; raw HTML and cells of tables included."""
    return _MARKUP.sub(r"\\\1", one_line(text, most))


def escape_latex(text: str) -> str:
    """A text that LaTeX prints as it is."""
    return "".join(_LATEX.get(character, character) for character in one_line(text))


def markdown_table(columns: Sequence[str], rows: Rows) -> str:
    """A table; every cell is escaped."""
    lines = [columns, *rows]
    written = ["| " + " | ".join(escape_markdown(shown_value(value)) for value in line) + " |" for line in lines]
    return "\n".join([written[0], "|" + "---|" * len(columns), *written[1:]])


def csv_table(columns: Sequence[str], rows: Rows) -> str:
    """A table for spreadsheets; a text that one would take for a formula begins with ``'``, None is an empty cell."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    for line in (columns, *rows):
        writer.writerow([_harmless(value) for value in line])
    return file.getvalue()


def _harmless(value: Any) -> Any:
    if value is None or isinstance(value, int | float):
        return value
    text = "".join(c if c.isprintable() or c in "\n\t" else " " for c in str(value).replace("\r\n", "\n"))
    return f"'{text}" if _FORMULA.match(text) else text


def latex_table(columns: Sequence[str], rows: Rows, caption: str, groups: Sequence[int] = ()) -> str:
    """A table with booktabs' rules.

    Args:
        columns: headings.
        rows: every cell is escaped; the first column is aligned left, the others right.
        caption: escaped too.
        groups: numbers of the rows that begin a group, after a rule.
    """
    lines = ["% \\usepackage{booktabs}", "\\begin{table}", "\\centering", f"\\caption{{{escape_latex(caption)}}}"]
    lines += [f"\\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}", "\\toprule", _latex_row(columns), "\\midrule"]
    for number, row in enumerate(rows):
        lines += ["\\midrule"] if number in groups else []
        lines.append(_latex_row(row))
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}", ""])


def _latex_row(row: Sequence[Any]) -> str:
    return " & ".join(escape_latex(shown_value(value)) for value in row) + " \\\\"


def shown_value(value: Any) -> str:
    """A value for a cell: four digits of a fraction, a dash for None, anything else as text."""
    if value is None:
        return NOTHING
    return f"{value:.4g}" if isinstance(value, float) else str(value)
