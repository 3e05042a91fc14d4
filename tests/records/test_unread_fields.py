"""Rows whose clip or choices are in fields that nothing reads are refused, and others with unread fields are not."""

from __future__ import annotations

from typing import Any

import pytest

from hound_plugin.records.parse import parse

ASKED = {"question": "What does she do?", "answer": "runs"}


@pytest.mark.parametrize(
    "field",
    [
        {"gif_name": "tumblr_nk172"}, {"vid_name": "s01e02"}, {"videoID": "Ptf_2V"}, {"video_idx": 7},
        {"video_filename": "video_1"}, {"visual": "a/b.mp4"}, {"picture_url": "x"}, {"path": "./a.JPG"},
        {"movie": ["a.mkv"]},
    ],
)  # fmt: skip
def test_a_clip_under_another_name(field: dict[str, Any]) -> None:
    """Such a row was learned as text alone."""
    (problem,) = parse({**ASKED, **field}).problems
    assert problem.name == "media under another name"
    assert problem.field == next(iter(field))
    assert not parse({**ASKED, "video": "c.mp4", **field}).problems, "its clip is named"


@pytest.mark.parametrize(
    "field",
    [
        {"video_type": "cooking"}, {"image_size": [3, 4]}, {"frame_count": 30}, {"note": "see a"}, {"vid_id": ""},
        {"images_used": 4}, {"video_frames": 8},
    ],
)  # fmt: skip
def test_what_names_no_clip(field: dict[str, Any]) -> None:
    assert not parse({**ASKED, **field}).problems


CHOICES: list[dict[str, Any]] = [
    {"a0": "run", "a1": "sit", "a2": "fly"},
    {"option 0": "run", "option 1": "sit"},
    {"option_a": "run", "option_b": "sit"},
    {"Choice1": "run", "Choice2": "sit"},
    {"option": ["A. run", "B. sit"]},
    {"choice": {"A": "run", "B": "sit"}},
]


@pytest.mark.parametrize("answer", [1, "1", "B", "(b)", "1.0"])
@pytest.mark.parametrize("choices", CHOICES)
def test_choices_under_other_names(choices: dict[str, Any], answer: Any) -> None:
    """The number was learned as the answer to a question without choices."""
    row = {"video": "c.mp4", "question": "What does she do?", "answer": answer, **choices}
    (problem,) = parse(row).problems
    assert problem.name == "choices under another name"
    assert "`options`" in problem.detail


@pytest.mark.parametrize("choices", CHOICES)
def test_choices_that_nobody_needs(choices: dict[str, Any]) -> None:
    row = {"video": "c.mp4", "question": "What does she do?", **choices}
    assert not parse({**row, "answer": "She runs."}).problems
    shown = {**row, "question": "What?\nA. run\nB. sit\nC. fly", "answer": "B"}
    if choices != CHOICES[4]:
        assert not parse(shown).problems


def test_a_rejected_conversation_is_not_left_out() -> None:
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A dog."}]
    (problem,) = parse({"image": "a.png", "conversations": turns, "rejected_conversations": turns}).problems
    assert problem.field == "rejected_conversations"
    assert "`rejected`" in problem.detail
