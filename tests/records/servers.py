"""Real servers of files: some give ranges, some only whole files, some do not say how long they are."""

from __future__ import annotations

import base64
import contextlib
import functools
import gzip
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

USER, PASSWORD = "reader", "open-sesame"


class Whole(SimpleHTTPRequestHandler):
    """``python -m http.server``: no ranges; and what goes wrong on the way, by the first folder of a path."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Tests are quiet."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        kind, _, name = self.path.lstrip("/").partition("/")
        if kind == "status":
            self.send_error(int(name.partition("/")[0]))
        elif kind == "redirect":
            self._head(302, {"Location": "/status/403/rows.jsonl?X-Amz-Signature=0123abcd", "Content-Length": "0"})
        elif kind == "private" and self.headers.get("Authorization") != _basic():
            self._head(401, {"WWW-Authenticate": "Basic", "Content-Length": "0"})
        else:
            self._file(kind, Path(self.directory) / name.partition("?")[0])

    def _file(self, kind: str, path: Path) -> None:
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        if kind == "chunked":
            self._head(200, {"Transfer-Encoding": "chunked"})
            self._send(b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in _parts(content)) + b"0\r\n\r\n")
        elif kind == "packed":  # on the fly, whatever the client accepts
            self._head(200, {"Content-Encoding": "gzip", "Content-Length": str(len(gzip.compress(content, 1)))})
            self._send(gzip.compress(content, 1))
        elif kind == "broken":
            self._head(200, {"Content-Length": str(len(content))})
            self._send(content[: len(content) // 2])
            self.close_connection = True
        else:
            self._head(200, {"Content-Length": str(len(content))})
            self._send(content)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, content: bytes) -> None:
        if self.command == "GET":
            with contextlib.suppress(ConnectionError):  # it has seen enough
                self.wfile.write(content)


def _parts(content: bytes) -> list[bytes]:
    return [content[start : start + 100_000] for start in range(0, len(content), 100_000)]


def _basic() -> str:
    return "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@contextmanager
def whole_files(folder: Path) -> Iterator[str]:
    """The address of a server without ranges; ``/plain/NAME`` is a file of the folder."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Whole, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def ranges(folder: Path) -> Iterator[str]:
    """The address of a server that gives ranges; ``/NAME`` is a file of the folder."""
    import uvicorn
    from starlette.staticfiles import StaticFiles

    with socket.create_server(("127.0.0.1", 0)) as place:
        server = uvicorn.Server(uvicorn.Config(StaticFiles(directory=folder), log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [place]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{place.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)


@contextmanager
def buckets() -> Iterator[str]:
    """The endpoint of a server of S3 (moto) in a process of its own."""
    with socket.create_server(("127.0.0.1", 0)) as place:
        port = place.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    output = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, "AWS_ENDPOINT_URL": ""})
    try:
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None
            assert time.monotonic() < deadline, "too slow to start"
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)
