"""What judging would send and roughly what it would cost; nothing is sent."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hound_plugin.judge.backends import JudgeBackend, judge_limits
from hound_plugin.judge.settings import JudgeSettings
from hound_plugin.llm.ledger import Ledger
from hound_plugin.llm.prices import Prices, estimate_tokens
from hound_plugin.llm.requests import Request, message_text

SHOWN_PROMPTS = 2
OFFLINE = ("lexical", "local")


@contextmanager
def ledger_of_dry_run(path: Path, prompt_id: str) -> Iterator[Ledger]:
    """The ledger of a run, or an empty one that leaves no file if the run has none yet.

    Raises:
        LedgerError: as :class:`Ledger`.
    """
    if path.is_file():
        with Ledger(path, prompt_id) as ledger:
            yield ledger
        return
    with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / path.name, prompt_id) as ledger:
        yield ledger


def unknown_answer(reference: str, number: int = 0) -> str:
    """A text that stands for an answer that does not exist yet: the reference, or one of about 200 characters."""
    return reference or f"[answer {number} is not sampled yet] " + "x" * 160


def estimate_judging(
    requests: Iterable[tuple[Request, bool]],
    judge: JudgeBackend,
    ledger: Ledger,
    settings: JudgeSettings,
    prices: Prices,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Print the first prompts, the number of requests, tokens and cost.

    Args:
        requests: each with whether its answer exists; one that does not is always counted.
        judge: made without asking the server.
        ledger: what it has is not counted.
        settings: of the judge.
        prices: the user's.
        say: receives lines.

    Returns:
        ``requests``, ``known``, ``prompt_tokens``, ``output_tokens`` and ``cost`` (None without a price).
    """
    limits = judge_limits(settings, prices, None)
    number = prompt_tokens = known = 0
    seen: set[str] = set()
    for request, exists in requests:
        if exists and (request.key in seen or ledger.entry(request.key) is not None):
            known += 1
            continue
        seen.add(request.key)
        text = message_text(judge.client.prompt.messages(request, 0))
        if number < SHOWN_PROMPTS:
            say(f"--- request {number + 1}: {request.name}\n{text}\n")
        number += 1
        prompt_tokens += estimate_tokens(text) + limits.image_tokens
    output = number * limits.output_tokens
    cost = limits.price.cost(prompt_tokens, output) if limits.price else None
    say(f"{number} requests to the judge; {known} others are answered already or the same as one of these")
    if settings.backend not in OFFLINE:
        rule = "at 4 characters a token, 1 beyond ASCII"
        say(f"about {prompt_tokens} input tokens and at most {output} output tokens ({rule})")
        priced = f"at most about {cost:.4f}" if cost is not None else f"unknown: no price for {settings.model}"
        say(f"cost: {priced} (in the currency of your price table)")
    return {"requests": number, "known": known, "prompt_tokens": prompt_tokens, "output_tokens": output, "cost": cost}
