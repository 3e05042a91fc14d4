"""Requests as the API reads them: what is honoured, what asks for nothing, and what is refused under which name."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from openai.types.chat import completion_create_params

from hound_plugin.errors import DataError, SettingsError
from hound_plugin.host.serve.api_messages import read_conversation
from hound_plugin.host.serve.api_schema import (
    IGNORED,
    NEUTRAL,
    ChatRequest,
    check_frames,
    decoding_of,
    read_request,
    sampling_of,
)
from hound_plugin.model.answer_stream import Decoding
from hound_plugin.processing.messages import read_messages
from hound_plugin.processing.prompt import place_placeholders

ROOT = Path(__file__).resolve().parents[3]
HELLO = [{"role": "user", "content": "Hello"}]
GREEDY: dict[str, Any] = {"do_sample": False, "temperature": 0.95, "top_p": 0.7, "top_k": 50, "repetition_penalty": 1.0}
SAMPLING = {**GREEDY, "do_sample": True}


def read(**parameters: Any) -> ChatRequest:
    return read_request(json.dumps({"model": "m", "messages": HELLO, **parameters}).encode())


def refused(key: str, text: str, **parameters: Any) -> None:
    with pytest.raises(SettingsError, match=text) as caught:
        read(**parameters)
    assert caught.value.key == key


# --- parameters

BAD = [
    ("temperature", -0.1, "at least 0 and at most 2"),
    ("temperature", 2.1, "at least 0 and at most 2"),
    ("temperature", "0.7", "a number"),
    ("temperature", True, "a number"),
    ("top_p", -0.01, "at least 0 and at most 1"),
    ("top_p", 1.01, "at least 0 and at most 1"),
    ("top_k", -2, "at least -1"),
    ("top_k", 1.5, "a whole number"),
    ("n", 0, "at least 1 and at most 128"),
    ("n", 129, "at least 1 and at most 128"),
    ("n", "2", "a whole number"),
    ("seed", 1.5, "a whole number"),
    ("seed", "1", "a whole number"),
    ("max_tokens", 0, "at least 1"),
    ("max_tokens", -5, "at least 1"),
    ("max_completion_tokens", 0, "at least 1"),
    ("max_completion_tokens", 2.5, "a whole number"),
    ("min_tokens", -1, "at least 0"),
    ("stop", "", "none is empty"),
    ("stop", ["a", ""], "none is empty"),
    ("stop", ["a"] * 5, "at most 4"),
    ("stop", 5, "a text"),
    ("stop", [1], "a text"),
    ("stop", {"a": 1}, "a text"),
    ("presence_penalty", 2.5, "at least -2 and at most 2"),
    ("frequency_penalty", -2.5, "at least -2 and at most 2"),
    ("repetition_penalty", 0, "at least 0.01"),
    ("logit_bias", {"a": 1}, "token ids"),
    ("logit_bias", {"-1": 1}, "token ids"),
    ("logit_bias", {"1": 101}, "at most 100"),
    ("logit_bias", {"1": "1"}, "a number"),
    ("logit_bias", {"1": True}, "a number"),
    ("logit_bias", [1], "token ids"),
    ("logprobs", 1, "true or false"),
    ("top_logprobs", 21, "at most 20"),
    ("do_sample", "yes", "true or false"),
    ("stream", "yes", "true or false"),
    ("messages", "Hello", "a list"),
    ("messages", {"role": "user"}, "a list"),
    ("model", 5, "text"),
    ("tools", [{"type": "function", "function": {"name": "f"}}], r"expected \[\] or nothing \(LLaVA-Hound calls no"),
    ("tool_choice", "required", "calls no tools"),
    ("function_call", {"name": "f"}, "calls no functions"),
    ("response_format", {"type": "json_object"}, "follow no schema"),
    ("response_format", {"type": "json_schema", "json_schema": {}}, "follow no schema"),
    ("modalities", ["text", "audio"], "answers are text"),
    ("reasoning_effort", "high", "does not reason"),
    ("mm_processor_kwargs", {"fps": 2}, "num_frames"),
    ("chat_template_kwargs", {"enable_thinking": False}, "template"),
    ("stop_token_ids", [2], "use stop"),
    ("best_of", 3, "use n"),
    ("temprature", 1.0, "unknown parameter. Did you mean 'temperature'"),
    ("max_new_tokens", 5, "unknown parameter"),
    ("extra_body", {}, "unknown parameter"),
]


@pytest.mark.parametrize(("name", "value", "text"), BAD, ids=lambda value: str(value)[:20])
def test_bad_values_are_refused_by_name(name: str, value: Any, text: str) -> None:
    refused(name, text, **{name: value})


def test_clients_of_vllm_get_the_frames_of_the_recipe_or_none() -> None:
    for value in (None, {}, {"video": {}}, {"video": {"num_frames": 8}}):
        check_frames(read(media_io_kwargs=value), 8)
    with pytest.raises(SettingsError, match=r"media_io_kwargs: expected num_frames 8.* got 10") as caught:
        check_frames(read(media_io_kwargs={"video": {"num_frames": 10}}), 8)
    assert caught.value.key == "media_io_kwargs"
    refused("media_io_kwargs.video.num_frames", "at least 1", media_io_kwargs={"video": {"num_frames": 0}})
    refused("media_io_kwargs.video.fps", "unknown key", media_io_kwargs={"video": {"fps": 2}})


def test_parameters_that_contradict_each_other() -> None:
    refused("max_tokens", "got 3 and 4", max_tokens=3, max_completion_tokens=4)
    refused("min_tokens", r"at most the longest answer \(3\); got 4", max_tokens=3, min_tokens=4)
    refused("top_logprobs", "expected `logprobs: true`", top_logprobs=2)
    refused("top_logprobs", "expected `logprobs: true`", top_logprobs=2, logprobs=False)
    refused("do_sample", "expected true with temperature 0.5", do_sample=False, temperature=0.5)
    refused("stream_options.include_usage", "true or false", stream_options={"include_usage": 1})
    refused("stream_options.usage", "unknown key", stream_options={"usage": True})
    assert read(max_tokens=3, max_completion_tokens=3).longest == 3
    assert read(max_completion_tokens=3).longest == read(max_tokens=3).longest == 3


def test_what_is_missing_is_named() -> None:
    with pytest.raises(SettingsError, match="messages: must be given: a list") as caught:
        read_request(b'{"model": "m"}')
    assert caught.value.key == "messages"
    with pytest.raises(SettingsError, match="model: must be given"):
        read_request(b'{"messages": [], "model": null}')


BODIES = [b"", b"{", b"[]", b'"text"', b"\xff\xfe{}", b'{"n": NaN}', b'{"n": 1e999}', b'{"n": 1, "n": 2}', b"[" * 9999]
BODIES += [b'{"model": "\\ud800"}', b'{"messages": [{"content": {"deep": "\\udc00"}}]}']


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:20]))
def test_a_body_that_is_no_request(body: bytes) -> None:
    with pytest.raises(DataError, match="Expected a request as"):
        read_request(body)


def test_what_asks_for_nothing_changes_nothing() -> None:
    plain = read()
    for name, (values, _) in NEUTRAL.items():
        for value in (*values, None):
            assert read(**{name: value}) == plain, name
    for name in IGNORED:
        for value in (None, "x", {"a": "b"}, 5, True):
            assert read(**{name: value}) == plain, name
    neutral: dict[str, Any] = {
        "n": 1, "presence_penalty": 0, "frequency_penalty": 0, "repetition_penalty": 1, "logit_bias": {}, "stop": [],
        "top_p": 1, "top_k": -1, "min_tokens": 0, "logprobs": False, "top_logprobs": 0, "seed": 5, "stream": False,
        "stream_options": {"include_usage": True}, "temperature": None, "max_tokens": None, "do_sample": None,
    }  # fmt: skip
    greedy = decoding_of(read(**neutral, user="u"), GREEDY, 100)
    assert greedy == Decoding(seed=5)
    for name, value in neutral.items():
        if name != "seed":
            assert decoding_of(read(**{name: value}), GREEDY, 100) == Decoding(), name


def test_every_parameter_of_openais_is_known() -> None:
    """Those of the installed client; what it learns later is refused by name until it is looked at."""
    names = set(completion_create_params.CompletionCreateParamsBase.__annotations__)
    assert names - {*ChatRequest.model_fields, *IGNORED, *NEUTRAL} == set()
    assert not {*IGNORED} & {*NEUTRAL}
    assert not {*ChatRequest.model_fields} & {*IGNORED, *NEUTRAL}


def test_the_page_is_what_the_code_reads() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import write_serving
    finally:
        sys.path.pop(0)
    page = write_serving.PAGE.read_text(encoding="utf-8")
    assert page == write_serving.page(), "requests have changed: run `python docs/write_serving.py`"
    for name in (*ChatRequest.model_fields, *IGNORED, *NEUTRAL):
        assert f"| `{name}` |" in page


# --- sampling

CHOICES: list[tuple[dict[str, Any], dict[str, Any], tuple[float, float, int]]] = [
    ({}, GREEDY, (0.0, 1.0, 0)),
    ({}, SAMPLING, (0.95, 0.7, 50)),
    ({"temperature": 1.0}, GREEDY, (1.0, 1.0, 0)),
    ({"temperature": 1.0}, SAMPLING, (1.0, 0.7, 50)),
    ({"temperature": 1.0, "top_p": 0.9, "top_k": 5}, SAMPLING, (1.0, 0.9, 5)),
    ({"temperature": 0}, SAMPLING, (0.0, 1.0, 0)),
    ({"temperature": 0.009}, SAMPLING, (0.0, 1.0, 0)),
    ({"temperature": 0, "do_sample": True}, SAMPLING, (0.0, 1.0, 0)),
    ({"temperature": 0, "n": 4}, SAMPLING, (0.0, 1.0, 0)),
    ({"do_sample": True}, GREEDY, (1.0, 1.0, 0)),
    ({"do_sample": False}, SAMPLING, (0.0, 1.0, 0)),
    ({"do_sample": False, "n": 2}, SAMPLING, (0.0, 1.0, 0)),
    ({"n": 2}, GREEDY, (1.0, 1.0, 0)),
    ({"n": 2}, SAMPLING, (0.95, 0.7, 50)),
    ({"top_p": 0.5}, GREEDY, (1.0, 0.5, 0)),
    ({"top_p": 1}, GREEDY, (0.0, 1.0, 0)),
    ({"top_k": 3}, GREEDY, (1.0, 1.0, 3)),
    ({"top_k": -1}, SAMPLING, (0.95, 0.7, 0)),
    ({"seed": 3}, GREEDY, (0.0, 1.0, 0)),
    ({}, {**SAMPLING, "temperature": 0.0}, (0.0, 1.0, 0)),
]


@pytest.mark.parametrize(("given", "recipe", "want"), CHOICES, ids=str)
def test_how_a_request_samples(given: dict[str, Any], recipe: dict[str, Any], want: tuple[float, float, int]) -> None:
    assert sampling_of(read(**given), recipe) == want


def test_a_request_as_decoding() -> None:
    request = read(
        temperature=0.5, n=3, seed=-7, stop="x", presence_penalty=1, frequency_penalty=-1, logit_bias={"5": -100},
        logprobs=True, min_tokens=2,
    )  # fmt: skip
    assert decoding_of(request, {**GREEDY, "repetition_penalty": 1.1}, 6) == Decoding(
        n=3, temperature=0.5, seed=-7, stop=("x",), presence_penalty=1.0, frequency_penalty=-1.0,
        logit_bias={5: -100.0}, top_log_probs=0, min_new_tokens=2, repetition_penalty=1.1,
    )  # fmt: skip
    assert decoding_of(read(repetition_penalty=1.0), {**GREEDY, "repetition_penalty": 1.1}, 6).repetition_penalty == 1.0
    with pytest.raises(SettingsError, match="token ids below 5, the size of the vocabulary; got 5") as caught:
        decoding_of(request, GREEDY, 5)
    assert caught.value.key == "logit_bias"


def test_a_server_that_searches_with_beams() -> None:
    beams = {**GREEDY, "num_beams": 4}
    assert decoding_of(read(temperature=0, n=2), beams, 9) == Decoding(n=2)
    for name, given in (
        ("temperature", {"temperature": 1.0}),
        ("temperature", {"n": 2}),
        ("logprobs", {"logprobs": True}),
    ):
        with pytest.raises(SettingsError, match=f"{name}: this server searches with 4 beams") as caught:
            decoding_of(read(**given), beams, 9)
        assert caught.value.key == name


# --- messages


def test_a_conversation() -> None:
    found = read_conversation(
        [
            {"role": "system", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]},
            {"role": "developer", "content": "In English.", "name": "dev"},
            {**user({"type": "video", "video": "a.mp4"}, {"type": "text", "text": "A?"})[0], "name": "Ann"},
            {
                "role": "assistant", "content": None, "refusal": "I cannot say.", "tool_calls": None,
                "function_call": None, "audio": None, "annotations": [],
            },
            {"role": "user", "name": "Ann", "content": [{"type": "input_text", "text": "B?"}]},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
            {"role": "user", "content": "C?", "name": None},
        ]
    )  # fmt: skip
    assert found.system == "Be \nbrief.\nIn English."
    assert [message["content"] for message in found.messages] == ["<video>A?", "I cannot say.", "B?", "No.", "C?"]
    assert found.media == [("messages[2].content[0]", "video", "a.mp4")]
    assert read_conversation([{"role": "user", "content": ""}]).system is None


PARTS: dict[str, list[Any]] = {
    "two texts": ["It is dark.", "What moves?"],
    "a clip and two texts": [1, "It is dark.", "What moves?"],
    "a clip between texts": ["Look at", 1, "and say what moves"],
    "clips with a text each": ["Before:", 1, "After:", 2],
    "a clip at the end of two texts": ["It is dark.", "What moves?", 1],
    "texts between clips": [1, "or", "perhaps", 2, "?"],
    "a text that ends with a space": ["It is dark. ", "What moves?"],
    "three texts and two clips in front": [1, 2, "a", "b", "c"],
}


@pytest.mark.parametrize("name", PARTS)
def test_parts_of_a_message_are_lines_as_the_processor_has_them(name: str) -> None:
    """Words of two parts were glued together: "Look atand say what moves"."""
    parts = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "video", "video": f"{part}.mp4"}
        for part in PARTS[name]
    ]
    said = {"role": "assistant", "content": [{"type": "text", "text": text} for text in ("It is", "a dog.")]}
    messages = [{"role": "user", "content": parts}, said, {"role": "user", "content": "Which?"}]
    asked, chat = read_conversation(messages), read_messages(messages)
    questions = [message["content"] for message in asked.messages if message["role"] == "user"]
    media = {"<video>": asked.sources("video"), "<image>": []}
    assert place_placeholders(questions, media) == place_placeholders(chat.questions, chat.media)
    assert asked.messages[1]["content"] == chat.answers[0] == "It is\na dog."
    assert asked.sources("video") == chat.media["<video>"]


def user(*parts: Any, **more: Any) -> list[Any]:
    return [{"role": "user", "content": list(parts), **more}]


BAD_MESSAGES: list[tuple[list[Any], str, str]] = [
    ([], "messages", "at least one message"),
    (["Hello"], "messages[0]", "an object with role and content"),
    ([{"content": "x"}], "messages[0].role", "one of system, developer, user, assistant; got None"),
    ([{"role": "User", "content": "x"}], "messages[0].role", "one of system"),
    ([{"role": ["user"], "content": "x"}], "messages[0].role", "one of system"),
    ([{"role": "tool", "content": "x", "tool_call_id": "1"}], "messages[0].role", "calls no tools"),
    ([{"role": "function", "name": "f", "content": "x"}], "messages[0].role", "calls no tools"),
    ([{"role": "system", "content": "x"}], "messages[0].role", "a question of the user at the end"),
    ([{"role": "assistant", "content": "x"}], "messages[0].role", "user \\(user and assistant take turns"),
    ([*HELLO, *HELLO], "messages[1].role", "assistant \\(user and assistant"),
    ([*HELLO, {"role": "assistant", "content": "x"}], "messages[1].role", "a question of the user at the end"),
    ([*HELLO, {"role": "system", "content": "x"}, *HELLO], "messages[1].role", "in front of the first question"),
    ([*HELLO, {"role": "developer", "content": "x"}, *HELLO], "messages[1].role", "in front of the first question"),
    ([{"role": "user"}], "messages[0].content", "a text, or a list of parts"),
    ([{"role": "user", "content": None}], "messages[0].content", "a text, or a list of parts"),
    ([{"role": "user", "content": []}], "messages[0].content", "a text, or a list of parts"),
    ([{"role": "user", "content": {"type": "text", "text": "x"}}], "messages[0].content", "a list of parts"),
    ([{"role": "user", "content": 5}], "messages[0].content", "a text"),
    ([*HELLO, {"role": "assistant", "content": None}, *HELLO], "messages[1].content", "a text, or a list"),
    (
        [*HELLO, {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}, *HELLO],
        "messages[1].tool_calls",
        "calls no tools",
    ),
    ([{"role": "user", "content": "x", "audio": {"id": "1"}}], "messages[0].audio", "has no audio"),
    ([{"role": "user", "content": "x", "video": "a.mp4"}], "messages[0].video", "role and content alone"),
    ([{"role": "user", "content": "x", "refusal": "no"}], "messages[0].refusal", "role and content alone"),
    (
        [{**HELLO[0], "name": "Ann"}, {"role": "assistant", "content": "x"}, {**HELLO[0], "name": "Bob"}],
        "messages[2].name",
        "one name for every user message",
    ),
    (user("x"), "messages[0].content[0]", "a part of type text"),
    (user({"text": "x"}), "messages[0].content[0]", "a part of type text"),
    (user({"type": "txt", "text": "x"}), "messages[0].content[0].type", "a part of type text"),
    (user({"type": "text"}), "messages[0].content[0].text", "a text"),
    (user({"type": "text", "text": 5}), "messages[0].content[0].text", "a text"),
    (user({"type": "text", "text": "x", "video": "a.mp4"}), "messages[0].content[0].video", "type, text alone"),
    (user({"type": "refusal", "refusal": "x"}), "messages[0].content[0].type", "a part of type text"),
    (user({"type": "input_audio", "input_audio": {}}), "messages[0].content[0].type", "has no audio"),
    (user({"type": "audio_url", "audio_url": {}}), "messages[0].content[0].type", "has no audio"),
    (user({"type": "file", "file": {}}), "messages[0].content[0].type", "a part of type"),
    (user({"type": "video_url"}), "messages[0].content[0].video_url", "one video"),
    (user({"type": "video_url", "video_url": None}), "messages[0].content[0].video_url", "one video"),
    (user({"type": "video_url", "image_url": "a.png"}), "messages[0].content[0].video_url", "one video"),
    (user({"type": "video_url", "video_url": {}}), "messages[0].content[0].video_url", "a url"),
    (user({"type": "video_url", "video_url": {"url": ""}}), "messages[0].content[0].video_url", "a url"),
    (user({"type": "video_url", "video_url": {"url": 5}}), "messages[0].content[0].video_url", "a url"),
    (user({"type": "image_url", "image_url": ["a.png"]}), "messages[0].content[0].image_url", "a url"),
    (user({"type": "video", "video": []}), "messages[0].content[0].video", "a url"),
    (user({"type": "video", "video": ["a.png", 5]}), "messages[0].content[0].video", "a url"),
    (user({"type": "video", "video": "a", "video_url": "b"}), "messages[0].content[0].video_url", "one video"),
    (user({"type": "video", "video": "a", "fps": 2}), "messages[0].content[0].fps", "alone; got 2"),
    (
        user({"type": "video_url", "video_url": {"url": "a", "fps": 2}}),
        "messages[0].content[0].video_url.fps",
        "url, detail alone",
    ),
    (
        user({"type": "image_url", "image_url": {"url": "a", "detail": "huge"}}),
        "messages[0].content[0].image_url.detail",
        "one of auto, low, high",
    ),
    (
        [{"role": "system", "content": [{"type": "image_url", "image_url": "a"}]}, *HELLO],
        "messages[0].content[0].type",
        "media in messages of the user only",
    ),
]


@pytest.mark.parametrize(("messages", "key", "text"), BAD_MESSAGES, ids=lambda value: str(value)[:40])
def test_messages_that_cannot_be_honoured(messages: list[Any], key: str, text: str) -> None:
    with pytest.raises(SettingsError, match=text) as caught:
        read_conversation(messages)
    assert caught.value.key == key
    assert str(caught.value).startswith(key)
