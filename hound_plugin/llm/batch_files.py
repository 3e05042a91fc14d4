"""A batch as it is kept: its rows, its file, and what the ledger recorded of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hound_plugin.llm.requests import Request

ENDPOINT = "/v1/chat/completions"


@dataclass(frozen=True)
class BatchRow:
    """One request of a batch, and which attempt at it this is."""

    request: Request
    attempt: int

    @property
    def custom_id(self) -> str:
        """The name under which the server returns the reply."""
        return f"{self.request.key}-{self.attempt}"

    def line(self, body: Mapping[str, Any]) -> bytes:
        """The row's line in the file that is uploaded; ``body`` is that of a single request."""
        row = {"custom_id": self.custom_id, "method": "POST", "url": ENDPOINT, "body": body}
        return (json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "replace")

    def to_list(self) -> list[Any]:
        """The row in the ledger's JSON: key, attempt, id, candidate, draw."""
        request = self.request
        return [request.key, self.attempt, request.id, request.candidate, request.draw]

    @classmethod
    def from_list(cls, values: Sequence[Any]) -> BatchRow:
        """The inverse of :meth:`to_list`; the request's texts are in the file alone."""
        key, attempt, name, candidate, draw = values
        return cls(Request(key, name, candidate, draw), int(attempt))


@dataclass
class BatchDraft:
    """Rows for the next file; ``cost`` is estimated."""

    lines: list[bytes] = field(default_factory=list)
    rows: list[BatchRow] = field(default_factory=list)
    size: int = 0
    cost: float = 0.0

    def add(self, row: BatchRow, line: bytes, cost: float) -> None:
        """Append a row."""
        self.lines.append(line)
        self.rows.append(row)
        self.size += len(line)
        self.cost += cost

    def is_full(self, line: bytes, most_rows: int, most_bytes: int) -> bool:
        """Whether this line needs another file."""
        return bool(self.rows) and (len(self.rows) >= most_rows or self.size + len(line) > most_bytes)

    def to_json(self) -> str:
        """The value of the ledger's event ``building``."""
        return json.dumps({"rows": [row.to_list() for row in self.rows], "cost": self.cost})


@dataclass(frozen=True)
class BatchRecord:
    """What the ledger recorded of a batch.

    Attributes:
        name: ours, which the batch also carries on the server.
        rows: its requests.
        cost: estimated.
        file_id: the uploaded file, None before the upload.
        batch_id: the server's id, None before the batch exists there.
        collected: whether its replies are in the ledger.
    """

    name: str
    rows: tuple[BatchRow, ...]
    cost: float
    file_id: str | None
    batch_id: str | None
    collected: bool

    @classmethod
    def from_events(cls, name: str, events: Mapping[str, str]) -> BatchRecord:
        """Read the events of :meth:`~hound_plugin.llm.ledger.Ledger.batches`."""
        draft = json.loads(events["building"])
        rows = tuple(BatchRow.from_list(values) for values in draft["rows"])
        return cls(name, rows, float(draft["cost"]), events.get("file"), events.get("submitted"), "collected" in events)
