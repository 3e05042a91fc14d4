"""A record that was written is the same record when it is read: nothing is lost, and nothing is bent."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from hound_plugin.errors import DataError
from hound_plugin.records.parse import parse
from hound_plugin.records.record import Media, Record, Turn
from hound_plugin.records.write import to_row

MEDIA: dict[str, tuple[Media, ...]] = {
    "none": (),
    "a clip": (Media("video", "a/b.mp4"),),
    "a folder": (Media("video", "a/b"),),
    "a part": (Media("video", "b.mp4", start=0.5, end=2.0),),
    "from the beginning": (Media("video", "b.mp4", start=0.0),),
    "to an end": (Media("video", "b.mp4", end=1e-05),),
    "pictures": (Media("video", frames=("b/1.jpg", "b/2.PNG")),),
    "one picture": (Media("video", frames=("b/1.jpg",)),),
    "pictures without endings": (Media("video", frames=("b/1", "b/2")),),
    "a clip named like a picture": (Media("video", "b.jpg"),),
    "two clips": (Media("video", "a.mp4"), Media("video", "b.mp4")),
    "two parts": (Media("video", "a.mp4", start=1.0), Media("video", "a.mp4", start=2.0, end=3.0)),
    "two lists": (Media("video", frames=("1.jpg", "2.jpg")), Media("video", frames=("3", "4"))),
    "a list and a clip": (Media("video", frames=("1.jpg", "2.jpg")), Media("video", "b.mp4")),
    "an image": (Media("image", "i.png"),),
    "two images": (Media("image", "i.png"), Media("image", "j.png")),
}
USER, ANSWER = Turn("user", "What is\n it? "), Turn("assistant", "  A café, \\ and “more”.")
BODIES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a question": {"turns": (USER,)},
    "an answer": {"turns": (USER, ANSWER)},
    "more turns": {"turns": (USER, ANSWER, Turn("user", "And?"), Turn("assistant", "B."))},
    "an open question": {"turns": (USER, ANSWER, Turn("user", "And?"))},
    "good": {"turns": (USER, ANSWER), "label": True},
    "bad": {"turns": (USER, ANSWER), "label": False},
    "an unread label": {"turns": (USER, ANSWER), "unread_label": "perhaps"},
    "a pair": {"turns": (USER,), "chosen": "A.", "rejected": "B. "},
    "a pair after turns": {"turns": (USER, ANSWER, Turn("user", "And?")), "chosen": "A.", "rejected": "B."},
    "a pair without a question": {"chosen": "A.", "rejected": "B."},
    "a pair after an empty question": {"turns": (Turn("user", ""),), "chosen": "A.", "rejected": "B."},
    "choices": {"turns": (Turn("user", "A or B?\nA. a cat\nB. a dog"), ANSWER), "options": ("a cat", "a dog")},
}
REST: dict[str, dict[str, Any]] = {
    "nothing": {"id": ""},
    "an id": {"id": "007"},
    "more right answers": {"id": "1", "reference": "yes", "accepted": ("Yes, it does.", "it does")},
    "all": {"id": "x", "system": "Be kind.", "caption": "{A ring.}", "reference": "yes", "source": "demo"},
}


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("media", MEDIA)
def test_a_record_is_read_as_it_was_written(media: str, body: str) -> None:
    for rest in REST.values():
        record = Record(**{**rest, **BODIES[body]}, media=MEDIA[media])
        row = json.loads(json.dumps(to_row(record)))
        parsed = parse(row)
        assert (parsed.record, parsed.problems, parsed.unknown) == (record, (), ()), row


def test_every_field_of_a_record_is_in_the_table() -> None:
    records = [Record(**{**rest, **body}, media=media)
               for media, body, rest in product(MEDIA.values(), BODIES.values(), REST.values())]  # fmt: skip
    for name in Record.__dataclass_fields__:
        assert len({repr(getattr(record, name)) for record in records}) > 1, f"{name}: add rows that differ in it"


def test_our_own_shape() -> None:
    record = Record("1", MEDIA["a part"], turns=(USER, ANSWER), label=True)
    assert to_row(record) == {
        "id": "1",
        "video": "b.mp4",
        "start": 0.5,
        "end": 2.0,
        "conversations": [{"from": "human", "value": USER.text}, {"from": "gpt", "value": ANSWER.text}],
        "label": True,
    }
    pair = Record("2", MEDIA["an image"], turns=(USER,), chosen="A.", rejected="B.")
    assert to_row(pair) == {"id": "2", "image": "i.png", "prompt": USER.text, "chosen": "A.", "rejected": "B."}
    assert list(to_row(replace(pair, turns=(USER, ANSWER, USER)))) == [
        "id",
        "image",
        "conversations",
        "chosen",
        "rejected",
    ]


def test_bytes_cannot_be_written() -> None:
    with pytest.raises(DataError, match="media as bytes cannot be written as JSON: extract them to files first"):
        to_row(Record("1", (Media("image", "a.png", bytes=b"x"),)))


def test_clips_that_would_be_read_as_frames_cannot_be_written() -> None:
    with pytest.raises(DataError, match="cannot be told from the frames of one: rename them"):
        to_row(Record("1", (Media("video", "a.jpg"), Media("video", "b.jpg"))))
