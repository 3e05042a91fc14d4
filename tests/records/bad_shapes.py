"""Rows that nobody can honour, with the problem and the field that must be named."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tests.records.shapes import FRAMES, Row, answer, messages, part, said, url

EVERY = ("sft", "predictions", "questions", "convert")  # readers of conversations; `labels` has cells of its own
COMPARE = ("pairs", "questions", "convert")


@dataclass(frozen=True)
class Bad:
    """A row, without its id, with what is wrong with it and for whom."""

    row: Row
    problem: str
    field: str
    readers: tuple[str, ...] = EVERY


CLIP = {"video": "clip_long.mp4"}
TALK = said("<video>\nWho rows?", "A crew.")
QA = {"question": "<video>\nWho rows?", "answer": "A crew."}
TWO = {"chosen": "A crew.", "rejected": "A duck."}


def shown(*parts: Row, **more: Any) -> Row:
    """A row whose question is made of parts."""
    asked = {"role": "user", "content": [*parts, {"type": "text", "text": "Who rows?"}]}
    return {"messages": [asked, *answer("A crew.")], **more}


def compared(row: Row, problem: str, field: str, readers: tuple[str, ...] = COMPARE) -> Bad:
    return Bad({**CLIP, **row}, problem, field, readers)


def talked(row: Row, problem: str, field: str, readers: tuple[str, ...] = EVERY) -> Bad:
    return Bad({**CLIP, **row}, problem, field, readers)


ASKED = {"prompt": "<video>\nWho rows?"}
COMPARED: dict[str, Bad] = {
    "one side goes on": compared(
        {**ASKED, "chosen": said("A crew.", "How many?", "Four.", tags="from value gpt human"), "rejected": "A duck."},
        "turns differ",
        "rejected",
    ),
    "earlier answers differ": compared(
        {
            "chosen": messages("<video>\nA boat?", "Yes.", "Who rows?", "A crew."),
            "rejected": messages("<video>\nA boat?", "No.", "Who rows?", "A duck."),
        },
        "turns differ",
        "rejected",
    ),
    "two questions": compared(
        {"chosen": messages("<video>\nWho rows?", "A crew."), "rejected": messages("<video>\nWho swims?", "A duck.")},
        "turns differ",
        "rejected",
    ),
    "systems differ": compared(
        {
            "chosen": [{"role": "system", "content": "Be brief."}, *messages("<video>\nWho rows?", "A crew.")],
            "rejected": messages("<video>\nWho rows?", "A duck."),
        },
        "turns differ",
        "rejected",
    ),
    "clips differ": Bad(
        {
            side: [{"role": "user", "content": [part("video", clip), {"type": "text", "text": "Who?"}]}, *answer(side)]
            for side, clip in (("chosen", "clip_long"), ("rejected", "clip_short"))
        },
        "turns differ",
        "rejected",
        COMPARE,
    ),
    "ends with the user": compared(
        {**ASKED, "chosen": {"from": "human", "value": "A crew."}, "rejected": {"from": "gpt", "value": "A duck."}},
        "no answer",
        "chosen",
    ),
    "equal": compared({**ASKED, "chosen": "A crew.", "rejected": " A crew.\n"}, "equal answers", "rejected"),
    "equal options": compared(
        {**ASKED, "options": ["a crew", "a duck"], "chosen": "A", "rejected": "a crew"}, "equal answers", "rejected"
    ),
    "HH's transcripts": compared(
        {**ASKED, **{side: f"\n\nHuman: Who rows?\n\nAssistant: {text}" for side, text in TWO.items()}},
        "a whole conversation",
        "chosen",
    ),
    "the question again": compared(
        {
            "prompt": "<video>\nWho rows the boat, and where to?",
            **{side: f"Who rows the boat, and where to? {text}" for side, text in TWO.items()},
        },
        "a whole conversation",
        "chosen",
    ),
    "blank": compared({**ASKED, "chosen": " \n\t", "rejected": "A duck."}, "blank answer", "chosen"),
    "several answers": compared(
        {**ASKED, "chosen": "A crew.", "rejected": ["A duck.", "A cow."]}, "several answers", "rejected"
    ),
    "two chosen ones": compared({**ASKED, **TWO, "preferred": "A team."}, "answer twice", "preferred"),
    "rejected alone": compared({**ASKED, "rejected": "A duck."}, "no chosen", "chosen"),
    "chosen alone": compared({**ASKED, "chosen": "A crew.", "rejected": None}, "no rejected", "rejected"),
    "an empty list": compared({**ASKED, "chosen": "A crew.", "rejected": []}, "answer", "rejected"),
    "an answer without a text": compared({**ASKED, "chosen": {"score": 4}, "rejected": "A duck."}, "turn", "chosen[0]"),
    "a picture for an answer": compared(
        {**ASKED, "chosen": [{"role": "assistant", "content": [part("image", "img_wide.jpg")]}], "rejected": "A duck."},
        "content part",
        "chosen[0]",
    ),
    "two fields ask different things": compared(
        {**ASKED, "question": "Who swims?", **TWO}, "two questions", "question"
    ),
    "a conversation that is answered already": compared(
        {"conversations": TALK, **TWO}, "no question", "prompt", ("pairs",)
    ),
    "nothing asked": compared(TWO, "no question", "prompt", ("pairs", "questions")),
    "only a clip asked": compared({"prompt": "<video>\n ", **TWO}, "blank question", "prompt", ("pairs", "questions")),
    "JSON cut off": compared({"text": json.dumps({**ASKED, **TWO})[:-6]}, "text", "text", ("sft", "convert")),
    "JSON with a key twice": compared(
        {"text": json.dumps({**ASKED, **TWO})[:-1] + ', "prompt": "<video>\\nWho swims?"}'},
        "text",
        "text",
        ("sft", "convert"),
    ),
    "JSON too deep": compared({"text": '{"prompt":' * 100_000}, "text", "text", ("sft", "convert")),
    "JSON says it again": compared(
        {"text": json.dumps({**ASKED, **TWO}), "prompt": "<video>\nWho swims?"}, "field twice", "prompt"
    ),
    "no clip for the placeholder": Bad({**ASKED, **TWO}, "placeholders", "video", COMPARE),
    "two clips, no placeholder": Bad(
        {"video": ["clip_long", "clip_short"], "prompt": "Who rows?", **TWO},
        "placeholders",
        "conversations",
        ("pairs",),
    ),
    "a pair that is told to be one answer": compared({**ASKED, **TWO}, "a pair", "chosen", ("sft", "predictions")),
}

SHOWN: dict[str, Bad] = {
    "two clips in two fields": Bad({**QA, "video": "clip_long", "videos": ["clip_short"]}, "media twice", "videos"),
    "a clip and an image": Bad({**QA, "video": "clip_long", "image": "img_wide.jpg"}, "clip and image", "video"),
    "another clip in the parts": Bad(shown(part("video", "clip_short"), video="clip_long"), "media twice", "messages"),
    "two paths in a part": Bad(
        shown({"type": "video", "video": "clip_long", "path": "few3"}), "media twice", "messages[0].content[0]"
    ),
    "an image beside a clip in a part": Bad(
        shown({"type": "image", "image": "img_wide.jpg", "video": "clip_long"}),
        "clip and image",
        "messages[0].content[0].video",
    ),
    "a clip in a part of text": Bad(
        shown({"type": "text", "text": "Now.", "video": "clip_long"}), "content part", "messages[0].content[0].video"
    ),
    "a clip in a message": Bad(
        {"messages": [{"role": "user", "content": "Who?", "image": "img_wide.jpg"}, *answer("I.")]},
        "media field",
        "messages[0].image",
    ),
    "fps in a part": Bad(shown(part("video", "clip_long", fps=2)), "not honoured", "messages[0].content[0].fps"),
    "frames in an address": Bad(
        shown(url("video", "clip_long", max_frames=16)), "not honoured", "messages[0].content[0].max_frames"
    ),
    "fps in an object": Bad({**QA, "video": {"path": "clip_long", "fps": 1.0}}, "not honoured", "video.fps"),
    "max_frames in a row": talked({**QA, "max_frames": 4}, "not honoured", "max_frames"),
    "an image said to be a clip": Bad(
        {**QA, "video": {"type": "image", "path": "img_wide.jpg"}}, "clip and image", "video.type"
    ),
    "sound": Bad(shown({"type": "audio", "audio": "a.wav"}), "content part", "messages[0].content[0]"),
    "a number for a clip": Bad({**QA, "video": 7}, "media field", "video"),
    "an object without a path": Bad({**QA, "video": {"path": "", "bytes": None}}, "media field", "video"),
    "bytes as text": Bad({**QA, "video": {"bytes": "AAAA"}}, "media field", "video.bytes"),
    "a list in a list of images": Bad(
        {"images": [FRAMES], "question": "<image>\nWho?", "answer": "I."}, "media field", "images"
    ),
    "ends before it starts": talked({**QA, "start": 3, "end": 2.5}, "part of a clip", "start"),
    "starts on frames": Bad({**QA, "video": FRAMES, "start": 1}, "part of a clip", "start"),
    "starts on an image": Bad(
        {"image": "img_wide.jpg", "question": "<image>\nWho?", "answer": "I.", "video_end": 2},
        "part of a clip",
        "video_end",
    ),
    "starts on two clips": Bad(
        {"video": ["clip_long.mp4", "clip_short.mp4"], "question": "<video><video>Who?", "answer": "I.", "start": 0},
        "part of a clip",
        "start",
    ),
    "two starts": talked({**QA, "start": 1, "video_start": 2}, "part of a clip", "video_start"),
    "a start before the start": talked({**QA, "start": -1}, "part of a clip", "start"),
    "a start in words": talked({**QA, "end": "soon"}, "part of a clip", "end"),
    "a start that is true": talked({**QA, "start": True}, "part of a clip", "start"),
    "a part in the row and in the object": Bad(
        {**QA, "video": {"path": "clip_long.mp4", "start": 1}, "end": 2}, "part of a clip", "end"
    ),
    "a part beside one in the path": Bad({**QA, "video": "clip_long.mp4#t=1,2", "end": 2}, "part of a clip", "end"),
    "starts on a folder": Bad(
        {**QA, "video": "clip_long", "start": 1}, "part of a clip", "start", ("sft", "predictions", "questions")
    ),
    "no such clip": Bad({**QA, "video": "nowhere.mp4"}, "media missing", "video", ("sft", "predictions", "questions")),
    "a placeholder in each question": talked(
        {"conversations": said("<video>\nWho?", "A crew.", "<video>\nWhere?", "Here.")},
        "placeholders",
        "conversations",
        ("sft", "predictions", "convert"),
    ),
    "no placeholder": talked(
        {"question": "Who?", "answer": "I."}, "placeholders", "conversations", ("sft", "predictions")
    ),
    "one placeholder for two clips": Bad(
        {**QA, "video": ["clip_long", "clip_short"]}, "placeholders", "conversations", ("sft", "predictions", "convert")
    ),
    "a placeholder for nothing": Bad(QA, "placeholders", "video"),
    "an image by the assistant": Bad(
        {"messages": [*messages("Draw."), {"role": "assistant", "content": [part("image", "img_wide.jpg")]}]},
        "content part",
        "messages[1]",
    ),
}

TALKED: dict[str, Bad] = {
    "a tool's turn": talked(
        {"messages": [*messages("<video>\nWho?"), {"role": "tool", "content": "4"}]}, "role", "messages[1]"
    ),
    "a turn of nobody": talked({"messages": [{"content": "<video>\nWho?"}, *answer("I.")]}, "role", "messages[0]"),
    "a turn without a text": talked(
        {"conversations": [*said("<video>\nWho?"), {"from": "gpt"}]}, "turn", "conversations[1]"
    ),
    "a turn that is a text": talked({"conversations": [*said("<video>\nWho?"), "I."]}, "turn", "conversations[1]"),
    "two texts in a turn": talked(
        {"conversations": [*said("<video>\nWho?"), {"from": "gpt", "value": "I.", "content": "You."}]},
        "turn",
        "conversations[1].content",
    ),
    "two questions on end": talked(
        {"messages": [*messages("<video>\nWho?"), *messages("Where?", "Here.")]}, "roles", "conversations"
    ),
    "a conversation as text": talked(
        {"conversations": "USER: Who? ASSISTANT: I.", **QA}, "conversation", "conversations"
    ),
    "two conversations": talked(
        {"conversations": TALK, "messages": messages("<video>\nWho?", "I.")}, "two conversations", "messages"
    ),
    "a question beside a conversation": talked(
        {"conversations": TALK, "question": "Who swims?"}, "two questions", "question"
    ),
    "an answer beside a conversation": talked({"conversations": TALK, "answer": "A duck."}, "two answers", "answer"),
    "two answers in two fields": talked({**QA, "response": "A duck."}, "field twice", "response"),
    "a history beside a conversation": talked({"conversations": TALK, "history": [["Q", "A"]]}, "history", "history"),
    "half a history": talked({**QA, "history": [["Only asked."]]}, "history", "history[0]"),
    "a history and an answer alone": talked(
        {"history": [["<video>\nWho?", "I."]], "output": "You."}, "no question", "output"
    ),
    "an input alone": talked({"history": [["<video>\nWho?", "I."]], "input": "In red."}, "no question", "input"),
    "more input than a text": talked({**QA, "input": {"a": 1}}, "input", "input"),
    "two answers in a list": talked({**QA, "answer": ["A crew.", "Four men."]}, "answer", "answer"),
    "two systems": talked({**QA, "system": "Be brief.", "system_prompt": "Be kind."}, "system", "system"),
    "a system of parts": talked({**QA, "system": ["Be brief."]}, "system", "system"),
    "a system amidst": talked(
        {"conversations": [*TALK, {"from": "system", "value": "Stop."}]}, "system", "conversations[2]"
    ),
    "tools": talked({**QA, "tools": [{"name": "look"}]}, "not honoured", "tools"),
    "a turn not to learn": talked(
        {"conversations": [TALK[0], {**TALK[1], "loss": False}]}, "not honoured", "conversations[1].loss"
    ),
    "a turn that weighs nothing": talked(
        {"conversations": [TALK[0], {**TALK[1], "weight": 0}]}, "not honoured", "conversations[1].weight"
    ),
    "a blank answer": talked({"conversations": said("<video>\nWho?", " \n")}, "blank answer", "conversations"),
    "an option out of range": talked({**QA, "options": ["a", "b", "c"], "answer": 3}, "options", "answer"),
    "a letter that is none": talked({**QA, "options": ["a cat", "a dog"], "answer": "E"}, "options", "answer"),
    "a number that is an option too": talked({**QA, "options": ["3", "2", "1"], "answer": 1}, "options", "answer"),
    "a letter that is an option too": talked({**QA, "options": ["B", "A"], "answer": "A"}, "options", "answer"),
    "one option": talked({**QA, "options": ["a crew"]}, "options", "options"),
    "options and choices": talked(
        {**QA, "options": ["a", "b"], "choices": ["c", "d"], "answer": "A"}, "field twice", "choices"
    ),
    "options that a conversation hides": talked(
        {"conversations": TALK, "choices": ["a crew", "a duck"]}, "options", "choices"
    ),
    "a caption that is a list": talked({**QA, "caption": ["A crew rows."]}, "caption", "caption"),
    "a reference that is a list": talked({**QA, "reference": ["A crew."]}, "reference", "reference"),
    "no answer": talked({"question": "<video>\nWho?"}, "no answer", "conversations", ("sft", "convert")),
    "nothing": talked({}, "no conversation", "conversations", ("sft", "convert")),
    "nothing asked": talked({}, "no question", "prompt", ("predictions", "questions")),
    "two clips at once": Bad(
        {"video": ["clip_long", "few3"], "question": "<video><video>Who?"}, "several media", "video", ("questions",)
    ),
    "two questions": talked(
        {"conversations": [*TALK, *said("Where?")]}, "several questions", "conversations", ("questions",)
    ),
    "a system of its own": talked({**QA, "system": "Be brief."}, "system", "system", ("questions",)),
}


def labelled(problem: str, readers: tuple[str, ...] = ("labels",), **label: Any) -> Bad:
    return talked({"conversations": TALK, **label}, problem, "label", readers)


LABELLED: dict[str, Bad] = {
    "no label": labelled("no label"),
    "null": labelled("no label", label=None),
    "empty": labelled("no label", kto_tag=""),
    "a word": labelled("label", label="good"),
    "another number": labelled("label", label=-1),
    "half": labelled("label", label=0.5),
    "a list": labelled("label", kto_tag=[True]),
    "two that differ": labelled("label", label=True, kto_tag=0),
    "false, to be learned": labelled("a rejected answer", ("sft", "predictions"), label=False),
    "0 as text, to be learned": labelled("a rejected answer", ("sft", "predictions"), kto_tag="0"),
}
BAD: dict[str, Bad] = {
    f"{group}, {name}": bad
    for group, rows in (("pair", COMPARED), ("media", SHOWN), ("talk", TALKED), ("label", LABELLED))
    for name, bad in rows.items()
}


def row_of(name: str) -> Row:
    return {"id": name, **BAD[name].row}


def bad_for(reader: str) -> list[str]:
    return [name for name, bad in BAD.items() if reader in bad.readers]
