"""A web server whose answers take their time, each in another way."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WAYS = ("drip", "burst", "header", "status", "hang", "redirect", "chunks", "tls")


class _Slow(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.drip(self.path.strip("/").partition("?")[0])

    def handle(self) -> None:
        if self.connection.recv(1, socket.MSG_PEEK) == b"\x16":  # the beginning of TLS, which gets no answer
            self.path = "/tls"
            self.drip("hang")
        else:
            super().handle()

    def drip(self, way: str) -> None:
        """Answer slowly until the client hangs up or the test ends."""
        begin = {
            "drip": b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n",
            "burst": b"HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n\r\n" + bytes(70_000),
            "header": b"HTTP/1.1 200 OK\r\nX-Long: ",
            "redirect": b"HTTP/1.1 302 Found\r\nLocation: /",
            "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        }.get(way, b"")
        try:
            self.wfile.write(begin)
            while not self.server.ends.wait(0.5):  # type: ignore[attr-defined]
                if way != "hang":
                    self.wfile.write(b"1\r\nx\r\n" if way == "chunks" else b"x" if begin else b"H")
        except OSError:
            self.server.left.append(self.path.strip("/"))  # type: ignore[attr-defined]
        self.close_connection = True

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def slow_web() -> Iterator[ThreadingHTTPServer]:
    """The server; ``left`` lists the paths whose client hung up."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Slow)
    server.ends, server.left = threading.Event(), []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.ends.set()  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()


def address(server: ThreadingHTTPServer, way: str) -> str:
    """The address whose answer is slow in a way; the name leads to this machine for the API's server alone."""
    scheme = "https" if way == "tls" else "http"
    return f"{scheme}://clips.test:{server.server_address[1]}/{way}"


def wait_until(condition: Any, seconds: float = 20) -> bool:
    """Whether something comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def hang_up(port: int, body: bytes, key: str = "secret", sent: int | None = None) -> socket.socket:
    """Send a request, or the beginning of one; the caller closes the connection."""
    connection = socket.create_connection(("127.0.0.1", port))
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    connection.sendall((head.encode() + body)[: None if sent is None else len(head) + sent])
    return connection
