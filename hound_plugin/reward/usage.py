"""What a stage that asks a server has used, over all runs on its folder."""

from __future__ import annotations

from typing import Any

from hound_plugin.llm.ledger import Ledger
from hound_plugin.judge.backends import make_limits
from hound_plugin.reward.settings import RewardSettings


def stage_usage(settings: RewardSettings, stage: str, ledger: Ledger) -> dict[str, Any]:
    """Requests, answers, tokens and cost of ``sample`` or ``judge``.

    Tokens and cost are those that are known; ``uncounted`` answers came without numbers of tokens. The cost is None
    without a price.
    """
    totals = ledger.totals()
    price = make_limits(settings, settings.judge if stage == "judge" else settings.sample, 1).price
    return {
        "requests": totals.sent,
        "answers": totals.answers,
        "prompt_tokens": totals.prompt_tokens,
        "completion_tokens": totals.completion_tokens,
        "uncounted": ledger.uncounted(),
        "cost": price.cost(totals.prompt_tokens, totals.completion_tokens) if price else None,
    }
