"""Answers that are in the ledger and could not be read when they came: a better reader costs nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from hound_plugin.llm.requests import OK, UNPARSED, Conversation, Task
from hound_plugin.llm.ledger import Ledger


def read_again(tasks: Iterable[Task], ledger: Ledger, conversation: Conversation, attempts: int) -> int:
    """Record the values of last answers that the parser reads now; gives how many.

    Each is one more attempt with the same text and no tokens: what was recorded stays as it is.

    Args:
        tasks: whose answers to look at.
        ledger: holds the answers.
        conversation: reads them.
        attempts: as :meth:`~hound_plugin.llm.ledger.Ledger.claim` takes them.

    Raises:
        LedgerError: the ledger cannot be written.
    """
    found = 0
    for task in tasks:
        entry = ledger.entry(task.key)
        if entry is None or entry.status != UNPARSED or (value := conversation.parse(entry.raw)) is None:
            continue
        if ledger.claim(task.key, attempts).result().state in ("mine", "done"):  # or another run is at it
            read = replace(entry, attempt=entry.attempt + 1, status=OK, value=value, prompt_tokens=0)
            ledger.record(replace(read, completion_tokens=0, time=0.0), release=True).result()
            found += 1
    return found
