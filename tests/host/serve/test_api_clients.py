"""One client does not hold up another: slow downloads, heavy clips, huge requests, and clients that hang up."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
from llamafactory.chat import ChatModel
from PIL import Image

from hound_plugin.errors import ContextLengthError
from hound_plugin.host.serve.engine import check
from tests.host.serve.api_server import ARGUMENTS, ask, content, part
from tests.host.serve.slow_web import WAYS, address, hang_up, slow_web, wait_until

LIMIT = ARGUMENTS["hound"]["api_download_timeout"]  # type: ignore[index]
MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def slow() -> Iterator[ThreadingHTTPServer]:
    with slow_web() as server:
        yield server


def body(*parts: Any, **options: Any) -> bytes:
    messages = [{"role": "user", "content": content("What moves?", *parts)}]
    return json.dumps({"model": "hound", "messages": messages, **options}).encode()


def port_of(client: openai.OpenAI) -> int:
    return int(client.base_url.port or 0)


def server_of(client: openai.OpenAI) -> psutil.Process:
    port = port_of(client)
    for process in psutil.Process().children():
        if any(entry.laddr.port == port for entry in process.net_connections() if entry.status == "LISTEN"):
            return process
    raise AssertionError("no server listens")


def heavy_clip(frames: int = 6, side: int = 5000) -> dict[str, Any]:
    """A clip of a few hundred kilobytes that takes many seconds to decode: large pictures of one colour."""
    urls = []
    for shade in range(frames):
        file = io.BytesIO()
        Image.new("RGB", (side, side), (shade, 0, 0)).save(file, "PNG")
        urls.append(f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}")
    return {"type": "video", "video": urls}


def test_downloads_end_at_their_deadline(client: openai.OpenAI, slow: ThreadingHTTPServer) -> None:
    """Whatever their server does, and where the look-up of its name hangs."""

    def download(url: str) -> tuple[str, str | None, float]:
        began = time.monotonic()
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client, content("What moves?", part("video", url)))
        return caught.value.message, caught.value.param, time.monotonic() - began

    urls = [*(address(slow, way) for way in WAYS), "http://unknown.test/x.mp4"]
    with ThreadPoolExecutor(len(urls)) as pool:
        for url, (message, param, seconds) in zip(urls, pool.map(download, urls), strict=True):
            assert f"{url} was not complete after {LIMIT} s" in message
            assert param == "messages[0].content[0]"
            assert LIMIT - 0.1 <= seconds < 2 * LIMIT, url


def test_slow_downloads_hold_up_nobody(client: openai.OpenAI, slow: ThreadingHTTPServer, media: Path) -> None:
    """More of them than there are decoders, for text, for a clip on the disk and for one in the request."""
    clip = (media / "clip_short.mp4").read_bytes()
    others = [
        (),
        (part("video", media / "clip_long.mp4"),),
        (part("video", f"data:video/mp4;base64,{base64.b64encode(clip).decode()}"),),
    ]
    with ThreadPoolExecutor(12) as pool:

        def download(number: int) -> float:
            with pytest.raises(openai.BadRequestError, match="not complete"):
                ask(client, content(f"What is {number}?", part("video", address(slow, "drip") + f"?{number}")))
            return time.monotonic()

        downloads = [pool.submit(download, number) for number in range(12)]
        time.sleep(0.5)
        for parts in others:
            assert ask(client, content("What moves?", *parts), max_tokens=2)
        done = time.monotonic()
        assert all(ended.result() > done for ended in downloads), "others waited for the downloads"


@pytest.mark.parametrize("way", ["drip", "hang", "header"])
def test_a_download_ends_with_its_client(way: str, client: openai.OpenAI, slow: ThreadingHTTPServer) -> None:
    connection = hang_up(port_of(client), body(part("video", address(slow, way) + "?mine")))
    time.sleep(1)
    connection.close()
    if way != "hang":  # that one does not look
        assert wait_until(lambda: f"{way}?mine" in slow.left, LIMIT - 1.5), "the server went on downloading"  # type: ignore[attr-defined]
    assert ask(client, "And now?", max_tokens=2)


def test_clips_of_clients_that_hung_up_are_not_read_on(client: openai.OpenAI, media: Path) -> None:
    """Six clips, each of many seconds, more than there are decoders; their processes end within a moment."""
    server = server_of(client)
    request = body(heavy_clip())
    before = {process.pid for process in server.children()}
    connections = [hang_up(port_of(client), request) for _ in range(6)]
    assert wait_until(lambda: bool(reading(server)), 120), "no clip is being read"
    assert ask(client, "And now?", max_tokens=2), "text waits for clips"
    busy = reading(server)
    for connection in connections:
        connection.close()
    assert wait_until(lambda: not any(process.is_running() for process in busy), 10), "clips are read on"
    assert ask(client, content("What moves?", part("video", media / "clip_long.mp4")), max_tokens=2)
    assert len({process.pid for process in server.children()} - before) <= 4


def reading(server: psutil.Process) -> list[psutil.Process]:
    """Decoding processes that have a large picture in memory."""
    found = []
    for process in server.children():
        try:
            if process.memory_info().rss > 300 * MEBIBYTE:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.parametrize("sent", [0, 40, 200_000])
def test_clients_that_hang_up_while_they_send(sent: int, client: openai.OpenAI) -> None:
    request = body(part("image", "data:image/png;base64," + "A" * 400_000))
    for _ in range(5):
        hang_up(port_of(client), request, sent=sent).close()
    assert ask(client, "And now?", max_tokens=2)


def test_requests_that_are_too_large(client: openai.OpenAI, media: Path) -> None:
    """Refused whether their length is stated or not; one just below the limit is read."""
    url, headers = f"{client.base_url}chat/completions", {"Authorization": "Bearer secret"}
    limit = int(ARGUMENTS["hound"]["api_request_limit"]) * MEBIBYTE  # type: ignore[index]
    picture = part("image", "data:image/png;base64," + "A" * (limit + 4))
    with pytest.raises(openai.APIStatusError, match="at most 12 MiB") as caught:
        ask(client, content("What?", picture))
    assert (caught.value.status_code, caught.value.code) == (413, "request_too_large")

    def chunks() -> Iterator[bytes]:
        for _ in range(limit // MEBIBYTE + 2):
            yield b" " * MEBIBYTE

    assert httpx.post(url, content=chunks(), headers=headers, timeout=60).status_code == 413
    near = body(part("video", media / "clip_long.mp4"), max_tokens=2)
    answer = httpx.post(url, content=near + b" " * (limit - len(near)), headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    wrong_key = {"Authorization": "Bearer wrong"}
    assert httpx.post(url, content=b" " * MEBIBYTE, headers=wrong_key, timeout=60).status_code == 401


def test_requests_of_millions_of_values(client: openai.OpenAI) -> None:
    began = time.monotonic()
    for content_ in (b"[" + b"{}," * 3_000_000 + b"{}]", b"[" * 4_000_000, b'{"a":' * 1_000_000):
        answer = httpx.post(
            f"{client.base_url}chat/completions", content=content_, headers={"Authorization": "Bearer secret"}
        )
        assert answer.status_code == 400
        assert "at most 250,000 values" in answer.text
    assert time.monotonic() - began < 20


LONG: dict[str, Callable[[], list[Any]]] = {
    "a question": lambda: [{"role": "user", "content": "hello big world " * 300_000}],
    "a system prompt": lambda: [{"role": "system", "content": "x" * 5_000_000}, {"role": "user", "content": "x"}],
    "an answer": lambda: [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": "é" * 2_000_000},
        {"role": "user", "content": "x"},
    ],
    "parts": lambda: [{"role": "user", "content": [{"type": "text", "text": "y" * 100_000}] * 40}],
    "names of control tokens": lambda: [{"role": "user", "content": "</s><video>" * 400_000}],
    "turns": lambda: [{"role": ("user", "assistant")[number % 2], "content": "a"} for number in range(20_001)],
    "clips": lambda: [{"role": "user", "content": [part("video", "/nowhere.mp4")] * 20_000}],
}


@pytest.mark.parametrize("what", LONG)
def test_what_is_far_too_long_is_not_tokenised(
    what: str, client: openai.OpenAI, local: ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5 MB took 23 seconds and 2 GB; whatever the length is in."""
    messages = LONG[what]()
    began = time.monotonic()
    answer = httpx.post(
        f"{client.base_url}chat/completions",
        json={"model": "hound", "messages": messages},
        headers={"Authorization": "Bearer secret"},
        timeout=60,
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert "it has at least" in answer.json()["error"]["message"]
    assert time.monotonic() - began < 15

    def tokenise(*arguments: Any) -> Any:
        raise AssertionError("it was tokenised")

    monkeypatch.setattr(local.engine.template, "encode_oneturn", tokenise)
    if what == "a question":
        with pytest.raises(ContextLengthError):
            check(local.engine, messages)
        with pytest.raises(AssertionError, match="tokenised"):
            check(local.engine, [{"role": "user", "content": "a word"}])


def test_paths_that_no_file_can_have(client: openai.OpenAI, media: Path) -> None:
    """Looking up each of their folders would take minutes."""
    began = time.monotonic()
    for url in (f"{media}/{'a/' * 500_000}x.mp4", f"file://{media}/{'../' * 300_000}x.mp4"):
        with pytest.raises(openai.BadRequestError, match="media folder"):
            ask(client, content("What?", part("video", url)))
    with pytest.raises(openai.BadRequestError, match="at most 4096 frames; got 5000"):
        ask(client, content("What?", {"type": "video", "video": ["x.png"] * 5000}))
    assert time.monotonic() - began < 20


def test_a_chat_model_gives_no_scores(client: openai.OpenAI) -> None:
    """The host's other route reads nothing of what it was sent."""
    answer = httpx.post(
        f"{client.base_url}score/evaluation",
        content=b"[" * 1_000_000,
        headers={"Authorization": "Bearer secret", "Content-Type": "application/json"},
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, None)
