"""HTTP to a server that may not be trusted: bounded replies, no redirects.

The limits apply while a reply is read, to its size and to its uncompressed size; a small file that expands to gigabytes
ends at the limit. Redirects are never followed: the key and the texts of a request would be sent to their target.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import AsyncIterator
from typing import Any

REPLY_BYTES = 4 * 2**20
"""Largest reply; a chat completion has a few kilobytes."""
FILE_BYTES = 4 * 2**30
"""Largest file of the Batch API, which is streamed to the disk."""
_PIECE = 2**18


class BadReplyError(Exception):
    """A reply that is too large, or that cannot be decompressed."""


def http_library() -> Any:
    """The HTTP library that this version of ``openai`` uses (httpx or httpx2); both have the same interface."""
    import openai

    client = next(base for base in openai.DefaultAsyncHttpxClient.__mro__ if base.__name__ == "AsyncClient")
    return importlib.import_module(client.__module__.partition(".")[0])


def make_http_client(reply_bytes: int = REPLY_BYTES, file_bytes: int = FILE_BYTES) -> Any:
    """A client for ``openai``; belongs to the running event loop.

    Args:
        reply_bytes: largest reply, decompressed.
        file_bytes: largest content of a file, decompressed.
    """
    import openai

    async def bound(response: Any) -> None:
        is_file = response.status_code == 200 and response.request.url.path.endswith("/content")
        _limit(response, file_bytes if is_file else reply_bytes)

    headers = {"Accept-Encoding": "gzip, deflate"}
    return openai.DefaultAsyncHttpxClient(follow_redirects=False, headers=headers, event_hooks={"response": [bound]})


def is_network_error(error: BaseException) -> bool:
    """Whether the HTTP library raised this in transit: a cut connection, a time-out, broken HTTP."""
    library = http_library()
    return isinstance(error, library.HTTPError | library.StreamError)


def _limit(response: Any, most: int) -> None:
    declared = response.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and (len(declared) > 15 or int(declared) > most):
        raise _too_large(most)
    encoding = response.headers.pop("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip", "deflate", ""):
        raise BadReplyError(f"a reply compressed with {encoding[:40]!r}; expected gzip or none")
    compressed = encoding not in ("identity", "")
    response.stream = _bounded(response.stream, most, compressed)


def _bounded(stream: Any, most: int, compressed: bool) -> Any:
    class Bounded(http_library().AsyncByteStream):  # type: ignore[misc]
        async def __aiter__(self) -> AsyncIterator[bytes]:
            size, decompressor = 0, _Decompressor() if compressed else None
            async for chunk in stream:
                for piece in decompressor.pieces(chunk) if decompressor else (chunk,):
                    size += len(piece)
                    if size > most:
                        raise _too_large(most)
                    yield piece

        async def aclose(self) -> None:
            await stream.aclose()

    return Bounded()


class _Decompressor:
    """Decompresses gzip or zlib, a bounded piece at a time."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)

    def pieces(self, chunk: bytes) -> Any:
        try:
            while chunk:
                yield self._inflate.decompress(chunk, _PIECE)
                chunk = self._inflate.unconsumed_tail
                if self._inflate.eof:
                    chunk = self._inflate.unused_data
                    self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)
        except zlib.error as error:
            raise BadReplyError(f"a reply that cannot be decompressed: {error}") from None


def _too_large(most: int) -> BadReplyError:
    size = f"{most / 2**20:g} MiB" if most >= 2**20 else f"{most} bytes"
    return BadReplyError(f"a reply of more than {size}")
