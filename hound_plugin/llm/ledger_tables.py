"""Tables of the ledger, and what their rows say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SCHEMA = 1
TABLES = """
CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS answers(
  key TEXT NOT NULL, attempt INTEGER NOT NULL, status TEXT NOT NULL, value TEXT, raw TEXT NOT NULL,
  model TEXT, fingerprint TEXT, detail TEXT, prompt_tokens INTEGER, completion_tokens INTEGER, time REAL NOT NULL,
  PRIMARY KEY (key, attempt));
CREATE TABLE IF NOT EXISTS sent(
  number INTEGER PRIMARY KEY, key TEXT NOT NULL, attempt INTEGER NOT NULL, owner TEXT NOT NULL, time REAL NOT NULL);
CREATE TABLE IF NOT EXISTS failures(
  number INTEGER PRIMARY KEY, key TEXT NOT NULL, kind TEXT NOT NULL, message TEXT NOT NULL, time REAL NOT NULL);
CREATE INDEX IF NOT EXISTS failures_key ON failures(key);
CREATE TABLE IF NOT EXISTS batches(
  number INTEGER PRIMARY KEY, batch TEXT NOT NULL, event TEXT NOT NULL, value TEXT NOT NULL, time REAL NOT NULL);
CREATE TABLE IF NOT EXISTS claims(key TEXT PRIMARY KEY, owner TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS claims_owner ON claims(owner);
CREATE TABLE IF NOT EXISTS totals(name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""
APPEND_ONLY = "".join(
    f"CREATE TRIGGER IF NOT EXISTS {table}_{verb} BEFORE {verb} ON {table} "
    f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END;\n"
    for table in ("answers", "sent", "failures", "batches")
    for verb in ("UPDATE", "DELETE")
)


@dataclass(frozen=True)
class Entry:
    """One recorded reply; ``value`` is None unless ``status`` is ``ok``, token counts are None if unknown."""

    key: str
    attempt: int
    status: str
    value: int | str | None
    raw: str
    model: str = ""
    fingerprint: str = ""
    detail: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    time: float = 0.0


@dataclass(frozen=True)
class Claim:
    """The result of a claim: ``claimed``, to be sent as ``attempt``; ``busy`` in another run; ``done``, with its last
    ``entry``; ``batched``, in a batch that is not collected yet.
    """

    state: Literal["claimed", "busy", "batched", "done"]
    attempt: int = 0
    entry: Entry | None = None


@dataclass(frozen=True)
class Totals:
    """Counts since the ledger was created; tokens as far as servers reported them."""

    sent: int = 0
    answers: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
