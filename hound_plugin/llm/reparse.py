"""Replies in the ledger that could not be parsed when they came: a better parser costs nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from hound_plugin.llm.ledger import Ledger
from hound_plugin.llm.requests import OK, UNPARSED, ChatPrompt, Request


def reparse(requests: Iterable[Request], ledger: Ledger, prompt: ChatPrompt, attempts: int) -> int:
    """Record the values of last replies that ``prompt`` can parse now; returns how many.

    Each is one more attempt with the same text and no tokens: what was recorded before stays as it is.

    Args:
        requests: whose replies to look at.
        ledger: holds the replies.
        prompt: parses them.
        attempts: as in :meth:`~hound_plugin.llm.ledger.Ledger.claim`.

    Raises:
        LedgerError: the ledger cannot be written.
    """
    number = 0
    for request in requests:
        entry = ledger.entry(request.key)
        if entry is None or entry.status != UNPARSED or (value := prompt.parse(entry.raw)) is None:
            continue
        if ledger.claim(request.key, attempts).result().state in ("claimed", "done"):  # or another run is at work on it
            parsed = replace(entry, attempt=entry.attempt + 1, status=OK, value=value, prompt_tokens=0)
            ledger.record(replace(parsed, completion_tokens=0, time=0.0), release=True).result()
            number += 1
    return number
