"""What a run says of rows that cannot be used, and when it stops."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from hound_plugin.errors import DataError, HoundError, MediaNotFoundError, PlaceholderError
from hound_plugin.records.bad_rows import MISSING, Place, RowReport, error_of, to_lines
from hound_plugin.records.record import Note, Problem

GONE = Problem(MISSING, "video", "expected it under clips, found no a.mp4")
BLANK = Problem("blank answer", "chosen", "expected an answer that has text, found ''")
TWICE = Problem("key twice", "", "the key 'id' appears twice")


def filled(*rows: list[Problem], **more: Any) -> RowReport:
    report = RowReport("pairs.jsonl", **more)
    for number, problems in enumerate(rows, 1):
        report.rows += 1
        assert report.add(Place("pairs.jsonl", number, f"q{number}"), problems) == bool(problems)
    return report


def test_places() -> None:
    assert str(Place("a.json", 3, "q1")) == "a.json, row 3, id 'q1'"
    assert str(Place("a.json", 3)) == "a.json, row 3"
    assert str(Place("", None, "q1")) == "row unknown, id 'q1'"


def test_rows_are_counted_once_for_each_problem() -> None:
    report = filled([], [GONE, GONE, BLANK], [BLANK], [TWICE])
    assert (report.rows, report.bad) == (4, 3)
    assert report.counts == {"media missing": 1, "blank answer": 2, "key twice": 1}
    assert report.examples["blank answer"] == (Place("pairs.jsonl", 2, "q2"), BLANK), "the first one"


def test_the_table_has_the_most_frequent_first() -> None:
    report = filled([TWICE], [GONE], [GONE])
    report.add(Place("other.jsonl", 7), [BLANK])
    assert report.table().splitlines() == [
        "        2  media missing  row 2, id 'q2': `video`: expected it under clips, found no a.mp4",
        "        1  key twice      row 1, id 'q1': the key 'id' appears twice",
        "        1  blank answer   other.jsonl, row 7: `chosen`: expected an answer that has text, found ''",
    ]


def test_a_long_table_is_cut() -> None:
    report = filled(*([Problem(f"kind {number}", "", "x")] for number in range(33)))
    lines = report.table().splitlines()
    assert len(lines) == 31
    assert lines[-1].strip() == "and 3 more kinds"


def test_the_list_has_every_problem() -> None:
    report = filled([GONE, BLANK], [], [TWICE])
    assert report.entries[1] == {
        "file": "pairs.jsonl",
        "row": 1,
        "id": "q1",
        "problem": "blank answer",
        "field": "chosen",
        "detail": BLANK.detail,
    }
    assert [(entry["row"], entry["problem"]) for entry in report.entries] == [
        (1, "media missing"),
        (1, "blank answer"),
        (3, "key twice"),
    ]
    report.add(Place("pairs.jsonl", 4), [TWICE])
    assert report.entries[-1]["id"] is None
    assert [json.loads(line) for line in to_lines(report.entries).splitlines()] == report.entries


def test_a_list_can_be_written_while_it_is_made() -> None:
    sink = io.StringIO()
    rows = [[GONE, BLANK], [], [Problem("role", "café", "x")]]
    report = filled(*rows, sink=sink)
    assert report.entries == []
    assert sink.getvalue() == to_lines(filled(*rows).entries)
    assert "café" in sink.getvalue()
    assert (report.bad, report.counts["role"]) == (2, 1)


def test_remarks_say_how_many_rows() -> None:
    report = filled([])
    assert report.remarks() == []
    report.add_notes([Note("a greeting is left out")], ["fps2", "note"])
    report.add_notes(["a greeting is left out", "other"], ["note"], rows=1_999)
    report.add_notes([], [f"field {number}" for number in range(25)])
    first, second, fields = report.remarks()
    assert first == "pairs.jsonl: a greeting is left out (2,000 rows)"
    assert second == "pairs.jsonl: other (1,999 rows)"
    assert fields.startswith(
        "pairs.jsonl: fields that nothing reads, by rows: `note` (2,000), `fps2` (1), `field 0` (1)"
    )
    assert fields.endswith(" and 7 more")


@pytest.mark.parametrize("policy", ["error", "skip"])
def test_nothing_to_settle(policy: Any) -> None:
    assert filled([], []).settle(policy, 0.0, None, "") == ""
    assert RowReport("empty").settle(policy, 0.0, None, "") == ""


def test_error_stops_at_one_bad_row() -> None:
    report = filled([], [BLANK], [GONE])
    with pytest.raises(DataError) as caught:
        report.settle("error", 1.0, "out/bad_rows.jsonl", "`--skip`")
    assert str(caught.value).splitlines() == [
        "2 of 3 rows of pairs.jsonl cannot be used:",
        *report.table().splitlines(),
        "Correct or remove them, or leave them out with `--skip`. All of them are listed in out/bad_rows.jsonl.",
    ]
    with pytest.raises(DataError, match=r"leave them out with `--skip`\.$"):
        report.settle("error", 1.0, None, "`--skip`")


def test_skip_stops_above_a_share() -> None:
    report = filled([BLANK], [GONE], *([[]] * 6))
    said = report.settle("skip", 0.25, "bad_rows.jsonl", "")
    assert said.splitlines() == [
        "2 of 8 rows of pairs.jsonl cannot be used and are left out:",
        *report.table().splitlines(),
        "All of them are listed in bad_rows.jsonl.",
    ]
    assert report.settle("skip", 0.25, None, "").endswith(GONE.detail)
    too_many = r"cannot be used, more than the share of 0\.2499 that may be left out \(`max_bad_rows`\):\n"
    with pytest.raises(DataError, match=too_many) as caught:
        report.settle("skip", 0.2499, "bad_rows.jsonl", "")
    assert report.table() in str(caught.value)
    assert str(caught.value).endswith(
        "\nCorrect them, or raise `max_bad_rows`. All of them are listed in bad_rows.jsonl."
    )


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["placeholders"], PlaceholderError),
        (["placeholders", "placeholders"], PlaceholderError),
        ([MISSING], MediaNotFoundError),
        (["placeholders", MISSING], DataError),
        (["roles"], DataError),
        ([MISSING, "roles"], DataError),
        ([], DataError),
    ],
)
def test_the_class_of_the_error_is_as_narrow_as_it_can_be(names: list[str], expected: type[HoundError]) -> None:
    assert error_of(names) is expected
    if names:
        with pytest.raises(HoundError) as caught:
            filled(*([Problem(name, "video", "x")] for name in names)).settle("error", 0.0, None, "`x`")
        assert type(caught.value) is expected
