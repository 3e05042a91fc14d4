"""The calls of the Batch API, each tried again until it is answered."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hound_plugin.errors import JudgeError
from hound_plugin.llm.requests import OverloadedError, RejectedError, TransientError
from hound_plugin.llm.openai_client import OpenAIClient
from hound_plugin.llm.throttle import ServerWaits
from hound_plugin.records.jsonl import read_lines

ENDPOINT = "/v1/chat/completions"
NAME = "hound_batch"
OVER = ("completed", "expired", "cancelled", "failed")
_MOST_LISTED = 2000
Result = TypeVar("Result")


@dataclass(frozen=True)
class BatchState:
    """A batch as the server tells it: ``files`` hold its answers and errors, ``problems`` say why it failed."""

    id: str
    status: str
    files: tuple[str, ...]
    problems: str


class BatchServer:
    """A server's Batch API. Every method raises JudgeError when the server refuses, or after the last try."""

    def __init__(self, client: OpenAIClient, tries: int, backoff: float, server_wait: ServerWaits) -> None:
        """``tries`` per call; ``backoff`` seconds after the first, doubling; ``server_wait`` caps ``Retry-After``."""
        self.client, self.tries, self.backoff, self.server_wait = client, tries, backoff, server_wait

    async def upload(self, path: Path) -> str:
        """Send a file of requests; gives its id on the server."""

        async def call() -> str:
            answer = await self.client.server().files.create(file=path, purpose="batch")
            return self.client.redactor.text(str(answer.id))

        return await self._call(call)

    async def create(self, name: str, file: str) -> str:
        """Make a batch of that file, under our name; gives its id. One that was made without our knowing is found."""
        server = self.client.server()
        for number in range(self.tries):
            try:
                answer = await server.batches.create(
                    input_file_id=file, endpoint=ENDPOINT, completion_window="24h", metadata={NAME: name}
                )
                return self.client.redactor.text(str(answer.id))
            except Exception as error:
                problem = self._translated(error)
                if not isinstance(problem, TransientError):
                    raise self._final(problem) from None
                await self._pause(problem, number)
                found = await self.find(name)  # it may exist although its answer never came
                if found is not None:
                    return found
        raise JudgeError(f"A batch could not be created in {self.tries} tries. Run again to go on.")

    async def find(self, name: str) -> str | None:
        """The id of the batch under our name, if there is one."""

        async def call() -> str | None:
            seen = 0
            async for batch in self.client.server().batches.list(limit=100):
                if (batch.metadata or {}).get(NAME) == name:
                    return self.client.redactor.text(str(batch.id))
                seen += 1
                if seen >= _MOST_LISTED:
                    break
            return None

        return await self._call(call)

    async def look(self, number: str) -> BatchState:
        """How a batch is doing."""

        async def call() -> BatchState:
            batch = await self.client.server().batches.retrieve(number)
            files = tuple(str(file) for file in (batch.output_file_id, batch.error_file_id) if file)
            errors = getattr(batch.errors, "data", None) or []
            text = "; ".join(str(getattr(error, "message", error)) for error in errors[:3]) or "no reason given"
            status = self.client.redactor.message(str(batch.status), 40)
            return BatchState(number, status, files, self.client.redactor.message(text))

        return await self._call(call)

    async def rows(self, file: str, folder: Path) -> AsyncIterator[dict[str, Any]]:
        """Rows of a file of the server; a line that is not a JSON object counts as unanswered, like a missing one.

        The file goes to ``folder``'s disk under no name, so that nothing of it outlives this program.
        """
        with tempfile.TemporaryFile(dir=folder) as content:

            async def call() -> None:
                content.seek(0)
                content.truncate()
                async with self.client.server().files.with_streaming_response.content(file) as answer:
                    async for chunk in answer.iter_bytes():
                        content.write(chunk)

            await self._call(call)
            content.seek(0)
            for row in read_lines(content, mend=True, lenient=True):
                if row.value is not None:
                    yield row.value

    async def _call(self, make: Callable[[], Awaitable[Result]]) -> Result:
        for number in range(self.tries):
            try:
                return await make()
            except Exception as error:
                problem = self._translated(error)
                if not isinstance(problem, TransientError) or number + 1 == self.tries:
                    raise self._final(problem) from None
                await self._pause(problem, number)
        raise AssertionError("unreachable")

    def _translated(self, error: Exception) -> Exception:
        if isinstance(error, AttributeError | TypeError | KeyError):  # JSON of another shape than the library expects
            return TransientError(f"an answer of no known form: {self.client.redactor.message(str(error))}")
        return self.client.translated(error)

    def _final(self, problem: Exception) -> Exception:
        if isinstance(problem, TransientError | RejectedError):
            return JudgeError(f"{self.client.endpoint.place}: {problem}. Run again to go on; nothing is lost.")
        return problem

    async def _pause(self, problem: TransientError, number: int) -> None:
        asked = self.server_wait(problem.retry_after if isinstance(problem, OverloadedError) else None)
        await asyncio.sleep(asked if asked is not None else min(self.backoff * 2**number, 60.0))
