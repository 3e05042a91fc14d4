"""Rows of every shape, with every form of media, and what must be learnt from each or sent of it.

What is expected stands here in plain texts; nothing of the package that reads rows is used to make it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]

FRAMES = ["clip_long/c01_0001.jpeg", "clip_long/c01_0009.jpeg", "clip_long/c01_0020.jpeg"]


@dataclass(frozen=True)
class Medium:
    """How a row names what is shown.

    Attributes:
        kind: ``video``, ``image`` or nothing.
        fields: what the row says.
        items: what must be opened, as the host has it: paths with parts, lists of frames.
        parts: the same as content parts of a message; empty where that is no form people use.
    """

    kind: str = ""
    fields: Row = field(default_factory=dict)
    items: tuple[Any, ...] = ()
    parts: tuple[Row, ...] = ()

    @property
    def tokens(self) -> str:
        return f"<{self.kind}>\n" * len(self.items)


def url(kind: str, path: str, **more: Any) -> Row:
    return {"type": f"{kind}_url", f"{kind}_url": {"url": path, **more}}


def part(kind: str, path: Any, **more: Any) -> Row:
    return {"type": kind, kind: path, **more}


MEDIA: dict[str, Medium] = {
    "nothing": Medium(),
    "video": Medium("video", {"video": "clip_long"}, ("clip_long",), (part("video", "clip_long"),)),
    "videos": Medium("video", {"videos": "clip_short.mp4"}, ("clip_short.mp4",), (url("video", "clip_short.mp4"),)),
    "one in a list": Medium("video", {"videos": ["clip_portrait"], "images": []}, ("clip_portrait",)),
    "two clips": Medium(
        "video",
        {"video": ["clip_long", "clip_short.mp4"]},
        ("clip_long", "clip_short.mp4"),
        (part("video", "clip_long"), url("video", "clip_short.mp4")),
    ),
    "frames": Medium("video", {"video": FRAMES, "image": None}, (FRAMES,), (part("video", FRAMES),)),
    "frames in a list": Medium("video", {"videos": [FRAMES]}, (FRAMES,)),
    "frames as objects": Medium("video", {"video": [{"path": path} for path in FRAMES]}, (FRAMES,)),
    "frames and a clip": Medium("video", {"videos": [FRAMES, "clip_long"]}, (FRAMES, "clip_long")),
    "an object": Medium(
        "video", {"video": {"path": "clip_portrait.mp4", "bytes": None}}, ("clip_portrait.mp4",),
        ({"type": "video", "path": "clip_portrait.mp4"},),
    ),
    "objects": Medium("video", {"videos": [{"path": "few3"}]}, ("few3",)),
    "the same twice": Medium("video", {"video": "clip_long", "videos": ["clip_long"]}, ("clip_long",)),
    "id of a clip": Medium("video", {"video_id": "clip_long"}, ("clip_long",)),
    "a part": Medium("video", {"video": "clip_long.mp4", "start": 2, "end": 4.5}, ("clip_long.mp4#t=2,4.5",)),
    "a part as text": Medium(
        "video", {"videos": ["clip_long.mp4"], "video_start": "8.5", "video_end": None}, ("clip_long.mp4#t=8.5",)
    ),
    "a part in an object": Medium(
        "video", {"video": {"path": "clip_long.mp4", "end": 3}}, ("clip_long.mp4#t=,3",),
        (part("video", "clip_long.mp4", video_end="3"),),
    ),
    "image": Medium("image", {"image": "img_wide.jpg"}, ("img_wide.jpg",), (part("image", "img_wide.jpg"),)),
    "images": Medium("image", {"images": ["img_tall.png"]}, ("img_tall.png",), (url("image", "img_tall.png"),)),
    "an image and the id of its clip": Medium(
        "image", {"image": "img_wide.jpg", "video_id": "clip_long"}, ("img_wide.jpg",)
    ),
    "frame": Medium("image", {"frame": FRAMES[1]}, (FRAMES[1],)),
    "an image as an object": Medium("image", {"images": [{"path": "img_tall.png", "bytes": None}]}, ("img_tall.png",)),
    "two images": Medium(
        "image",
        {"images": ["img_wide.jpg", "img_tall.png"]},
        ("img_wide.jpg", "img_tall.png"),
        (part("image", "img_wide.jpg"), part("image", "img_tall.png")),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """One way of writing a row.

    Attributes:
        make: the row with a form of media, without its id.
        said: questions and answers in turn, without placeholders; of a pair, up to the question that is answered twice.
        system, chosen, rejected, label, caption, reference: as in the row.
        fits: which forms of media it can have.
    """

    make: Callable[[Medium], Row]
    said: tuple[str, ...] = ()
    system: str = ""
    chosen: str | None = None
    rejected: str | None = None
    label: bool | None = None
    caption: str = ""
    reference: str = ""
    options: tuple[str, ...] = ()
    fits: Callable[[Medium], bool] = lambda medium: True

    @property
    def is_pair(self) -> bool:
        return self.chosen is not None

    @property
    def questions(self) -> int:
        return (len(self.said) + 1) // 2

    @property
    def is_answered(self) -> bool:
        return bool(self.said) and len(self.said) % 2 == 0


def said(*texts: str, tags: str = "from value human gpt") -> list[Row]:
    """Messages of these texts; an empty first text is left out, so that the conversation begins with an answer."""
    role, content, *roles = tags.split()
    return [{role: roles[number % 2], content: text} for number, text in enumerate(texts) if text]


def messages(*texts: str) -> list[Row]:
    return said(*texts, tags="role content user assistant")


def answer(text: str) -> list[Row]:
    return [{"role": "assistant", "content": text}]


def content(medium: Medium, text: str) -> list[Row]:
    return [*medium.parts, {"type": "text", "text": text}]


def is_inline(medium: Medium) -> bool:
    return bool(medium.parts)


def has_one(medium: Medium) -> bool:
    return len(medium.items) == 1


def has_some(medium: Medium) -> bool:
    return bool(medium.items)


SYSTEM_TURN = {"from": "system", "value": "You count cars."}
SFT: dict[str, Shape] = {
    "the original's": Shape(
        lambda m: {**m.fields, "conversations": said(m.tokens + "How many cars?", "Three cars.")},
        ("How many cars?", "Three cars."),
    ),
    "sharegpt with a system turn": Shape(
        lambda m: {
            **m.fields,
            "conversations": [SYSTEM_TURN, *said(m.tokens + "How many?", "Three.", "And now?", "Two of them.")],
        },
        ("How many?", "Three.", "And now?", "Two of them."),
        system="You count cars.",
    ),
    "a row's system": Shape(
        lambda m: {**m.fields, "system": "Be brief.", "conversations": said(m.tokens + "Who waves?", "A man.")},
        ("Who waves?", "A man."),
        system="Be brief.",
    ),
    "the same system twice": Shape(
        lambda m: {
            **m.fields, "system_prompt": "Be kind.",
            "messages": [{"role": "system", "content": "Be kind."}, *messages(m.tokens + "Who waves?", "A girl.")],
        },
        ("Who waves?", "A girl."),
        system="Be kind.",
    ),
    "content parts": Shape(
        lambda m: {
            "messages": [
                {"role": "developer", "content": [{"type": "text", "text": "Answer in one word."}]},
                {"role": "user", "content": content(m, "What colour is the bus?")},
                {"role": "assistant", "content": [{"type": "text", "text": "Yellow."}]},
            ]
        },
        ("What colour is the bus?", "Yellow."),
        system="Answer in one word.",
        fits=is_inline,
    ),
    "parts without a path, after the text": Shape(
        lambda m: {
            **m.fields,
            "messages": [
                {"role": "user", "content": ["Where is it?", *[{"type": m.kind}] * len(m.items)]},
                *answer("On the hill."),
            ],
        },
        ("Where is it?", "On the hill."),
        fits=has_some,
    ),
    "content parts and the id of a clip": Shape(
        lambda m: {
            "video_id": "V12", "messages": [{"role": "user", "content": content(m, "Is it full?")}, *answer("No.")]
        },
        ("Is it full?", "No."),
        fits=is_inline,
    ),
    "parts that say again what a field says": Shape(
        lambda m: {
            **m.fields, "messages": [{"role": "user", "content": content(m, "Is it open?")}, *answer("It is shut.")]
        },
        ("Is it open?", "It is shut."),
        fits=lambda m: m.items in (("clip_long",), ("img_wide.jpg",)) and bool(m.parts),
    ),
    "query and response": Shape(
        lambda m: {**m.fields, "query": m.tokens + "Does it rain?", "response": "It does."},
        ("Does it rain?", "It does."),
    ),
    "question, answer and a history": Shape(
        lambda m: {
            **m.fields, "history": [[m.tokens + "Is it day?", "It is night."]],
            "question": "How can you tell?", "answer": "By the lamps.",
        },
        ("Is it day?", "It is night.", "How can you tell?", "By the lamps."),
    ),
    "a history of messages": Shape(
        lambda m: {
            **m.fields, "history": messages(m.tokens + "Is it day?", "It is night."),
            "query": "How so?", "response": "The lamps are on.",
        },
        ("Is it day?", "It is night.", "How so?", "The lamps are on."),
    ),
    "alpaca": Shape(
        lambda m: {
            **m.fields, "instruction": m.tokens + "Name the tool.", "input": "It lies left.", "output": "A saw.",
            "history": [], "system": "You know tools.",
        },
        ("Name the tool.\nIt lies left.", "A saw."),
        system="You know tools.",
    ),
    "alpaca with empty fields": Shape(
        lambda m: {
            **m.fields, "instruction": m.tokens + "Name the tool.", "input": "", "output": "A hammer.",
            "history": "", "system": "",
        },
        ("Name the tool.", "A hammer."),
    ),
    "a prompt and its completion": Shape(
        lambda m: {**m.fields, "prompt": m.tokens + "Who runs?", "completion": answer("A fox runs.")},
        ("Who runs?", "A fox runs."),
    ),
    "a prompt that is a conversation": Shape(
        lambda m: {
            **m.fields, "prompt": messages(m.tokens + "Who runs?", "A fox.", "From whom?"), "completion": "From a dog."
        },
        ("Who runs?", "A fox.", "From whom?", "From a dog."),
    ),
    "a greeting": Shape(
        lambda m: {**m.fields, "conversations": said("", "Ask me.", m.tokens + "What flies?", "A kite.")},
        ("What flies?", "A kite."),
    ),
    "options by letter": Shape(
        lambda m: {
            **m.fields, "question": m.tokens + "Is it a cat or a dog?", "options": ["a cat", "a dog"], "answer": "b"
        },
        ("Is it a cat or a dog?\nA. a cat\nB. a dog", "B. a dog"),
        options=("a cat", "a dog"),
    ),
    "options by number": Shape(
        lambda m: {
            **m.fields, "question": m.tokens + "Which of the 10?", "choices": ["the 1st", "the 10th"], "answer": 1
        },
        ("Which of the 10?\nA. the 1st\nB. the 10th", "B. the 10th"),
        options=("the 1st", "the 10th"),
    ),
    "options by text": Shape(
        lambda m: {
            **m.fields, "question": m.tokens + "Who?", "candidates": ["A. Lincoln", "G. Washington"],
            "answer": "A. Lincoln",
        },
        ("Who?\nA. A. Lincoln\nB. G. Washington", "A. A. Lincoln"),
        options=("A. Lincoln", "G. Washington"),
    ),
    "options that the question shows": Shape(
        lambda m: {
            **m.fields, "question": m.tokens + "Which?\n(A) the door\n(B) the gate", "answer": "(A)",
            "options": ["(A) the door", "(B) the gate"],
        },
        ("Which?\n(A) the door\n(B) the gate", "A. the door"),
        options=("the door", "the gate"),
    ),
    "options with letters of their own": Shape(
        lambda m: {
            **m.fields, "question": m.tokens + "Which?", "answer": "C. the gate is the one",
            "options": {"C": "the gate", "D": "the wall"},
        },
        ("Which?\nC. the gate\nD. the wall", "C. the gate is the one"),
        options=("the gate", "the wall"),
    ),
    "JSON as text": Shape(
        lambda m: {**m.fields, "text": json.dumps({"q": m.tokens + "Is it hot?", "a": "It is.", "x": None})},
        ("Is it hot?", "It is."),
    ),
    "a placeholder in an answer": Shape(
        lambda m: {**m.fields, "conversations": said(m.tokens + "Which tag is it?", "It is <video> here.")},
        ("Which tag is it?", "It is <video> here."),
    ),
    "a placeholder amidst the text": Shape(
        lambda m: {**m.fields, "conversations": said(f"Look: <{m.kind}> Who is it?", "A judge.")},
        ("Look:  Who is it?", "A judge."),
        fits=has_one,
    ),
    "the placeholder of the other kind": Shape(
        lambda m: {
            **m.fields,
            "conversations": said(f"<{'image' if m.kind == 'video' else 'video'}>\nWho sings?", "A boy sings."),
        },
        ("Who sings?", "A boy sings."),
        fits=has_one,
    ),
    "a number for an answer": Shape(
        lambda m: {**m.fields, "q": m.tokens + "How many?", "a": 12, "score": [1, "n/a"]}, ("How many?", "12")
    ),
    "a caption beside": Shape(
        lambda m: {
            **m.fields, "caption": "Two men carry a door.", "reference": "A door, I think.",
            "question": m.tokens + "What do they carry?", "answer": "A door.", "source": "hand",
        },
        ("What do they carry?", "A door."),
        caption="Two men carry a door.",
        reference="A door, I think.",
    ),
    "a question alone": Shape(lambda m: {**m.fields, "question": m.tokens + "What is cut?"}, ("What is cut?",)),
    "a conversation that ends with a question": Shape(
        lambda m: {**m.fields, "conversations": said(m.tokens + "Who sleeps?", "A cat.", "Where?")},
        ("Who sleeps?", "A cat.", "Where?"),
    ),
    "a caption alone": Shape(lambda m: {**m.fields, "caption": "A cat sleeps on a wall."},
                             caption="A cat sleeps on a wall.", fits=has_some),
}  # fmt: skip

BALL = {"chosen": "Blue.", "rejected": "Green."}
PAIRS: dict[str, Shape] = {
    "the original's": Shape(
        lambda m: {**m.fields, "prompt": m.tokens + "What colour?", **BALL}, ("What colour?",), **BALL
    ),
    "without a placeholder": Shape(
        lambda m: {**m.fields, "prompt": "Which colour is it?", **BALL, "chosen_score": "n/a"},
        ("Which colour is it?",),
        **BALL,
        fits=lambda m: len(m.items) < 2,
    ),
    "with an earlier turn": Shape(
        lambda m: {
            **m.fields, "conversations": said(m.tokens + "What is it?", "A jar.", "What colour?"),
            "chosen": {"from": "gpt", "value": "Blue."}, "rejected": {"from": "gpt", "value": "Green."},
        },
        ("What is it?", "A jar.", "What colour?"),
        **BALL,
    ),
    "with a greeting": Shape(
        lambda m: {**m.fields, "conversations": said("", "Ask me.", m.tokens + "What colour?"), **BALL},
        ("What colour?",),
        **BALL,
    ),
    "a prompt that is a conversation": Shape(
        lambda m: {
            **m.fields, "prompt": messages(m.tokens + "What is it?", "A jar.", "What colour?"),
            "chosen": answer("Blue."), "rejected": answer("Green."),
        },
        ("What is it?", "A jar.", "What colour?"),
        **BALL,
    ),
    "whole conversations": Shape(
        lambda m: {
            **m.fields, "chosen": messages(m.tokens + "What colour?", "Blue."),
            "rejected": messages(m.tokens + "What colour?", "Green."),
        },
        ("What colour?",),
        **BALL,
    ),
    "whole conversations behind their prompt, with a system": Shape(
        lambda m: {
            **m.fields, "prompt": messages(m.tokens + "What colour?"),
            **{
                side: [{"role": "system", "content": "Name colours."}, *messages(m.tokens + "What colour?", BALL[side])]
                for side in BALL
            },
        },
        ("What colour?",),
        system="Name colours.",
        **BALL,
    ),
    "whole conversations of parts": Shape(
        lambda m: {
            side: [{"role": "user", "content": content(m, "What colour?")}, *answer(BALL[side])] for side in BALL
        },
        ("What colour?",),
        **BALL,
        fits=is_inline,
    ),
    "ms-swift's rejected_response": Shape(
        lambda m: {**m.fields, "messages": messages(m.tokens + "What colour?", "Blue."), "rejected_response": "Green."},
        ("What colour?",),
        **BALL,
    ),
    "ms-swift's rejected_messages": Shape(
        lambda m: {
            **m.fields,
            "messages": [{"role": "system", "content": "Be exact."}, *messages(m.tokens + "What colour?", "Blue.")],
            "rejected_messages": messages(m.tokens + "What colour?", "Green."),
        },
        ("What colour?",),
        system="Be exact.",
        **BALL,
    ),
    "ms-swift's query and response": Shape(
        lambda m: {
            **m.fields, "query": "What colour?", "response": "Blue.", "rejected_response": "Green.",
            "history": [[m.tokens + "What is it?", "A jar."]], "system": "Be exact.",
        },
        ("What is it?", "A jar.", "What colour?"),
        system="Be exact.",
        **BALL,
    ),
    "RLHF-V's": Shape(
        lambda m: {
            **m.fields, "idx": 5, "origin_dataset": "web",
            "text": json.dumps({"question": m.tokens + "What colour?", **BALL}),
        },
        ("What colour?",),
        **BALL,
    ),
    "lists of one answer": Shape(
        lambda m: {**m.fields, "q": m.tokens + "What colour?", "preferred": ["Blue."], "dispreferred": ["Green."]},
        ("What colour?",),
        **BALL,
    ),
    "an answer beside the two": Shape(
        lambda m: {
            **m.fields, "prompt": m.tokens + "What colour?", **BALL, "answer": "It is blue.", "caption": "A jar."
        },
        ("What colour?",),
        reference="It is blue.",
        caption="A jar.",
        **BALL,
    ),
    "options": Shape(
        lambda m: {
            **m.fields, "prompt": m.tokens + "What colour?", "options": ["red", "blue"], "chosen": "B", "rejected": "A"
        },
        ("What colour?\nA. red\nB. blue",),
        chosen="B. blue",
        rejected="A. red",
        options=("red", "blue"),
    ),
}  # fmt: skip


def labelled(value: Any, name: str = "label") -> Callable[[Medium], Row]:
    return lambda m: {**m.fields, "conversations": said(m.tokens + "Who knocks?", "A nurse."), name: value}


LABELS: dict[str, Shape] = {
    f"{name}: {value!r}": Shape(labelled(value, name), ("Who knocks?", "A nurse."), label=label)
    for value, label, name in (
        (True, True, "label"), (False, False, "label"), (1, True, "kto_tag"), (0, False, "label"),
        ("true", True, "label"), ("False", False, "kto_tag"),
    )
}  # fmt: skip
LABELS["after an earlier turn"] = Shape(
    lambda m: {**m.fields, "messages": messages(m.tokens + "Who?", "A nurse.", "Why?", "I see her."), "label": "0"},
    ("Who?", "A nurse.", "Why?", "I see her."),
    label=False,
)
LABELS["words, which only matter for KTO"] = Shape(labelled("gait"), ("Who knocks?", "A nurse."))
SHAPES = {
    f"{group}, {name}": shape
    for group, shapes in (("sft", SFT), ("pair", PAIRS), ("label", LABELS))
    for name, shape in shapes.items()
}
Cell = tuple[str, str]
CELLS: list[Cell] = [(shape, medium) for shape in SHAPES for medium in MEDIA if SHAPES[shape].fits(MEDIA[medium])]


def row_of(cell: Cell) -> Row:
    shape, medium = cell
    return {"id": f"{shape} / {medium}", **SHAPES[shape].make(MEDIA[medium])}


def verdict(cell: Cell, consumer: str) -> set[str]:
    """Names of the problems that a cell's row must have for a consumer; empty where it must be taken."""
    shape, medium = SHAPES[cell[0]], MEDIA[cell[1]]
    if consumer == "captions":
        return set() if len(medium.items) == 1 else {"media"}
    if consumer == "pairs":
        return set() if shape.is_pair else {"no pair"}
    if consumer == "questions":
        found = {"several media"} if len(medium.items) > 1 else set()
        found |= {"several questions"} if shape.questions > 1 else set()
        found |= {"system"} if shape.system else set()
        return found | (set() if shape.said else {"no question"})
    if shape.is_pair:
        return {"a pair"} | ({"no label"} if consumer == "labels" else set())
    found = {"a rejected answer"} if shape.label is False and consumer in ("sft", "predictions") else set()
    if consumer == "predictions":
        return found | (set() if shape.said else {"no question"})
    if not shape.is_answered:
        found.add("no answer" if shape.said else "no conversation")
    if consumer == "labels" and shape.label is None:
        found.add("label" if "words" in cell[0] else "no label")
    return found


def good(consumer: str) -> list[Cell]:
    return [cell for cell in CELLS if not verdict(cell, consumer)]
