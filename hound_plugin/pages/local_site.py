"""Serving a page on this machine to its own browser and to nobody else.

Another web site that is open in the same browser can send requests to 127.0.0.1, also under a name of its own that it
resolves to this address. So a request must name this machine as its host, and one that changes something must come from
this very page.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hound_plugin.errors import SettingsError

HOST = "127.0.0.1"
OWN_NAMES = (HOST, "localhost")
LONGEST_BODY = 64 * 1024
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
NOTHING = "default-src 'none'; sandbox; frame-ancestors 'none'"


class OwnPageOnly:
    """Middleware that refuses requests for another host or from another page, and adds headers that keep others out.

    Args:
        app: the site.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"expected an HTTP request, got {scope['type']}")  # ends the connection
        reason = refusal(scope["method"], Headers(scope=scope))

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if not headers.get("content-type", "").startswith("text/html"):  # pages have their own
                    headers.setdefault("Content-Security-Policy", NOTHING)
            await send(message)

        app = self._app if reason is None else PlainTextResponse(reason, 403)
        await app(scope, receive, send_with_headers)


def refusal(method: str, headers: Headers) -> str | None:
    """Why a request is refused; None if it is not."""
    hosts = headers.getlist("host")
    host = hosts[0] if len(hosts) == 1 else ""
    name, _, port = host.partition(":")
    if name not in OWN_NAMES or not (port == "" or port.isdecimal()):
        return f"This page is only for this machine: expected {' or '.join(OWN_NAMES)} as the host, got {host[:100]!r}."
    if method in ("GET", "HEAD"):
        return None
    if headers.get("origin") != f"http://{host}":
        origin = headers.get("origin", "nowhere")[:100]
        return f"Expected a request from this page, http://{host}, got one from {origin!r}."
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > LONGEST_BODY or "transfer-encoding" in headers:
        return f"Expected a request of at most {LONGEST_BODY} bytes."
    return None


def serve(app: ASGIApp, port: int, say: Callable[[str], None]) -> None:
    """Serve a site on 127.0.0.1 until Ctrl-C.

    Args:
        app: the site, without :class:`OwnPageOnly`.
        port: 0 for any that is free.
        say: receives the page's address once it can be opened.

    Raises:
        SettingsError: the port is in use or may not be used.
    """
    import uvicorn

    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as place:
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            place.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise SettingsError(f"--port: {port} on {HOST} is unavailable ({error}). Name another one.") from error
        place.listen()
        say(f"http://{HOST}:{place.getsockname()[1]}/ (Ctrl-C ends it)")
        server = uvicorn.Server(uvicorn.Config(OwnPageOnly(app), log_level="warning", lifespan="off"))
        with contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[place])
