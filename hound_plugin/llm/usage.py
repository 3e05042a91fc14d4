"""What requests will use, have used, and how a run of them ended: for ``run.json`` and for the user."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hound_plugin.llm.ledger import Ledger
from hound_plugin.llm.limits import Limits, Outcome
from hound_plugin.llm.prices import Price, estimate_tokens


def estimate_answers(
    texts: Sequence[str], model: str, limits: Limits, what: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """What answers of a server about clips would take; nothing is sent.

    Args:
        texts: one for each request; clips are not counted.
        model: the server's name of it, as prices have it.
        limits: of the run.
        what: the job, for the user, such as ``sampling``.
        say: receives lines.

    Returns:
        ``requests``, ``prompt_tokens``, ``output_tokens`` and ``cost`` (None without a price).
    """
    tokens, output = sum(map(estimate_tokens, texts)), len(texts) * limits.output_tokens
    cost = limits.price.cost(tokens, output) if limits.price else None
    say(
        f"{len(texts)} requests to {model} for {what}: about {tokens} input tokens of text and at most {output} output "
        "tokens; the server adds tokens for clips"
    )
    priced = f"at most about {cost:.4f} without clips" if cost is not None else f"unknown: no price for {model}"
    say(f"cost of {what}: {priced} (in the currency of your price table)")
    return {"requests": len(texts), "prompt_tokens": tokens, "output_tokens": output, "cost": cost}


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
