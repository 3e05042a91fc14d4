"""Rows of any shape: what is plain is taken whole, anything else is named; a row is never changed."""

from __future__ import annotations

import copy
import io
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hound_plugin.records import fields
from hound_plugin.records.jsonl import read_lines
from hound_plugin.records.parse import parse

SENTENCES = st.text(st.characters(codec="utf-8", exclude_characters="<>"), min_size=1, max_size=60).filter(
    lambda text: text.strip() and not text.strip().startswith(("{", "["))
)
NAMES = sorted(
    {name for group in (fields.CONVERSATIONS, fields.QUESTIONS, fields.ANSWERS, fields.CHOSEN, fields.REJECTED,
                        fields.CAPTIONS, fields.IDS, fields.LABELS, fields.OPTIONS) for name in group}
    | {"video", "videos", "image", "images", "system", "score"}
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "from", "value", "type", "text", "video", "image", "url"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@given(questions=st.lists(st.tuples(SENTENCES, SENTENCES), min_size=1, max_size=3))
def test_a_conversation_in_two_shapes_is_one_record(questions: list[tuple[str, str]]) -> None:
    ours, theirs = [], []
    for number, (question, answer) in enumerate(questions):
        first = "<video>\n" * (not number)
        ours += [{"from": "human", "value": first + question}, {"from": "gpt", "value": answer}]
        theirs += [{"role": "user", "content": first + question}, {"role": "assistant", "content": answer}]
    rows = {"conversations": ours}, {"messages": theirs}
    records = [parse({"id": "1", "video": "a.mp4", **row}) for row in rows]
    assert not records[0].problems
    assert records[0].record == records[1].record
    texts = [turn.text for turn in records[0].record.turns]  # type: ignore[union-attr]
    assert [text.removeprefix("<video>\n") for text in texts] == [text for pair in questions for text in pair]


@given(row=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6))
def test_any_row_is_a_record_or_named_problems(row: dict[str, Any]) -> None:
    before = copy.deepcopy(row)
    parsed = parse(row)
    assert repr(row) == repr(before)
    assert (parsed.record is None) == bool(parsed.problems)
    assert all(str(problem).strip() for problem in parsed.problems)


@given(
    rows=st.lists(st.dictionaries(st.text(max_size=8), VALUES, max_size=4), max_size=4),
    ends=st.sampled_from(["\n", "\r\n"]),
)
def test_lines_come_back_as_they_were_written(rows: list[dict[str, Any]], ends: str) -> None:
    finite = json.loads(json.dumps(rows).replace("NaN", "0").replace("-Infinity", "0").replace("Infinity", "0"))
    text = "".join(json.dumps(row) + ends for row in finite)
    read = list(read_lines(io.BytesIO(text.encode())))
    assert not [row.problem for row in read if row.problem]
    assert [row.value for row in read] == finite


@given(data=st.binary(max_size=300))
def test_any_bytes_are_rows_or_problems(data: bytes) -> None:
    for row in read_lines(io.BytesIO(data)):
        assert (row.value is None) == bool(row.problem)
