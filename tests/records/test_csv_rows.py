"""Cells of a table stay the texts that are in the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from hound_plugin.errors import DataError
from hound_plugin.records.csv_rows import read_csv, read_header


def table(tmp_path: Path, content: str | bytes) -> Path:
    file = tmp_path / "rows.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


CELLS = ["0042", "3.10", "1e3", "-0", "+5", "True", "FALSE", "nan", "N/A", "-inf", "#N/A", "<NA>", "null", " 4 "]


def test_no_cell_is_read_as_something_else(tmp_path: Path) -> None:
    file = table(tmp_path, "n,answer\n" + "".join(f"{number},{cell}\n" for number, cell in enumerate(CELLS)))
    assert [row for _, row in read_csv(file)] == [{"n": str(n), "answer": cell} for n, cell in enumerate(CELLS)]


def test_an_empty_cell_is_absent_and_changes_no_other(tmp_path: Path) -> None:
    file = table(tmp_path, 'a,b\n5,\n\n,""\n08,x\n')
    assert list(read_csv(file)) == [(1, {"a": "5"}), (2, {}), (3, {"a": "08", "b": "x"})]


def test_quotes_separators_and_ends_of_lines(tmp_path: Path) -> None:
    file = table(tmp_path, '\ufeffq\tw\r\n"say ""1.0""\nthen\tgo"\t5" tall\r\n')
    assert read_header(file, "\t") == ["q", "w"]
    assert list(read_csv(file, "\t")) == [(1, {"q": 'say "1.0"\nthen\tgo', "w": '5" tall'})]


def test_a_row_of_another_width_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    rows = dict(read_csv(table(tmp_path, "a,b\n1,2,3\n4\n5,6\n")))
    assert "expected 2 cells, as the header has, found 3; it begins '1,2,3'" in str(rows[1])
    assert "found 1" in str(rows[2])
    assert rows[3] == {"a": "5", "b": "6"}


def test_a_column_without_a_name_is_numbered(tmp_path: Path) -> None:
    assert read_header(table(tmp_path, ",video\n0,a.mp4\n")) == ["Unnamed: 0", "video"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("a,b,a\n1,2,3\n", "two are `a`"),
        ('a,b\n"x"y,1\n', r"line 2: expected cells"),
        ('a,b\n"x,1\n', r"expected cells"),
        ("a,b\né,1\n".encode("latin-1"), "in UTF-8"),
    ],
)
def test_a_table_that_cannot_be_read_whole_is_refused(content: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        list(read_csv(table(tmp_path, content)))


def test_a_long_cell_is_whole(tmp_path: Path) -> None:
    text = "long " * 60_000
    assert list(read_csv(table(tmp_path, f"a,b\n{text},1\n"))) == [(1, {"a": text, "b": "1"})]
