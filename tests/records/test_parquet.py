"""Rows of Parquet, and rows behind URLs, are the rows of JSON lines."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hound_plugin.errors import DataError
from hound_plugin.records.files import clear_leftovers
from hound_plugin.records.jsonl import NOT_JSON, read_objects, read_rows
from hound_plugin.records.parquet import write_parquet
from hound_plugin.records.questions import read_questions
from hound_plugin.records.row_sources import is_file, is_url, names_rows

ROWS: list[dict[str, Any]] = [
    {"id": "a", "video": "a.mp4", "conversations": [{"from": "human", "value": "<video>\nWas ist das? ⏎"}]},
    {"id": "b", "video": "b.mp4", "caption": "A dog.", "start": 1.5, "tags": ["x", "y"], "n": 3, "ok": True},
    {"id": "c", "video": ["1.jpg", "2.jpg"][0], "tags": [], "conversations": [{"from": "gpt", "value": "", "n": 1}]},
]


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    write_parquet(path, ROWS)
    assert list(read_objects(path)) == ROWS
    assert [row.number for row in read_rows(path)] == [1, 2, 3]
    assert pq.read_schema(path).names == ["id", "video", "conversations", "caption", "start", "tags", "n", "ok"]
    path.rename(tmp_path / "rows.jsonl")  # what a file is, its content says
    assert [row.value for row in read_rows(tmp_path / "rows.jsonl")] == ROWS


KILLED = """
import os, signal, sys
import pyarrow.parquet as pq
from hound_plugin.records.parquet import write_parquet

def half(table, file, **options):
    file.write(b"PAR1" + bytes(10_000))
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

pq.write_table = half
write_parquet(sys.argv[1], [{"id": "new"}])
"""


def test_killed_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    write_parquet(path, ROWS)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert list(read_objects(path)) == ROWS
    assert len(list(tmp_path.iterdir())) == 2
    assert clear_leftovers(tmp_path, path.name) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_more_rows_than_are_read_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "many.parquet"
    write_parquet(path, [{"id": str(number)} for number in range(3000)])
    assert [row["id"] for row in read_objects(path)] == [str(number) for number in range(3000)]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([datetime(2026, 1, 1, tzinfo=UTC)]), "the column x is a datetime; expected text, numbers"),
        (pa.array([float("nan")]), "the column x is nan, not a number"),
        (pa.array([[1.0, float("inf")]]), "the column x is inf, not a number"),
        (pa.array([{"when": datetime(2026, 1, 1)}]), r"the column x\.when is a datetime"),
    ],
)
def test_values_that_json_has_not_are_refused_by_column(tmp_path: Path, column: pa.Array, message: str) -> None:
    path = tmp_path / "odd.parquet"
    pq.write_table(pa.table({"id": ["a"], "x": column}), path)
    (row,) = read_rows(path)
    assert (row.value, row.problem) == (None, NOT_JSON)
    with pytest.raises(DataError, match=f"line 1: expected a JSON object: {message}"):
        list(read_objects(path))


def test_a_column_of_two_types_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    path = tmp_path / "mixed.parquet"
    with pytest.raises(DataError, match=r"those of 'x' do not.*ends in \.jsonl"):
        write_parquet(path, [{"x": 1}, {"x": "one"}])
    assert not list(tmp_path.iterdir())


def test_a_file_that_was_cut_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.parquet"
    write_parquet(path, ROWS)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="expected a whole Parquet file"):
        list(read_rows(path))


def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path: Path) -> None:
    """A file of this package has checksums of its pages; whatever breaks, it is a DataError that names the file."""
    path, damaged = tmp_path / "rows.parquet", tmp_path / "damaged.parquet"
    rows = [{"id": f"clip {number}", "start": number / 4, "n": number} for number in range(300)]
    write_parquet(path, rows)
    content, messages, places = path.read_bytes(), [], random.Random(5)
    end_of_pages = len(content) - 8 - int.from_bytes(content[-8:-4], "little")  # the footer has no checksum
    for _ in range(300):
        changed = bytearray(content)
        changed[places.randrange(4, end_of_pages)] ^= 1 << places.randrange(8)
        damaged.write_bytes(changed)
        try:
            assert list(read_objects(damaged)) == rows
        except DataError as error:
            messages.append(str(error))
    assert len(messages) > 200
    assert all(str(damaged) in message for message in messages)


@pytest.mark.parametrize("at", [5, 60, -200])
def test_damage_of_other_writers_files_is_one_error(at: int, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"id": ["a" * number for number in range(200)]}), path, compression="gzip")
    content = bytearray(path.read_bytes())
    content[at : at + 12] = b"\xff" * 12
    path.write_bytes(content)
    with pytest.raises(DataError, match="expected a whole Parquet file"):
        list(read_rows(path))


@pytest.mark.parametrize("within", ["", "clip."])
def test_two_columns_of_one_name_are_refused(within: str, tmp_path: Path) -> None:
    path, arrays = tmp_path / "rows.parquet", [pa.array(["a.mp4"]), pa.array(["b.mp4"])]
    if within:
        struct = pa.StructArray.from_arrays(arrays, fields=[pa.field("video", pa.string())] * 2)
        pq.write_table(pa.table({"clip": struct}), path)
    else:
        pq.write_table(pa.Table.from_arrays(arrays, names=["video", "video"]), path)
    with pytest.raises(DataError, match=f"expected one column '{within}video', got 2"):
        list(read_rows(path))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "the column x is nan, not a number"),
        ([{"y": float("-inf")}], r"the column x\.y is -inf, not a number"),
        (2**70, "those of 'x' do not"),
        ({}, "no child field.*Write JSON lines instead"),
        ({"a"}, "the column x is a set"),
    ],
)
def test_what_parquet_does_not_have_is_refused_and_nothing_is_written(value: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        write_parquet(tmp_path / "rows.parquet", [{"id": "a", "x": value}])
    assert not list(tmp_path.iterdir())


def test_half_a_character_is_written_as_in_json_lines(tmp_path: Path) -> None:
    write_parquet(tmp_path / "rows.parquet", [{"id": "a", "tags": ["\ud800x"]}])
    assert list(read_objects(tmp_path / "rows.parquet")) == [{"id": "a", "tags": ["?x"]}]


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet"])
def test_rows_behind_a_url(tmp_path: Path, suffix: str) -> None:
    path, url = tmp_path / "rows", f"memory://{uuid.uuid4().hex}/rows.{suffix}"
    if suffix == "parquet":
        write_parquet(path, ROWS)
    else:
        path.write_text(json.dumps(ROWS) if suffix == "json" else "".join(json.dumps(row) + "\n" for row in ROWS))
    assert not is_file(url)
    with pytest.raises(DataError, match="is not a file"):
        list(read_rows(url))
    with fsspec.open(url, "wb") as file:
        file.write(path.read_bytes())
    assert is_file(url)
    assert [row.value for row in read_rows(url)] == ROWS
    assert list(read_objects(url)) == ROWS


def test_questions_from_a_url(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"clip")
    url = f"memory://{uuid.uuid4().hex}/questions.jsonl"
    with fsspec.open(url, "w") as file:
        file.write(json.dumps({"id": "a", "video": "a.mp4", "prompt": "<video>\nWhat?"}) + "\n")
    (question,) = read_questions(url, str(tmp_path))
    assert (question.id, question.paths) == ("a", str(tmp_path / "a.mp4"))


@pytest.mark.parametrize(
    ("url", "message"),
    [("nowhere://bucket/rows.jsonl", "nowhere"), ("s3fs-none://x", "s3fs-none"), ("gs://b/x.jsonl", "package")],
)
def test_an_address_that_cannot_be_reached_is_refused(url: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(read_rows(url))


@pytest.mark.parametrize(
    ("name", "url", "rows"),
    [
        ("s3://bucket/rows.parquet", True, True),
        ("simplecache::s3://bucket/rows", True, True),
        ("a/b:c.jsonl", False, True),
        ("clip.mp4", False, False),
        ("C:/x.PARQUET", False, True),
    ],
)
def test_names(name: str, url: bool, rows: bool) -> None:
    assert (is_url(name), names_rows(name)) == (url, rows)
