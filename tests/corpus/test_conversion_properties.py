"""What ``hound corpus convert`` writes, ``hound corpus validate`` and the host's reader accept, as the same record."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hound_plugin.corpus.checking import check_record
from hound_plugin.corpus.dataset_conversion import convert, convert_record, single_answers
from hound_plugin.corpus.validate import Options, validate
from hound_plugin.errors import DataError
from hound_plugin.records import fields
from hound_plugin.records.parse import parse

TEXTS = st.sampled_from(
    ["a bus", "a tram", "G. Washington", "no", "1", "A", "<video>", "B. blue", " ", "<video>\nWhich?", "[x]", "1.0",
     "What?\nA. a bus\nB. a tram", '{"q": "x"}']
) | st.text(max_size=6)  # fmt: skip
LABELS = st.sampled_from(["A", "B", "C", "D", "a", "b", "1", "2", "0", "Yes"])
CHOICES = st.lists(TEXTS, max_size=4) | st.dictionaries(LABELS, TEXTS, max_size=4) | st.lists(st.integers(0, 3))
ANSWERS = TEXTS | LABELS | LABELS.map("({})".format) | st.integers(-1, 4) | st.floats() | st.lists(TEXTS, max_size=2)
CLIPS = st.sampled_from(
    ["a.mp4", "b.png", "dir", ["1.jpg", "2.jpg"], ["a.mp4", "b.mp4"], [["1.jpg"]], "a.mp4#t=1,2", "", "1.jpg",
     {"path": "a.mp4", "start": 1, "end": 2}]
)  # fmt: skip
TURNS = st.lists(
    st.fixed_dictionaries({"from": st.sampled_from(["human", "gpt", "system"]), "value": TEXTS}), max_size=4
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(fields.OPTIONS, CHOICES),
    **dict.fromkeys((*fields.ANSWERS, *fields.REFERENCES, *fields.CHOSEN, *fields.REJECTED), ANSWERS | TURNS),
    **dict.fromkeys((*fields.QUESTIONS, *fields.CAPTIONS, "system", "source"), TEXTS),
    **dict.fromkeys(fields.CONVERSATIONS, TURNS),
    **dict.fromkeys(fields.IDS, TEXTS | st.integers()),
    **dict.fromkeys(fields.LABELS, st.sampled_from([True, False, 0, "true", "x"])),
    **dict.fromkeys(("video", "videos", "image", "images"), CLIPS),
    "score": st.integers(),
}
PLAIN = st.fixed_dictionaries({"video": CLIPS, "question": TEXTS, "answer": ANSWERS}, optional={"options": CHOICES})
PAIRS = st.fixed_dictionaries(
    {"video": CLIPS, "question": TEXTS, "options": CHOICES, "chosen": ANSWERS, "rejected": ANSWERS}
)
OTHERS = st.fixed_dictionaries({}, optional=FIELDS)
ROWS = st.builds(lambda row, other, names: {**row, **{name: other[name] for name in names if name in other}},
                 PLAIN | PAIRS | st.just({}), OTHERS, st.sets(st.sampled_from(sorted(FIELDS)), max_size=4))  # fmt: skip


@settings(max_examples=500, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(row=ROWS)
def test_a_converted_row_is_accepted_and_converted_to_itself(row: dict[str, Any]) -> None:
    try:
        converted = convert_record(row, 1)
    except DataError:
        return
    written = json.loads(json.dumps(converted))
    rows = [written, *(single_answers(written) if "chosen" in written else ())]
    assert [check_record(one).problems for one in rows] == [[]] * len(rows)
    assert convert_record(written, 1) == written


def ask(**values: Any) -> dict[str, Any]:
    return {"id": "1", "video": "a.mp4", "question": "What leaves?", **values}


KEPT = {
    "letters in another order": ask(options={"B": "a tram", "A": "a bus"}, answer="A"),
    "small letters in another order": ask(options={"c": "a ferry", "a": "a bus", "b": "a tram"}, answer="a ferry"),
    "numbers": ask(options={"1": "a tram", "2": "a bus"}, answer=2),
    "other letters": ask(options={"C": "a tram", "D": "a bus"}, answer="D"),
    "one text twice": ask(options=["a bus", "a tram", "a bus"], answer="C"),
    "a pair": ask(options={"B": "a tram", "A": "a bus"}, chosen="A", rejected="(B)"),
}


@pytest.mark.parametrize("name", KEPT)
def test_choices_keep_their_labels(name: str, tmp_path: Path) -> None:
    source, target = tmp_path / "theirs.jsonl", tmp_path / "ours.jsonl"
    source.write_text(json.dumps(KEPT[name]) + "\n")
    assert convert(source, target).bad == 0
    assert validate(target, Options(media="none")).bad == 0
    before, after = parse(KEPT[name]).record, parse(json.loads(target.read_text())).record
    assert before is not None
    assert after is not None
    assert after.turns[-1].text.removeprefix("<video>\n") == before.turns[-1].text
    assert sorted(after.options) == sorted(before.options)
    assert replace(after, options=(), turns=()) == replace(before, options=(), turns=())


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            ask(options={"B": "a tram", "C": "a bus"}, answer="C"),
            "in our format, expected the labels that the question",
        ),
        (ask(options=["the <video> sign", "a bus"], answer="B"), "in our format, expected a question that shows them"),
    ],
)
def test_choices_that_a_list_cannot_say_are_refused(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        convert_record(row, 1)
