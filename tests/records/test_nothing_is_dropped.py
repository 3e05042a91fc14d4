"""Whatever stands in a row is used, known to have no effect, counted as unread, or refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from hound_plugin.records import fields
from hound_plugin.records.parse import parse
from tests.records.shapes import CELLS, SHAPES, Row, row_of


def objects(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all objects in a row, itself included."""
    if isinstance(value, dict):
        yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        yield from objects(item, (*path, key))


def changed(row: Row, path: tuple[Any, ...], **more: Any) -> Row:
    copy = json.loads(json.dumps(row))
    place = copy
    for key in path:
        place = place[key]
    place |= more
    return copy


INSIDE = [
    (cell, path)
    for cell in CELLS
    if cell[1] in ("videos", "frames as objects", "a part in an object", "an image as an object")
    for path in objects(row_of(cell))
    if path != ("options",)  # its keys are the choices
]


def test_a_key_that_nobody_knows_is_counted_wherever_it_stands() -> None:
    for cell, path in INSIDE:
        found = parse(changed(row_of(cell), path, zzz=1))
        assert found.record is not None, (cell, path)
        assert [name for name in found.unknown if name.endswith("zzz")], (cell, path)
        assert found.record == parse(row_of(cell)).record


@pytest.mark.parametrize("key", ["fps", "max_frames", "tools", "audio"])
def test_a_key_that_cannot_be_honoured_is_refused_wherever_it_stands(key: str) -> None:
    for cell, path in INSIDE:
        found = parse(changed(row_of(cell), path, **{key: 2}))
        if not path and key in fields.INSIDE_ONLY:  # beside a clip it is the file's own rate
            assert key in found.unknown
            continue
        assert [p for p in found.problems if p.name == "not honoured" and p.field.endswith(key)], (cell, path)


@pytest.mark.parametrize("key", ["video", "image", "images"])
def test_another_clip_is_refused_wherever_it_stands(key: str) -> None:
    for cell, path in INSIDE:
        at = row_of(cell)
        for step in path:
            at = at[step]
        if key not in at:
            found = parse(changed(row_of(cell), path, **{key: "another.png"}))
            assert found.problems or any(name.endswith(f".{key}") for name in found.unknown), (cell, path)


ADDED: list[Any] = ["7.25", 7.25, ["one", "two"], {"path": "another.mp4"}, {"role": "user", "content": "What else?"}]
KNOWN = sorted(fields.READ.difference(fields.LAST_VIDEOS))  # a name of the clip, where another field has its path


@pytest.mark.parametrize("field", KNOWN)
def test_a_known_field_beside_others_counts_or_is_named(field: str) -> None:
    """What is added to a row changes what is read, or is counted as unread, or is refused."""
    for shape in SHAPES:
        row = row_of((shape, "videos"))
        if (shape, "videos") not in CELLS or row.get(field):
            continue
        before = parse(row)
        assert before.record is not None
        for value in ADDED:
            after = parse({**row, field: value})
            said = after.problems or field in after.unknown or after.record != before.record
            assert said, (shape, value)


ASKED: Row = {"question": "What moves?", "answer": "A dog."}


@pytest.mark.parametrize(
    "field",
    [
        {"url": "https://example.org/a.mp4"},
        {"link": "clips/a.mp4"},
        {"image_id": 458752},
        {"meta": {"video": "a.mp4"}},
        {"metadata": {"video_path": "a.mp4", "fps": 25}},
    ],
    ids=lambda field: next(iter(field)),
)
def test_what_may_name_the_clip_of_a_row_without_one_is_counted(field: Row) -> None:
    assert parse({**ASKED, **field}).unknown == tuple(field)
    assert parse({**ASKED, **field, "video": "b.mp4"}).unknown == ()


@pytest.mark.parametrize(
    ("more", "counted"),
    [
        ({"timestamp": [1.0, 3.0]}, "timestamp"),
        ({"timestamp": "['0:00:01.0', '0:00:09.0']"}, "timestamp"),
        ({"start": 1.0, "duration": 3.0}, "duration"),
        ({"timestamp": "2024-01-02 10:11:12"}, ""),
        ({"timestamp": [1.0, 3.0], "start": 1.0, "end": 3.0}, ""),
        ({"start": 1.0, "end": 3.0, "duration": 30.0}, ""),
        ({"duration": 30.0}, ""),
        ({"meta": {"licence": "CC"}}, ""),
    ],
    ids=str,
)
def test_what_may_be_a_part_of_the_clip_is_counted(more: Row, counted: str) -> None:
    assert parse({**ASKED, "video": "a.mp4", **more}).unknown == ((counted,) if counted else ())
