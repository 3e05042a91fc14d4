"""What a ledger's requests have used, and how a run of requests ended: for ``run.json`` and for the user."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hound_plugin.llm.ledger import Ledger
from hound_plugin.llm.limits import Outcome
from hound_plugin.llm.prices import Price


def ledger_usage(ledger: Ledger, price: Price | None) -> dict[str, Any]:
    """Requests, replies, tokens and cost since the ledger was created.

    Tokens and cost are those that are known; ``uncounted`` replies came without token counts. The cost is None without
    a price.
    """
    totals = ledger.totals()
    return {
        "requests": totals.sent,
        "answers": totals.answers,
        "prompt_tokens": totals.prompt_tokens,
        "completion_tokens": totals.completion_tokens,
        "uncounted": ledger.uncounted(),
        "cost": price.cost(totals.prompt_tokens, totals.completion_tokens) if price else None,
    }


def finished_usage(ledger: Ledger, price: Price | None, outcome: Outcome, say: Callable[[str], None]) -> dict[str, Any]:
    """The same with how this run ended; warns of an early stop, of uncounted replies and of what the server said."""
    usage = ledger_usage(ledger, price)
    if outcome.stopped:
        say(f"warning: stopped early: {outcome.stopped}")
    if usage["uncounted"]:
        say(
            f"warning: {usage['uncounted']} of {usage['answers']} replies came without token counts: actual tokens and "
            "cost are higher"
        )
    for warning in outcome.warnings:
        say(f"warning: {warning}")
    return {
        **usage,
        "this_run": {name: getattr(outcome, name) for name in ("sent", "answered", "missing", "failed", "done_before")},
        "stopped": outcome.stopped,
        "warnings": outcome.warnings,
    }
