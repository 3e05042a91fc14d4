"""Rows that nobody can honour: every reader names all of them at once, or leaves out exactly these."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hound_plugin.corpus.dataset_conversion import convert
from hound_plugin.corpus.validate import Options, validate
from hound_plugin.errors import DataError
from hound_plugin.records.bad_rows import RowReport
from hound_plugin.records.consumers import check
from hound_plugin.records.parse import parse
from hound_plugin.records.questions import read_questions
from tests.host.hosting import media_folder, write_dataset
from tests.records.bad_shapes import BAD, bad_for
from tests.records.bad_shapes import row_of as bad_row
from tests.records.loading import KINDS, STAGES, Loaded, name
from tests.records.shapes import Cell, Row, good, row_of

GOOD: dict[str, list[Cell]] = {
    reader: [cell for cell in good(reader) if cell[1] in ("video", "a part", "image")]
    for reader in (*STAGES, "questions")
}
GOOD["convert"] = list(dict.fromkeys((*GOOD["sft"], *GOOD["labels"], *GOOD["pairs"])))


def mixed(reader: str) -> list[Row]:
    """Bad rows among good ones."""
    bad = [bad_row(case) for case in bad_for(reader)]
    usable = [row_of(cell) for cell in GOOD[reader]]
    return [row for pair in itertools.zip_longest(usable, bad) for row in pair if row is not None]


def expected_list(reader: str) -> list[tuple[int, str, str, str]]:
    """Row, id, problem and field of every bad row."""
    rows = [row["id"] for row in mixed(reader)]
    return [(n, row, BAD[row].problem, BAD[row].field) for n, row in enumerate(rows, 1) if row in BAD]


def listed(entries: list[Row]) -> list[tuple[int, str, str, str]]:
    return [(entry["row"], entry["id"], entry["problem"], entry["field"]) for entry in entries]


def check_message(text: str, reader: str) -> None:
    """One message counts every kind of problem, and shows row, id and field of its first row."""
    expected = expected_list(reader)
    assert f"{len(expected)} of {len(mixed(reader))} rows" in text
    counts = Counter(problem for _, _, problem, _ in expected)
    assert (f"and {len(counts) - 30} more kinds" in text) == (len(counts) > 30)
    for problem, count in counts.most_common(30):
        number, row, _, where = next(entry for entry in expected if entry[2] == problem)
        assert re.search(
            rf"^ +{count}  {problem} +row {number}, id {re.escape(repr(row))}: `{re.escape(where)}`: ", text, re.M
        )


ERROR: dict[str, Any] = {"on_bad_rows": "error"}
SKIP: dict[str, Any] = {"on_bad_rows": "skip", "max_bad_rows": 1.0}
FEW: dict[str, Any] = {"on_bad_rows": "skip", "max_bad_rows": 0.2}


def written(file: Path) -> list[Row]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def as_lines(rows: list[Row]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize("reader", STAGES)
def test_the_host_names_every_bad_row_or_leaves_out_these_alone(reader: str, loaded: Loaded) -> None:
    for settings, message in ((ERROR, "cannot be used"), (FEW, "more than the share of 0.2")):
        loaded.bad_rows.unlink(missing_ok=True)
        with pytest.raises(DataError, match=message) as caught:
            loaded.load(reader, mixed(reader), hound=settings)
        check_message(str(caught.value), reader)
        assert listed(written(loaded.bad_rows)) == expected_list(reader)
    found = loaded.load(reader, mixed(reader), hound=SKIP)
    assert listed(written(loaded.bad_rows)) == expected_list(reader)
    assert len(found) == len(GOOD[reader])
    for row, cell in zip(found, GOOD[reader], strict=True):
        whole = loaded.rows[reader, cell]
        names = [name for name in whole if not name.startswith("kl_")]  # these are of the row before it
        assert {name: row[name] for name in names} == {name: whole[name] for name in names}


def test_questions_name_every_bad_row_or_leave_out_these_alone(tmp_path: Path) -> None:
    file, media = tmp_path / "q.jsonl", str(media_folder(tmp_path / "media"))
    file.write_text(as_lines(mixed("questions")))
    for settings in (ERROR, FEW):
        with pytest.raises(DataError) as caught:
            read_questions(file, media, **settings)
        check_message(str(caught.value), "questions")
    report = RowReport(str(file))
    found = read_questions(file, media, **SKIP, report=report)
    assert [question.id for question in found] == [name(cell) for cell in GOOD["questions"]]
    assert listed(report.entries) == expected_list("questions")


def test_convert_names_every_bad_row_or_leaves_out_these_alone(tmp_path: Path) -> None:
    source, target = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    source.write_text(as_lines(mixed("convert")))
    for settings in (ERROR, FEW):
        with pytest.raises(DataError) as caught:
            convert(source, target, **settings)
        check_message(str(caught.value), "convert")
        assert not target.exists()
    result = convert(source, target, **SKIP)
    assert [row["id"] for row in written(target)] == [name(c) for c in GOOD["convert"]]
    assert result.bad_rows is not None
    assert listed(written(result.bad_rows)) == expected_list("convert")


@pytest.mark.parametrize("reader", KINDS)
def test_validate_finds_the_same_bad_rows(reader: str, tmp_path: Path) -> None:
    file, report, media = tmp_path / "a.jsonl", tmp_path / "bad.jsonl", str(media_folder(tmp_path / "media"))
    file.write_text(as_lines(mixed(reader)))
    kind: Any = KINDS[reader]
    found = validate(file, Options(media_dir=media, kind=kind, report=report))
    assert listed(written(report)) == expected_list(reader)
    assert (found.rows, found.bad) == (len(mixed(reader)), len(expected_list(reader)))


def test_lines_that_are_no_rows_are_named_like_bad_rows(loaded: Loaded) -> None:
    usable = [row_of(cell) for cell in GOOD["sft"][:2]]
    lines = [
        json.dumps(usable[0]),
        "[1, 2]",
        '{"id": 1, "id": 2}',
        '{"id": 3, "score": NaN}',
        json.dumps({**usable[1], "id": ["a"]}),
    ]
    expected = [(2, None, "no object", ""), (3, None, "key twice", ""), (4, None, "not a number", "")]
    write_dataset(loaded.data, "mine", [])
    (loaded.data / "mine.jsonl").write_text("\n".join(lines) + "\n")
    assert len(loaded.load("sft", hound=SKIP)) == 1
    found = written(loaded.bad_rows)
    assert listed(found[:3]) == expected
    assert (found[3]["row"], found[3]["problem"], found[3]["field"]) == (5, "id", "id")


@pytest.mark.parametrize("consumer", ["sft", "pairs", "labels", "questions"])
def test_what_a_row_lacks_comes_with_what_is_not_read(consumer: Any) -> None:
    """A column under another name is the usual reason."""
    parsed = parse({"id": "1", "video": "a.mp4", "prompt": "", "reply": "y", "Clip-ID": 3})
    problems = [*parsed.problems, *(check(parsed.record, consumer, parsed.unknown) if parsed.record else ())]
    lacking = [problem for problem in problems if problem.name.startswith("no ")]
    assert lacking
    assert all("not read: `reply`, `Clip-ID`" in problem.detail for problem in lacking)
