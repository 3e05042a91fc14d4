"""The host's own chat engine, which serves `chat`, `api` and the web UI, gives the recorded answers."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from llamafactory.chat import ChatModel

from hound_plugin.errors import PlaceholderError
from tests.goldens import ROOT, SFT, load_json
from tests.model.batches import media_path

CASES = [case for case in load_json("f_generation.json") if case["model"] == "reference" and "backend" not in case]


@pytest.fixture(scope="module")
def chat() -> ChatModel:
    arguments = {
        "model_name_or_path": str(SFT),  # the original layout
        "template": "llava_hound",
        "infer_backend": "huggingface",
        "infer_dtype": "float32",
        "do_sample": False,
        "max_new_tokens": 32,
    }
    return ChatModel(arguments)


def ask(chat: ChatModel, question: str, **media: Any) -> str:
    return chat.chat([{"role": "user", "content": question}], **media)[0].response_text.strip()


@pytest.mark.parametrize("case", [case for case in CASES if case["modal_type"] == "VIDEO"], ids=lambda c: c["source"])
def test_answers_about_clips_are_the_recorded_ones(case: dict[str, Any], chat: ChatModel) -> None:
    assert ask(chat, case["question"], videos=[media_path(case["source"])]) == case["text"]
    streamed = chat.stream_chat([{"role": "user", "content": case["question"]}], videos=[media_path(case["source"])])
    assert "".join(streamed).strip() == case["text"]


def test_a_clip_may_come_as_a_stream_of_bytes(chat: ChatModel) -> None:
    file = ROOT / "media" / "clip_short.mp4"
    assert ask(chat, "Is it short?", videos=[BytesIO(file.read_bytes())]) == ask(
        chat, "Is it short?", videos=[str(file)]
    )


def test_several_turns_and_text_alone(chat: ChatModel) -> None:
    clip = media_path("clip_long")
    first = ask(chat, "What moves?", videos=[clip])
    messages = [
        {"role": "user", "content": "What moves?"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "Sure?"},
    ]
    assert chat.chat(messages, videos=[clip])[0].response_length > 0
    assert chat.chat([{"role": "user", "content": "Hello"}])[0].response_length > 0
    assert ask(chat, "<video>\nWhat moves?")  # a name without a clip is ordinary text
    with pytest.raises(PlaceholderError, match="found 1 in the question"):
        ask(chat, "<video>\nWhat moves?", videos=[clip, clip])
