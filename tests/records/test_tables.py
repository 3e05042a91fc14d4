"""Hostile texts stay in their cells, read back by parsers of Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import html
import io
import re

import pytest
from markdown_it import MarkdownIt

from hound_plugin.records.tables import csv_table, escape_latex, escape_markdown, latex_table, markdown_table, one_line

MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table")
HOSTILE = [
    "a | b || c",
    "line one\nline two\r\nthree\rfour\u2028five\x0bsix",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "![](https://evil.example/pixel.png) [link](javascript:alert(1))",
    "`code` **bold** _it_ ~~gone~~ # title $x$ &lt; \\| \\",
    "</table></td>",
    "=HYPERLINK(\"http://evil.example\")",
    "+1+1", "-2+3", "@SUM(A1)", "\t=1+1", "\r=1", " =1+1", "＝1+1",
    '"quoted", "twice"',
    "\x1b[31mred\x00\x07",
    "\\input{/etc/passwd} \\write18{ls} $\\alpha$ 50% #1 {x} a_b ~ ^ \\\\ & < > |",
    "",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_keeps_one_row_and_its_cells(text: str) -> None:
    table = markdown_table(("id", "answer", "n"), [(text, text, 1), ("next", None, 2)])
    assert len(table.splitlines()) == 4
    page = MARKDOWN.render(table)
    assert page.count("<tr>") == 3
    assert page.count("<td>") == 6
    without = re.sub(r"</?(table|thead|tbody|tr|td|th)>", "", page)
    assert "<" not in without, "no other element"
    cells = [html.unescape(cell) for cell in re.findall(r"<td>(.*?)</td>", page)]
    assert " ".join(cells[0].split()) == " ".join(cells[1].split()) == " ".join(one_line(text).split())
    assert cells[2:] == ["1", "next", "-", "2"]


def test_markdown_shows_what_was_written() -> None:
    assert MARKDOWN.render(escape_markdown("1 < 2 & `x` *y* a|b")) == "<p>1 &lt; 2 &amp; `x` *y* a|b</p>\n"


@pytest.mark.parametrize("text", HOSTILE)
def test_csv_reads_back_and_holds_no_formula(text: str) -> None:
    table = csv_table(("id", "answer", "n"), [(text, "x", -1.5), ("next", None, 2)])
    read = list(csv.reader(io.StringIO(table)))
    assert [len(row) for row in read] == [3, 3, 3]
    assert read[1][1:] == ["x", "-1.5"], "a number stays a number"
    assert read[2] == ["next", "", "2"]
    assert not read[1][0].strip(" \t\r\n").startswith(("=", "+", "-", "@", "＝"))


@pytest.mark.parametrize("text", HOSTILE)
def test_latex_has_no_command_of_the_text(text: str) -> None:
    written = escape_latex(text)
    plain = re.sub(r"\\text[a-z]+\{\}|\\[{}$&#_%]", "", written)
    assert not set(plain) & set("\\{}$&#_%~^")
    assert "\n" not in written


def test_a_latex_table() -> None:
    text = latex_table(("set", "accuracy"), [("a_b", "50%"), ("all", None)], "100% & more", groups=(1,))
    assert text.splitlines()[3:] == [
        "\\caption{100\\% \\& more}", "\\begin{tabular}{lr}", "\\toprule", "set & accuracy \\\\", "\\midrule",
        "a\\_b & 50\\% \\\\", "\\midrule", "all & - \\\\", "\\bottomrule", "\\end{tabular}", "\\end{table}",
    ]  # fmt: skip


def test_one_line_is_cut_with_a_sign() -> None:
    assert one_line("abcdef", 4) == "abc…"
    assert one_line(" a\n\nb ") == "a ⏎  ⏎ b"
