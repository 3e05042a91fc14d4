"""A site for this machine: other hosts and other pages are refused, and what it serves can be embedded nowhere."""

from __future__ import annotations

import socket

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from hound_plugin.errors import SettingsError
from hound_plugin.pages.local_site import LONGEST_BODY, OwnPageOnly, serve


async def echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse((await request.body()).decode())


@pytest.fixture(scope="module")
def client() -> TestClient:
    routes = [Route("/", lambda _: HTMLResponse("page")), Route("/echo", echo, methods=["GET", "POST"])]
    return TestClient(OwnPageOnly(Starlette(routes=routes)), base_url="http://127.0.0.1:7860")


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "127.0.0.1", "localhost:9999"])
def test_its_own_names(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"host": host}).status_code == 200
    assert client.post("/echo", headers={"host": host, "origin": f"http://{host}"}, content="x").text == "x"


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:7860", "127.0.0.1.evil.example", "127.0.0.1:7860@evil.example", "0.0.0.0:7860",
        "192.168.0.7:7860", "", "[::1]:7860", "localhost.evil.example:80", "127.0.0.1:", "127.0.0.1:78 60", "LOCALHOST",
    ],
)  # fmt: skip
def test_other_hosts(client: TestClient, host: str) -> None:
    answer = client.get("/", headers={"host": host})
    expected = 200 if host == "127.0.0.1:" else 403  # an empty port is allowed by RFC 3986
    assert answer.status_code == expected
    assert "page" not in answer.text or expected == 200 or "This page is only" in answer.text


@pytest.mark.parametrize(
    "origin",
    [None, "null", "http://evil.example", "https://127.0.0.1:7860", "http://127.0.0.1:7861", "http://localhost:7860"],
)
def test_other_pages_change_nothing(client: TestClient, origin: str | None) -> None:
    headers = {} if origin is None else {"origin": origin}
    assert client.post("/echo", headers=headers, content="x").status_code == 403


def test_large_requests(client: TestClient) -> None:
    own = {"origin": "http://127.0.0.1:7860"}
    assert client.post("/echo", headers=own, content="x" * (LONGEST_BODY + 1)).status_code == 403
    assert client.post("/echo", headers=own, content=iter([b"x"])).status_code == 403, "of unknown length"
    assert client.post("/echo", headers={**own, "content-length": "-1"}).status_code == 403


def test_headers(client: TestClient) -> None:
    for path, host in (("/", "127.0.0.1"), ("/echo", "127.0.0.1"), ("/absent", "127.0.0.1"), ("/", "evil.example")):
        headers = client.get(path, headers={"host": host}).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        is_page = path == "/" and host == "127.0.0.1"
        assert ("content-security-policy" in headers) != is_page, "pages bring their own"


def test_a_port_that_is_taken() -> None:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        place.listen()
        with pytest.raises(SettingsError, match=r"--port: \d+ on 127.0.0.1 is unavailable"):
            serve(Starlette(), place.getsockname()[1], print)
    with pytest.raises(SettingsError, match="--port: 70000"):
        serve(Starlette(), 70000, print)
