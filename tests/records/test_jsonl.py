"""Every line is taken whole, or named with what is wrong with it."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
from pathlib import Path

import pytest

from hound_plugin.errors import DataError
from hound_plugin.records import jsonl as module
from hound_plugin.records.jsonl import read_lines, read_objects, read_rows

GOOD = b'{"id": 7}\n'

# line -> what kind of problem it has, and words of the reason
BAD = {
    b'{"id": 1, "id": 2}': ("key twice", "the key 'id' appears twice in one object"),
    b'{"turns": [{"from": "human", "value": "a", "value": "b"}]}': ("key twice", "'value' appears twice"),
    b'{"score": NaN}': ("not a number", "NaN is not JSON"),
    b'{"score": [-Infinity]}': ("not a number", "-Infinity is not JSON"),
    b'{"score": -2e999}': ("not a number", "the number -2e999 is too large"),
    b'{"id": ' + b"9" * 5000 + b"}": ("not a number", "more than 4300 digits"),
    b'{"text": "cut \\ud83d here"}': ("half a character", "half a character"),
    b'{"text": "cut \\uDE00"}': ("half a character", "surrogate"),
    b'{"id": 1': ("no object", "not valid JSON: Expecting ',' delimiter"),
    b'{"id": "\xff"}': ("no object", "invalid start byte"),
    b'{"id": 1} {"id": 2}': ("no object", "Extra data"),
    b"[" * 100_000: ("no object", "recursion"),
    b'["id", 1]': ("no object", r"expected an object, found ['id', 1]"),
    b"null": ("no object", "expected an object, found None"),
}


def rows(path: Path) -> list[tuple[int, object]]:
    return [(row.number, row.value) for row in read_rows(path)]


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("line", BAD, ids=lambda line: line[:30].decode("latin-1"))
def test_a_bad_line_has_a_reason_and_leaves_the_others(line: bytes, tmp_path: Path) -> None:
    problem, words = BAD[line]
    path = write(tmp_path / "a.jsonl", GOOD + line + b"\n\n" + GOOD)
    first, bad, last = read_rows(path)
    assert (first.value, last.value, last.number) == ({"id": 7}, {"id": 7}, 4)
    assert (bad.number, bad.value, bad.problem, bad.is_torn) == (2, None, problem, False)
    assert words in bad.reason
    assert first.size + bad.size + last.size == path.stat().st_size
    if problem != "half a character":
        with pytest.raises(DataError, match=r"a\.jsonl, line 2: expected a JSON object: "):
            list(read_objects(path))


@pytest.mark.parametrize("line", [line for line in BAD if BAD[line][0] != "no object" or b"null" in line])
def test_a_bad_row_of_an_array_leaves_the_others(line: bytes, tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", b"[" + GOOD + b",\n" + line + b" , " + GOOD + b"]\n")
    first, bad, last = read_rows(path)
    assert (first.value, last.value, last.number) == ({"id": 7}, {"id": 7}, 3)
    assert (bad.number, bad.value, bad.problem) == (2, None, BAD[line][0])


def test_whole_numbers_and_characters_are_taken_as_they_are(tmp_path: Path) -> None:
    value = {"id": 12345678901234567890123, "text": "\U0001f600 a\u2028b\x85c\x0bd", "score": 0.1, "n": None}
    for ascii_only in (True, False):
        text = json.dumps(value, ensure_ascii=ascii_only)
        for data in (f"{text}\n", f"[{text}]"):
            path = write(tmp_path / "a.json", data.encode())
            assert [row.value for row in read_rows(path)] == list(read_objects(path)) == [value]


def test_arrays_byte_order_marks_and_ends_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"id": 1}, 2, {"id": 3}], indent=1))
    assert rows(path) == [(1, {"id": 1}), (2, None), (3, {"id": 3})]
    assert rows(write(path, b'\xef\xbb\xbf \n[{"id": 1}]')) == [(1, {"id": 1})]
    assert rows(write(path, b"[]")) == rows(write(path, b" [ ] \n")) == []
    assert rows(write(path, b'\xef\xbb\xbf{"id": 1}\r\n\xff\n')) == [(1, {"id": 1}), (2, None)]
    assert rows(write(path, b'\xef\xbb\xbf\n\n{"id": 1}')) == [(3, {"id": 1})]


@pytest.mark.parametrize("data", [b"[1, 2", b"[1 2]", b"[{},]", b"[", b"[{}] {}", b'["\xff"]', b"[{}]]", b"[,{}]"])
def test_a_damaged_array_is_refused(data: bytes, tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", data)
    with pytest.raises(DataError, match=r"Expected a JSON array in .*a\.json; .* The file is damaged"):
        list(read_rows(path))


def test_files_that_are_something_else_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    wrong = {
        '{"id": 1}\n'.encode("utf-16"): "is UTF-16; convert it with `iconv",
        gzip.compress(GOOD): "is compressed; unpack it",
        bz2.compress(GOOD): "is compressed; unpack it with `bunzip2",
        lzma.compress(GOOD): "is compressed; unpack it with `unxz",
        b"PAR1\x15\x04\x15": "expected a whole Parquet file: .* Download or write it again",
        b"PK\x03\x04\x14\x00": "is a spreadsheet or another zip archive; save its rows as JSON lines",
        b"\xd0\xcf\x11\xe0\xa1": "is a spreadsheet or another document of Office",
        b"id,video,prompt\n1,a.mp4,What?\n": r"is a table of separated values \(CSV\); .*\.csv.*read_csv",
        b"\xef\xbb\xbfid\tvideo\r\n1\ta.mp4\r\n": "is a table of separated values",
        b'"id";"video"\n"1";"a, b; c.mp4"\n': "is a table of separated values",
        json.dumps({"data": [{"id": 1}]}, indent=2).encode(): "one object over several lines",
        b"": "the file is empty",
    }
    for data, words in wrong.items():
        with pytest.raises(DataError, match=words):
            list(read_rows(write(path, data)))
    with pytest.raises(DataError, match="is not a file"):
        list(read_rows(tmp_path / "none"))
    monkeypatch.setattr(module, "LARGEST_ARRAY", 3)
    with pytest.raises(DataError, match="jq -c"):
        list(read_rows(write(path, b"[1, 2]")))


@pytest.mark.parametrize("data", [b"what, is it\n" + GOOD, GOOD + b"a,b\n", b"one,two\n", b"words\nmore, words\n"])
def test_lines_of_words_are_rows_that_cannot_be_read(data: bytes, tmp_path: Path) -> None:
    assert {row.problem for row in read_rows(write(tmp_path / "a.jsonl", data))} >= {"no object"}


def test_a_line_that_is_too_long_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_LINE", 64)
    long = b'{"id": "' + b"x" * 500 + b'"}\n'
    path = write(tmp_path / "a.jsonl", long + b'{"id": 2}\n' + long[:-3])
    first, good, last = read_rows(path)
    assert (first.value, good.value, last.value) == (None, {"id": 2}, None)
    assert first.reason == "a line of more than 0.0 MB"
    assert (first.size, first.is_torn, last.is_torn) == (len(long), False, True)
    assert sum(row.size for row in (first, good, last)) == path.stat().st_size


# --- all of them good


@pytest.mark.parametrize("tail", [b"{", b'{"id": 2, "text": "a', '{"id": "Ü'.encode()[:-1], b'{"id": 2'])
def test_a_torn_last_line_is_left_out_unless_the_file_must_be_complete(tail: bytes, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", GOOD + tail)
    assert list(read_objects(path)) == [{"id": 7}]
    with pytest.raises(DataError, match=r"a\.jsonl, line 2: expected a JSON object: not valid JSON"):
        list(read_objects(path, complete=True))
    with pytest.raises(DataError, match="line 2"):
        list(read_objects(write(path, GOOD + tail + b"\n")))


def test_a_last_line_without_its_end_that_is_whole_is_judged_as_any_other(tmp_path: Path) -> None:
    assert list(read_objects(write(tmp_path / "a.jsonl", GOOD + b'{"id": 8}'))) == [{"id": 7}, {"id": 8}]
    for line in (b'{"id": 8, "id": 9}', b"8", b'{"id": NaN}'):
        with pytest.raises(DataError, match="line 2"):
            list(read_objects(write(tmp_path / "a.jsonl", GOOD + line)))


def test_half_a_character_becomes_a_question_mark_where_all_must_be_good(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b'{"text": "left \\uD83D", "more": ["\\ud83d\\ude00", "\\\\ud83d"]}\n')
    assert list(read_objects(path)) == [{"text": "left ?", "more": ["\U0001f600", "\\ud83d"]}]


def test_no_file_has_no_rows(tmp_path: Path) -> None:
    assert list(read_objects(tmp_path / "none.jsonl")) == list(read_objects(write(tmp_path / "a", b""))) == []


def test_lines_of_an_open_file() -> None:
    found = list(read_lines(io.BytesIO('{"text": "a\u2028b"}\n\nx\n{"id": 2}'.encode())))
    assert [(row.number, row.value) for row in found] == [(1, {"text": "a\u2028b"}), (3, None), (4, {"id": 2})]
