"""Rows as the hub has them, which a first reading of the formats does not suggest."""

from __future__ import annotations

from typing import Any

import pytest

from hound_plugin.records.consumers import check
from hound_plugin.records.parse import parse

ASK = {"conversations": [{"from": "human", "value": "<video>\nQ?"}, {"from": "gpt", "value": "A."}]}
USER, ANSWER, OTHER = (
    {"role": role, "content": text} for role, text in (("user", "Q?"), ("assistant", "A."), ("assistant", "B."))
)


def problems(row: dict[str, Any]) -> list[str]:
    return [problem.name for problem in parse(row).problems]


@pytest.mark.parametrize(
    "names",
    [
        {"video": "x/a.mp4", "video_name": "a"},
        {"video": "x/a.mp4", "video_path": "a.mp4"},
        {"video": "a", "clip": "a"},
        {"image": {"path": None, "bytes": b"1"}, "image_path": "llava/1.jpg"},
    ],
)
def test_a_name_beside_the_media(names: dict[str, Any]) -> None:
    row = {**ASK, **names}
    assert problems(row) == []
    (media,) = parse(row).record.media  # type: ignore[union-attr]
    assert media.bytes or media.path == names["video"]


@pytest.mark.parametrize("names", [{"video": "a.mp4", "video_name": "b"}, {"video": "a.mp4", "videos": ["b/a.mp4"]}])
def test_another_clip_beside_the_media(names: dict[str, Any]) -> None:
    assert problems({**ASK, **names}) == ["media twice"]


@pytest.mark.parametrize("field", ["id", "score", "start", "label"])
def test_numbers_of_any_length(field: str) -> None:
    row = {**ASK, "video": "a.mp4", field: 10**400}
    assert problems(row) == (["part of a clip"] if field == "start" else [])


def test_other_names_of_a_part() -> None:
    record = parse({**ASK, "video": "a.mp4", "start_time": 1, "end_time": 2.5}).record
    assert record is not None
    assert (record.media[0].start, record.media[0].end) == (1.0, 2.5)
    assert problems({**ASK, "video": "a.mp4", "start_time": 1, "start": 2}) == ["part of a clip"]


@pytest.mark.parametrize("key", ["start_frame", "frame_indices", "rejected_images"])
def test_what_changes_the_meaning_is_refused(key: str) -> None:
    assert problems({**ASK, "video": "a.mp4", key: [3]}) == ["not honoured"]


def test_a_turn_that_is_not_to_be_learnt_is_refused() -> None:
    turns = [ASK["conversations"][0], {**ASK["conversations"][1], "train": False}]
    assert problems({"video": "a.mp4", "conversations": turns}) == ["not honoured"]
    turns = [ASK["conversations"][0], {**ASK["conversations"][1], "train": True}]
    assert problems({"video": "a.mp4", "conversations": turns}) == []


def test_prompt_and_completion_as_messages() -> None:
    record = parse({"prompt": [USER], "completion": [ANSWER]}).record
    assert record is not None
    assert [turn.text for turn in record.turns] == ["Q?", "A."]
    assert check(record, "sft") == ()


def test_a_conversation_with_the_chosen_answer_beside_both() -> None:
    record = parse(
        {"prompt": "Q?", "messages": [USER, ANSWER], "chosen": [USER, ANSWER], "rejected": [USER, OTHER]}
    ).record
    assert record is not None
    assert ([turn.text for turn in record.turns], record.chosen, record.rejected) == (["Q?"], "A.", "B.")


@pytest.mark.parametrize(
    "before", ["Human: Who?\n\nAssistant: ", "### User: Who?\n### Assistant: ", "USER: Who?\nGPT: "]
)
def test_conversations_in_one_text_are_no_answers(before: str) -> None:
    row = {"id": "1", "video": "a.mp4", "prompt": "Who?", "chosen": f"{before}A crew.", "rejected": f"{before}A duck."}
    assert "a whole conversation" in " ".join(map(str, parse(row).problems))


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected"),
    [
        ("Hello there", "Hello there, friend.", "Hello there."),
        ("Who is seen in the first half?", "Who is seen in the first half? A crew.", "A duck."),
        ("What does the chat show?", "User: Hi. The other says: Assistant here.", "Human: Hi."),
    ],
)
def test_answers_that_only_begin_like_one_are_answers(prompt: str, chosen: str, rejected: str) -> None:
    parsed = parse({"id": "1", "video": "a.mp4", "prompt": prompt, "chosen": chosen, "rejected": rejected})
    assert parsed.record is not None
    assert (parsed.record.chosen, parsed.record.rejected) == (chosen, rejected)
