"""What parameters do to the answers of a running server, asked by the ``openai`` client, streamed and not."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import uvicorn
from llamafactory.api.app import create_app
from llamafactory.chat import ChatModel

from hound_plugin.host.serve import api
from tests.host.serve.api_server import ask, content, part

QUESTION: Any = [{"role": "user", "content": "What moves?"}]


def create(client: openai.OpenAI, messages: Any = QUESTION, **options: Any) -> Any:
    return client.chat.completions.create(model="hound", messages=messages, **options)


def texts(client: openai.OpenAI, **options: Any) -> list[str]:
    return [choice.message.content for choice in create(client, **options).choices]


def streamed(client: openai.OpenAI, **options: Any) -> dict[int, dict[str, Any]]:
    """By choice: the text, the tokens and the end, as they come in chunks; under -1 the usage."""
    found: dict[int, dict[str, Any]] = {}
    for chunk in create(client, stream=True, **options):
        if chunk.usage is not None:
            found[-1] = {"usage": chunk.usage, "choices": list(chunk.choices)}
        for choice in chunk.choices:
            mine = found.setdefault(choice.index, {"text": "", "tokens": [], "finish": None, "roles": []})
            assert mine["finish"] is None, "a chunk after the end of its answer"
            mine["text"] += choice.delta.content or ""
            mine["roles"] += [choice.delta.role] if choice.delta.role else []
            mine["tokens"] += choice.logprobs.content if choice.logprobs else []
            mine["finish"] = choice.finish_reason
    return found


def raw(
    client: openai.OpenAI, body: bytes | None, path: str = "chat/completions", key: str = "secret"
) -> tuple[int, Any]:
    """Status and body of a request that the client would not send."""
    url = f"{str(client.base_url).rstrip('/')}/{path}"
    request = urllib.request.Request(url, body, {"Authorization": f"Bearer {key}", "Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=60)
    return caught.value.code, json.loads(caught.value.read())


# --- sampling


def test_a_temperature_means_sampling_where_the_recipe_is_greedy(client: openai.OpenAI) -> None:
    with ThreadPoolExecutor(4) as pool:
        sampled = list(pool.map(lambda _: ask(client, "What moves?", temperature=1.0), range(8)))
    assert len(set(sampled)) == 8
    greedy = {ask(client, "What moves?"), ask(client, "What moves?", temperature=0, stream=True)}
    assert len(greedy) == 1
    assert {ask(client, "What moves?", temperature=1e-308, extra_body={"do_sample": True})} == greedy
    assert {ask(client, "What moves?", temperature=1.0, top_p=0)} == greedy
    assert {ask(client, "What moves?", temperature=1.0, extra_body={"top_k": 1})} == greedy


def test_a_seed_decides_whatever_else_the_server_does(client: openai.OpenAI, media: Path) -> None:
    """Two requests run side by side (MAX_CONCURRENT), others between them, streamed or not, with a clip or without."""
    clip = [{"role": "user", "content": content("What moves?", part("video", media / "clip_short.mp4"))}]
    alone = {seed: texts(client, temperature=1.0, seed=seed)[0] for seed in (1, 2, 3)}
    shown = texts(client, messages=clip, temperature=1.0, seed=1)[0]
    assert len({*alone.values(), shown}) == 4

    def again(number: int) -> bool:
        seed = 1 + number % 3
        if number % 4 == 0:
            texts(client, temperature=1.5, n=3)
        if number % 4 == 1:
            return texts(client, messages=clip, temperature=1.0, seed=1)[0] == shown
        if number % 4 == 2:
            return streamed(client, temperature=1.0, seed=seed)[0]["text"] == alone[seed]
        return texts(client, temperature=1.0, seed=seed)[0] == alone[seed]

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(again, range(16)))


def test_several_answers(client: openai.OpenAI, media: Path) -> None:
    clip = [{"role": "user", "content": content("What moves?", part("video", media / "clip_long.mp4"))}]
    whole = create(client, clip, n=3, seed=4, max_tokens=8)
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    answers = [choice.message.content for choice in whole.choices]
    assert len(set(answers)) == 3
    assert texts(client, messages=clip, n=1, temperature=1.0, seed=4, max_tokens=8) == answers[:1]
    found = streamed(client, messages=clip, n=3, seed=4, max_tokens=8, stream_options={"include_usage": True})
    assert [found[index]["text"] for index in range(3)] == answers
    assert [found[index]["finish"] for index in range(3)] == [choice.finish_reason for choice in whole.choices]
    assert all(found[index]["roles"] == ["assistant"] for index in range(3))
    assert found[-1]["usage"] == whole.usage
    one = create(client, clip, temperature=0, max_tokens=8)
    alike = create(client, clip, temperature=0, n=3, max_tokens=8)
    assert {choice.message.content for choice in alike.choices} == {one.choices[0].message.content}
    assert alike.usage.prompt_tokens == one.usage.prompt_tokens
    assert alike.usage.completion_tokens == 3 * one.usage.completion_tokens
    assert alike.usage.total_tokens == alike.usage.prompt_tokens + alike.usage.completion_tokens


# --- ends


def test_stop_strings(client: openai.OpenAI) -> None:
    """Each two characters of the answer in turn, so that some begin in one token and end in the next."""
    text = ask(client, "What moves?")
    for place in range(1, len(text) - 2, 3):
        stop = text[place : place + 2]
        want = text[: text.index(stop)]
        whole = create(client, stop=[stop, "not in it"]).choices[0]
        assert (whole.message.content, whole.finish_reason) == (want, "stop")
        found = streamed(client, stop=stop)[0]
        assert (found["text"], found["finish"]) == (want, "stop")
    assert ask(client, "What moves?", stop=["not in it"]) == text
    assert create(client, stop=text[:1]).choices[0].message.content == ""
    cut = create(client, stop=text[3:5], max_tokens=12)
    assert cut.usage.completion_tokens < 12


def test_the_longest_answer(client: openai.OpenAI) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        whole = create(client, **{name: 3})
        assert whole.usage.completion_tokens == 3
        assert whole.choices[0].finish_reason == "length"
        assert streamed(client, **{name: 3})[0]["finish"] == "length"
    assert create(client, max_tokens=3, max_completion_tokens=3).usage.completion_tokens == 3
    ended = create(client, logit_bias={"2": 100})  # </s>
    assert (ended.choices[0].message.content, ended.choices[0].finish_reason) == ("", "stop")
    assert ended.usage.completion_tokens == 1
    assert create(client, logit_bias={"2": 100}, extra_body={"min_tokens": 5}).usage.completion_tokens == 6


# --- scores


def test_log_probabilities(client: openai.OpenAI) -> None:
    whole = create(client, logprobs=True, top_logprobs=5, temperature=1.2, seed=8).choices[0]
    tokens = whole.logprobs.content
    assert bytes(byte for token in tokens for byte in token.bytes).decode("utf-8", "replace") == whole.message.content
    assert all(token.logprob < 0 and len(token.top_logprobs) == 5 for token in tokens)
    for token in tokens:
        tops = [other.logprob for other in token.top_logprobs]
        assert tops == sorted(tops, reverse=True)
        assert tops[0] >= token.logprob
        mine = [other for other in token.top_logprobs if other.bytes == token.bytes]
        assert all(other.logprob == token.logprob for other in mine[:1])
    found = streamed(client, logprobs=True, top_logprobs=5, temperature=1.2, seed=8)[0]
    assert found["text"] == whole.message.content
    assert found["tokens"] == tokens
    greedy = create(client, logprobs=True, top_logprobs=1).choices[0].logprobs.content
    assert all(token.logprob == token.top_logprobs[0].logprob for token in greedy)
    alone = create(client, logprobs=True).choices[0].logprobs.content
    assert [token.logprob for token in alone] == [token.logprob for token in greedy]
    assert all(token.top_logprobs == [] for token in alone)
    assert create(client).choices[0].logprobs is None
    text = ask(client, "What moves?")
    cut = create(client, logprobs=True, stop=text[4:6]).choices[0]
    said = bytes(byte for token in cut.logprobs.content for byte in token.bytes).decode("utf-8", "replace")
    assert said.startswith(cut.message.content)
    assert len(cut.logprobs.content) < len(greedy)


def test_penalties_and_biases(client: openai.OpenAI) -> None:
    """A word that a bias brings up again and again; the host took a presence penalty of 0.1 for one that repeats."""
    bias = {"500": 12}
    (often,) = texts(client, logit_bias=bias, max_tokens=6)
    word = often[: len(often) // 6]
    assert often == word * 6
    (once,) = texts(client, logit_bias=bias, presence_penalty=2, max_tokens=6, extra_body={"repetition_penalty": 2.0})
    assert once.count(word) < 6
    (rarer,) = texts(client, logit_bias=bias, frequency_penalty=2, max_tokens=12)
    assert 1 <= rarer.count(word) < 12
    plain = ask(client, "What moves?")
    assert word not in ask(client, "What moves?", logit_bias={"500": -100})
    assert ask(client, "What moves?", presence_penalty=1e-40, frequency_penalty=0) == plain
    assert ask(client, "What moves?", presence_penalty=0, logit_bias={}) == plain
    first = create(client, logprobs=True, max_tokens=1, logit_bias={"500": 100}, presence_penalty=0.1).choices[0]
    assert first.message.content == word


# --- everything else


def test_fields_without_effect_are_taken(client: openai.OpenAI) -> None:
    plain = ask(client, "What moves?")
    answer = create(
        client, n=1, tools=[], tool_choice="none", parallel_tool_calls=True, presence_penalty=0, frequency_penalty=0,
        logit_bias={}, user="ann", metadata={"run": "7"}, store=False, service_tier="auto", safety_identifier="x",
        prompt_cache_key="x", stream_options={"include_usage": True}, response_format={"type": "text"},
        reasoning_effort="none", verbosity="medium", modalities=["text"], seed=1, stop=[], logprobs=False,
        extra_body={"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "chat_template_kwargs": {}, "best_of": None},
    )  # fmt: skip
    assert answer.choices[0].message.content == plain
    assert answer.model == "hound"
    developer = [{"role": "developer", "content": "Be\nbrief."}, *QUESTION]
    system = [{"role": "system", "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": "brief."}]}]
    assert texts(client, messages=developer) == texts(client, messages=[*system, *QUESTION]) != [plain]


def test_an_answer_can_be_sent_back_as_the_client_holds_it(client: openai.OpenAI) -> None:
    answer = create(client).choices[0].message
    dumped = answer.model_dump()
    again = [*QUESTION, answer, {"role": "user", "content": "Sure?"}]
    assert texts(client, messages=again) == texts(client, messages=[*QUESTION, dumped, again[-1]])


BAD: dict[str, dict[str, Any]] = {
    "temperature": {"temperature": 2.5},
    "n": {"n": 0},
    "max_tokens": {"max_tokens": 3, "max_completion_tokens": 4},
    "stop": {"stop": [""]},
    "tools": {"tools": [{"type": "function", "function": {"name": "f"}}]},
    "response_format": {"response_format": {"type": "json_object"}},
    "logit_bias": {"logit_bias": {"2000": 1}},
    "do_sample": {"temperature": 1.0, "extra_body": {"do_sample": False}},
    "temprature": {"extra_body": {"temprature": 1.0}},
    "messages": {"messages": []},
    "messages[0].role": {"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]},
    "messages[0].content[0].type": {
        "messages": [
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}]}
        ]
    },
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_honoured_is_a_400_that_names_it(name: str, stream: bool, client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, **{"messages": QUESTION, **BAD[name]}, stream=stream)
    error = caught.value
    assert (error.param, error.type) == (name, "invalid_request_error")
    assert error.body["message"].startswith(f"{name}: expected" if name != "temprature" else "temprature: unknown")  # type: ignore[index]


def test_errors_of_every_route_have_openais_form(client: openai.OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError) as wrong_key:
        ask(client.with_options(api_key="wrong"), "What?")
    assert (wrong_key.value.code, wrong_key.value.status_code) == ("invalid_api_key", 401)
    with pytest.raises(openai.NotFoundError) as no_route:
        client.models.retrieve("nothing")
    for caught in (wrong_key, no_route):
        assert caught.value.type == "invalid_request_error"
        assert caught.value.body["message"]  # type: ignore[index]
    with pytest.raises(openai.BadRequestError) as too_long:
        ask(client, "word " * 5000)
    assert (too_long.value.code, too_long.value.param) == ("context_length_exceeded", "messages")
    answers = [raw(client, body) for body in (b"{", b"", b"[]", b'{"model": "a", "model": "b"}', b'{"n": NaN}')]
    answers += [raw(client, b'{"messages": [5]}', "score/evaluation"), raw(client, None), raw(client, b"{}", key="no")]
    assert [status for status, _ in answers] == [400, 400, 400, 400, 400, 405, 405, 401]
    assert all({"message", "type", "param", "code"} == set(body["error"]) for _, body in answers)
    assert all(body["error"]["message"] == body["detail"] for _, body in answers)


def test_a_stream_is_server_sent_events(client: openai.OpenAI) -> None:
    """As other clients than OpenAI's read them: one role first, an end, the usage, ``[DONE]``."""
    body = {"model": "é", "messages": QUESTION, "stream": True, "stream_options": {"include_usage": True}}
    url = f"{str(client.base_url).rstrip('/')}/chat/completions"
    answer = httpx.post(url, json=body, headers={"Authorization": "Bearer secret"}, timeout=60)
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert {(chunk["model"], chunk["id"]) for chunk in chunks} == {("é", chunks[0]["id"])}
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [chunk["usage"] is None for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
    assert chunks[-1]["choices"] == []
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"


def test_a_reader_who_leaves_a_stream_frees_its_place(client: openai.OpenAI) -> None:
    """Both places of the server, for answers that take half a minute."""
    impatient = client.with_options(timeout=15)
    for _ in range(4):
        stream = create(impatient, stream=True, max_tokens=3900, n=4, temperature=1.0)
        next(iter(stream))
        stream.close()
    assert ask(impatient, "And now?", max_tokens=2)


# --- a server in this process, where the model can be made to fail


@pytest.fixture
def inside(local: ChatModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[openai.OpenAI]:
    """The same application over the same HTTP, in a thread of this process."""
    monkeypatch.delenv("API_KEY", raising=False)
    server = uvicorn.Server(uvicorn.Config(create_app(local), host="127.0.0.1", port=0, log_level="critical"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=30)
    server.should_exit = True
    thread.join(10)


def fail_at(local: ChatModel, step: int) -> Any:
    """Let the model fail at its ``step``-th token, as a GPU that runs out of memory does."""
    steps: list[int] = []

    def failing(*args: Any) -> None:
        steps.append(1)
        if len(steps) == step:
            raise RuntimeError("out of memory at /secret/path")

    return local.engine.model.lm_head.register_forward_pre_hook(failing)


def test_a_fault_of_the_server(inside: openai.OpenAI, local: ChatModel) -> None:
    """Before the first piece it is a 500, streamed or not; later a stream ends with it. The next one is answered."""
    for stream in (False, True):
        hook = fail_at(local, 1)
        with pytest.raises(openai.InternalServerError) as caught:
            ask(inside, "What moves?", stream=stream)
        hook.remove()
        assert caught.value.body["message"] == "The server failed (RuntimeError); its log says why."  # type: ignore[index]
        assert caught.value.type == "server_error"
    hook = fail_at(local, 6)
    with pytest.raises(openai.InternalServerError):
        ask(inside, "What moves?")
    hook.remove()
    hook = fail_at(local, 6)
    pieces = []
    with pytest.raises(openai.APIError, match=r"The server failed \(RuntimeError\)"):
        pieces.extend(chunk.choices[0].delta.content for chunk in create(inside, stream=True))
    hook.remove()
    want = ask(inside, "What moves?")
    assert want.startswith("".join(pieces))
    assert pieces
    assert ask(inside, "What moves?", stream=True) == want


def test_a_recipe_with_beams(inside: openai.OpenAI, local: ChatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(local.engine.generating_args, "num_beams", 3)
    want = ask(inside, "What moves?")
    assert want.replace(" .", ".") == local.chat(QUESTION)[0].response_text  # the host's `chat` removes such spaces
    assert ask(inside, "What moves?", stream=True) == want
    assert ask(inside, "What moves?", stop=want[2:4]) == want[: want.index(want[2:4])]
    with pytest.raises(openai.BadRequestError, match="searches with 3 beams"):
        ask(inside, "What moves?", temperature=1.0)


def test_a_recipe_that_samples_is_kept_where_a_request_says_nothing(
    inside: openai.OpenAI, local: ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    greedy = ask(inside, "What moves?")
    for name, value in {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "repetition_penalty": 1.0}.items():
        monkeypatch.setitem(local.engine.generating_args, name, value)
    assert len({ask(inside, "What moves?") for _ in range(4)}) > 1
    assert ask(inside, "What moves?", temperature=0) == greedy
    monkeypatch.setitem(local.engine.generating_args, "top_p", 1e-9)
    assert ask(inside, "What moves?", temperature=1.5) == greedy
    assert len({ask(inside, "What moves?", top_p=1) for _ in range(4)}) > 1


def test_the_penalty_of_a_recipe_counts_once(
    inside: openai.OpenAI, local: ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = ask(inside, "What moves?", max_tokens=24)
    given = ask(inside, "What moves?", max_tokens=24, extra_body={"repetition_penalty": 1.8})
    monkeypatch.setitem(local.engine.generating_args, "repetition_penalty", 1.8)
    assert ask(inside, "What moves?", max_tokens=24) == given != plain
    assert ask(inside, "What moves?", max_tokens=24, extra_body={"repetition_penalty": 1.0}) == plain


def test_the_log_holds_requests_without_their_clips(
    inside: openai.OpenAI, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    monkeypatch.setattr(api.logger, "info_rank0", said.append, raising=False)
    monkeypatch.setenv("API_VERBOSE", "1")
    data = "data:image/bmp;base64," + "A" * 5000
    with pytest.raises(openai.BadRequestError):
        ask(inside, content("What moves?", part("image", data)), temperature=0.5)
    (line,) = said
    assert '"temperature": 0.5' in line
    assert f"({len(data)} characters)" in line
    assert "A" * 300 not in line
