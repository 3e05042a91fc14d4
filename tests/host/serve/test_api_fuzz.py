"""No 500 by any input: requests out of hypothesis and schemathesis against a running server.

Every reply must be an answer or a 4xx that says why; the log must hold no traceback.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from hound_plugin.errors import DataError, SettingsError
from hound_plugin.host.serve.api_messages import read_conversation
from hound_plugin.host.serve.api_schema import IGNORED, NEUTRAL, ChatRequest, decoding_of, read_request
from tests.host.serve.api_server import WIDE

NAMES = [*ChatRequest.model_fields, *IGNORED, *NEUTRAL, "unknown", "", "max_new_tokens"]
END = {"2": 100}  # with this bias the model ends its answer at once
CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=CHECKS, derandomize=True, database=None)
MANY = settings(
    max_examples=4000, deadline=None, suppress_health_check=CHECKS, database=None, phases=[Phase.generate, Phase.shrink]
)

# JSON as text, since Python's own values lack numbers such as 1e999
_NUMBERS = ["1e999", "-1e999", "1e308", "1e-999", "0.1e1", "-0", "-0.0", "1E400", "9" * 40, "9" * 400, "9" * 5000]
_NUMBERS += ["9223372036854775808", "18446744073709551616", "-9223372036854775809", "NaN", "Infinity", "1.0", "2.0"]
_TEXTS = ["", " ", "\0", "\ud800", "\ufffe", "<video>", "<image>", "</s>", "USER:", "\ue000", "😀", "a" * 3000, "1e999"]
numbers = st.sampled_from(_NUMBERS) | st.integers(-3, 200).map(str) | st.floats(allow_nan=False).map(json.dumps)
texts = st.sampled_from(_TEXTS) | st.text(max_size=12)
scalars = numbers | st.sampled_from(["null", "true", "false"]) | texts.map(json.dumps)


def _array(items: list[str]) -> str:
    return f"[{','.join(items)}]"


def _object(items: list[tuple[str, str]]) -> str:
    return "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in items) + "}"


def objects(names: Any, values: Any, most: int = 4) -> Any:
    return st.lists(st.tuples(names, values), max_size=most).map(_object)


values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4).map(_array) | objects(texts | st.sampled_from(NAMES), inner),
    max_leaves=8,
) | st.just("[" * 1200 + "]" * 1200)


def quoted(*names: str) -> Any:
    return st.sampled_from([json.dumps(name) for name in names])


def addresses(media: Path | None) -> Any:
    picture = base64.b64encode(WIDE.read_bytes()).decode()
    known = ["data:image/png;base64,", "data:image/jpeg;base64," + picture, "data:video/mp4;base64,AAAA", "data:,", "#"]
    known += [
        "http://",
        "http://[",
        "http://1/",
        "https://clips.test:99999/",
        "http://a\n.test/",
        "file://",
        "FILE:///",
    ]
    known += ["ftp://clips.test/", "javascript:1", "//x", "http://xn--/", "http://" + "a" * 300 + ".test/", "a" * 5000]
    if media is not None:
        for name in ("img_wide.jpg", "clip_short.mp4", "clip_short.mp4#t=0,", "frames", "cut.mp4", "notes.txt", "\0"):
            known += [f"{media}/{name}", f"file://{media}/{name}"]
    return quoted(*known) | texts.map(json.dumps)


def parts(media: Path | None) -> Any:
    urls = addresses(media)
    inner = urls | objects(st.sampled_from(["url", "detail", "x"]), urls | values)
    keys = ["text", "image_url", "video_url", "url", "path", "video", "detail", "refusal"]
    kinds = quoted("text", "input_text", "image_url", "video_url", "video", "image", "refusal", "audio", "file")
    fields = st.lists(st.tuples(st.sampled_from(keys), inner | st.lists(urls, max_size=3).map(_array)), max_size=2)
    return st.tuples(kinds | values, fields).map(lambda item: _object([("type", item[0]), *item[1]]))


# values that are of the parameter's kind, so that some requests are answered
fitting = st.one_of(
    *(
        st.tuples(st.just(name), st.integers(low, high).map(str) | st.floats(low, high).map(json.dumps))
        for name, low, high in (
            ("temperature", 0, 2),
            ("top_p", 0, 1),
            ("top_k", -1, 5000),
            ("n", 1, 4),
            ("seed", -(2**70), 2**70),
            ("max_tokens", 1, 6),
            ("min_tokens", 0, 4),
            ("presence_penalty", -2, 2),
            ("repetition_penalty", 1, 10),
            ("top_logprobs", 0, 20),
        )
    ),
    st.tuples(st.sampled_from(["stream", "do_sample", "logprobs"]), st.just("true")),
    st.tuples(st.just("stop"), st.lists(texts, max_size=4).map(json.dumps)),
)


def bodies(media: Path | None) -> Any:
    contents = values | texts.map(json.dumps) | st.lists(parts(media) | values, max_size=3).map(_array)
    roles = quoted("user", "assistant", "system", "developer", "tool") | values
    more = st.lists(
        st.tuples(st.sampled_from(["name", "refusal", "tool_calls", "audio", "x", "role"]), values), max_size=1
    )
    message = st.tuples(roles, contents, more).map(
        lambda item: _object([("role", item[0]), ("content", item[1]), *item[2]])
    )
    good = st.lists(parts(media), min_size=1, max_size=2) | texts.map(
        lambda text: [_object([("type", '"text"'), ("text", json.dumps(text))])]
    )
    asked = good.map(lambda items: _array([_object([("role", '"user"'), ("content", _array(items))])]))
    plain = st.just('[{"role":"user","content":"What moves?"}]')
    messages = st.one_of(plain, plain, asked, asked, st.lists(message, max_size=3).map(_array), values)
    parameters = st.lists(st.tuples(st.sampled_from(NAMES), values), max_size=1) | st.lists(fitting, max_size=3)
    return st.tuples(messages, parameters).map(
        lambda item: _object([("model", '"hound"'), ("logit_bias", json.dumps(END)), ("messages", item[0]), *item[1]])
    )


def mangled(body: str, cut: int | None) -> bytes:
    whole = body.encode("utf-8", "surrogatepass")
    return whole if cut is None else whole[:cut] + whole[cut + 1 :]


def post(client: openai.OpenAI, body: bytes, path: str = "chat/completions") -> httpx.Response:
    headers = {"Authorization": "Bearer secret", "Content-Type": "application/json"}
    return httpx.post(f"{client.base_url}{path}", content=body, headers=headers, timeout=120)


def check_reply(answer: httpx.Response) -> None:
    """An answer, a stream, or an error that says why."""
    assert answer.status_code < 500, answer.text[:500]
    if answer.status_code == 200:
        assert "server_error" not in answer.text, answer.text[:500]
        return
    error = answer.json()["error"]
    assert error["message"], answer.text[:500]
    assert len(answer.text) < 8000, "what was sent comes back whole"


def ask_server(client: openai.OpenAI, media: Path) -> Callable[[settings], None]:
    def run(chosen: settings) -> None:
        @chosen
        @given(bodies(media), st.none() | st.none() | st.integers(0, 400))
        def requests(body: str, cut: int | None) -> None:
            check_reply(post(client, mangled(body, cut)))

        requests()

    return run


# --- without a server: only the reading of a request, which is fast


def read(body: bytes) -> None:
    """Read a request as the server does; what is wrong with it is one of two errors."""
    with contextlib.suppress(DataError, SettingsError):
        request = read_request(body)
        decoding_of(request, {"do_sample": False}, 2000)
        read_conversation(request.messages)


@settings(max_examples=300, deadline=None, suppress_health_check=CHECKS, derandomize=True, database=None)
@given(bodies(None), st.none() | st.integers(0, 400))
def test_reading_a_request_raises_nothing_else(body: str, cut: int | None) -> None:
    read(mangled(body, cut))


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.binary(max_size=60))
def test_bytes_that_are_no_request(body: bytes) -> None:
    read(body)


@pytest.mark.parametrize("number", _NUMBERS, ids=lambda number: number[:12])
def test_numbers_that_are_hardly_numbers(number: str, client: openai.OpenAI) -> None:
    """Every parameter with each of them: honoured, or a 400."""
    for name in (*ChatRequest.model_fields, "min_p", "best_of", "user"):
        bias = "{}" if name == "logit_bias" else json.dumps(END)
        body = f'{{"model":"x","messages":[{{"role":"user","content":"x"}}],"{name}":{number},"logit_bias":{bias}}}'
        if name in ("model", "messages", "logit_bias"):
            body = body.replace(f'"{name}"', f'"{name}_"', 1)
        check_reply(post(client, body.encode()))
        read(body.encode())
    check_reply(post(client, f'{{"model":"x","messages":["x"],"max_length":{number}}}'.encode(), "score/evaluation"))


# --- with one


def test_requests_of_all_kinds(client: openai.OpenAI, media: Path) -> None:
    ask_server(client, media)(QUICK)


def test_requests_of_the_published_schema(client: openai.OpenAI) -> None:
    by_schema(client, QUICK)


def by_schema(client: openai.OpenAI, chosen: settings) -> None:
    """Requests that schemathesis makes of ``/openapi.json``, for every route."""
    schemathesis = pytest.importorskip("schemathesis")
    root = str(client.base_url).rstrip("/").removesuffix("/v1")
    headers = {"Authorization": "Bearer secret"}
    schema = schemathesis.openapi.from_url(f"{root}/openapi.json", headers=headers)
    operations = [result.ok() for result in schema.get_all_operations()]
    assert {operation.path for operation in operations} >= {"/v1/chat/completions", "/v1/models"}
    for operation in operations:

        @chosen
        @given(operation.as_strategy())
        def requests(case: Any) -> None:
            if isinstance(case.body, dict):
                case.body["logit_bias"] = END
            check_reply(case.call(headers=headers, timeout=120))

        requests()


@pytest.mark.long
def test_thousands_of_requests(client: openai.OpenAI, media: Path) -> None:
    ask_server(client, media)(MANY)
    by_schema(client, settings(MANY, max_examples=1000))
