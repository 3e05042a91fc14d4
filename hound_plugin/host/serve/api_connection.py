"""A request's connection: a body of bounded size, and work that ends when its client hangs up."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Executor
from typing import Any, TypeVar

from fastapi import Request
from starlette.exceptions import HTTPException

from hound_plugin.errors import ClientDisconnectedError
from hound_plugin.media.cancellation import client_disconnected

Result = TypeVar("Result")
_LINGER = 10.0  # seconds in which the rest of a refused body is read, since most clients read no answer before its end


class RequestMemory:
    """What the bodies and downloads of all requests may take at a time.

    Args:
        most: bytes.
    """

    def __init__(self, most: int) -> None:
        self.most, self.taken = most, 0

    @contextlib.contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """A function that takes bytes for one request; they are given back at the end.

        Raises:
            HTTPException: 503, there is no room left.
        """
        mine = 0

        def take(count: int) -> None:
            nonlocal mine
            if self.taken + count > self.most:
                raise HTTPException(
                    503, f"Requests of more than {self.most >> 20} MiB are being read. Try again.", {"Retry-After": "5"}
                )
            self.taken += count
            mine += count

        try:
            yield take
        finally:
            self.taken -= mine


async def read_body(connection: Request, most: int, take: Callable[[int], None]) -> bytes:
    """The body of a request.

    Args:
        connection: whose body was not read yet.
        most: bytes that it may have.
        take: called with the number of bytes before they are kept.

    Raises:
        HTTPException: 413, it is larger.
        ClientDisconnectedError: the client hung up before its end.
    """
    stated, content = connection.headers.get("content-length", ""), bytearray()
    chunks = _chunks(connection)
    is_too_large = stated.isdecimal() and int(stated) > most
    try:
        while not is_too_large and (chunk := await anext(chunks, None)) is not None:
            take(len(chunk))
            content += chunk
            is_too_large = len(content) > most
    except HTTPException:
        await _read_the_rest(chunks)
        raise
    if is_too_large:
        content.clear()
        await _read_the_rest(chunks)
        raise HTTPException(
            413,
            f"Expected a request of at most {most / (1 << 20):g} MiB. Put the clip where the server can read it "
            "(SAFE_MEDIA_PATH or an address), or raise `hound: {api_request_limit: ...}` in the server's recipe.",
        )
    return bytes(content)


async def _chunks(connection: Request) -> AsyncIterator[bytes]:
    while True:
        message = await connection.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnectedError("The client hung up before the end of its request.")
        yield message.get("body", b"")
        if not message.get("more_body"):
            return


async def _read_the_rest(chunks: AsyncIterator[bytes]) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER):
            async for _ in chunks:
                pass


async def while_connected(
    connection: Request, work: Callable[[threading.Event], Coroutine[Any, Any, Result]]
) -> Result:
    """The result of some work, which is cancelled when its client hangs up.

    Args:
        connection: whose body has been read.
        work: is given the event that is set when the client hangs up, which threads look at.

    Raises:
        ClientDisconnectedError: it did.
    """
    disconnected = threading.Event()
    client_disconnected.set(disconnected)

    async def watch() -> None:
        while (await connection.receive())["type"] != "http.disconnect":
            pass

    task, watcher = asyncio.create_task(work(disconnected)), asyncio.create_task(watch())
    try:
        await asyncio.wait((task, watcher), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnectedError("The client hung up.")
    finally:
        watcher.cancel()
        if not task.done():
            disconnected.set()
            task.cancel()
            await asyncio.wait((task,))


async def in_thread(executor: Executor, work: Callable[..., Result], *arguments: Any) -> Result:
    """The result of a call in one of the executor's threads, in this context; cancelled, it does not begin."""
    context = contextvars.copy_context()
    return await asyncio.get_running_loop().run_in_executor(executor, context.run, work, *arguments)
