"""The calls of the Batch API, each repeated until it succeeds."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hound_plugin.backoff import Backoff
from hound_plugin.errors import JudgeError
from hound_plugin.llm.batch_files import ENDPOINT
from hound_plugin.llm.openai_client import OpenAIClient
from hound_plugin.llm.requests import RejectedError, TransientError
from hound_plugin.llm.retry import call_with_retries
from hound_plugin.records.jsonl import read_lines

NAME = "hound_batch"
OVER = ("completed", "expired", "cancelled", "failed")
_MOST_LISTED = 2000
Result = TypeVar("Result")


@dataclass(frozen=True)
class BatchStatus:
    """A batch as the server reports it: ``files`` hold its replies and errors, ``problems`` says why it failed."""

    id: str
    status: str
    files: tuple[str, ...]
    problems: str


class BatchAPI:
    """A server's Batch API. Every method raises JudgeError if the server rejects the call, or after the last try."""

    def __init__(self, client: OpenAIClient, tries: int, backoff: Backoff) -> None:
        """``tries`` per call, with ``backoff`` between them."""
        self.client, self.tries, self.backoff = client, tries, backoff

    async def upload(self, path: Path) -> str:
        """Upload a file of requests; returns its id on the server."""

        async def call() -> str:
            uploaded = await self.client.server().files.create(file=path, purpose="batch")
            return self.client.redactor.text(str(uploaded.id))

        return await self._call(call)

    async def create(self, name: str, file_id: str) -> str:
        """Create a batch of an uploaded file, under our name; returns its id.

        A try whose reply was lost may have created it: before another one, the server is asked for it.
        """
        tried = False

        async def call() -> str:
            nonlocal tried
            if tried and (existing := await self._find(name)) is not None:
                return existing
            tried = True
            batch = await self.client.server().batches.create(
                input_file_id=file_id, endpoint=ENDPOINT, completion_window="24h", metadata={NAME: name}
            )
            return self.client.redactor.text(str(batch.id))

        return await self._call(call)

    async def find(self, name: str) -> str | None:
        """The id of the batch under our name, if there is one."""
        return await self._call(lambda: self._find(name))

    async def _find(self, name: str) -> str | None:
        number = 0
        async for batch in self.client.server().batches.list(limit=100):
            if (batch.metadata or {}).get(NAME) == name:
                return self.client.redactor.text(str(batch.id))
            number += 1
            if number >= _MOST_LISTED:
                break
        return None

    async def retrieve(self, batch_id: str) -> BatchStatus:
        """The state of a batch."""

        async def call() -> BatchStatus:
            batch = await self.client.server().batches.retrieve(batch_id)
            files = tuple(str(file) for file in (batch.output_file_id, batch.error_file_id) if file)
            errors = getattr(batch.errors, "data", None) or []
            text = "; ".join(str(getattr(error, "message", error)) for error in errors[:3]) or "no reason given"
            status = self.client.redactor.message(str(batch.status), 40)
            return BatchStatus(batch_id, status, files, self.client.redactor.message(text))

        return await self._call(call)

    async def rows(self, file_id: str, folder: Path) -> AsyncIterator[dict[str, Any]]:
        """Rows of a file on the server; a line that is not a JSON object counts as unanswered, like a missing one.

        The file is kept on ``folder``'s disk without a name, so that nothing of it outlives this program.
        """
        with tempfile.TemporaryFile(dir=folder) as content:

            async def call() -> None:
                content.seek(0)
                content.truncate()
                async with self.client.server().files.with_streaming_response.content(file_id) as response:
                    async for chunk in response.iter_bytes():
                        content.write(chunk)

            await self._call(call)
            content.seek(0)
            for row in read_lines(content, mend=True, lenient=True):
                if row.value is not None:
                    yield row.value

    async def _call(self, call: Callable[[], Awaitable[Result]]) -> Result:
        try:
            return await call_with_retries(call, self.tries, self.backoff, self._translate)
        except (TransientError, RejectedError) as error:
            raise JudgeError(f"{self.client.endpoint.url}: {error}. Run again to continue; nothing is lost.") from None

    def _translate(self, error: Exception) -> Exception:
        if isinstance(error, AttributeError | TypeError | KeyError):  # JSON of another shape than the library expects
            return TransientError(f"a reply of unknown form: {self.client.redactor.message(str(error))}")
        return self.client.translate(error)
