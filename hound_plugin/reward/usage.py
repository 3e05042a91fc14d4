"""What a stage that uses a server may spend, and what it has used, over all runs on its folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

from hound_plugin.judge.backends import judge_limits, judge_price, template_id
from hound_plugin.llm.ledger import Ledger
from hound_plugin.llm.limits import Limits, Outcome
from hound_plugin.llm.prices import Price
from hound_plugin.llm.sampling_server import PROMPT_ID, sampling_parameters
from hound_plugin.llm.server_settings import make_limits, output_token_limit
from hound_plugin.llm.usage import finished_usage, ledger_usage
from hound_plugin.reward.run_folder import LEDGER, SAMPLER_LEDGER
from hound_plugin.reward.run_setup import Run
from hound_plugin.reward.settings import RewardSettings

Stage = Literal["sample", "judge"]
SAMPLING_ATTEMPTS = 3


def stage_price(settings: RewardSettings, stage: Stage) -> Price | None:
    """What tokens of a stage cost, if the user gave a price for its model."""
    if stage == "judge":
        return judge_price(settings.judge, settings.prices)
    return settings.prices.get(settings.sample.model)


def stage_limits(settings: RewardSettings, stage: Stage) -> Limits:
    """Limits of a stage as the settings state them."""
    if stage == "judge":
        return judge_limits(settings.judge, settings.prices, settings.max_cost)
    return make_limits(
        settings.sample,
        attempts=SAMPLING_ATTEMPTS,
        output_tokens=output_token_limit(sampling_parameters(settings.sample)),
        price=stage_price(settings, stage),
        max_cost=settings.max_cost,
    )


def remaining_limits(run: Run, stage: Stage) -> Limits:
    """Limits of a stage; ``max_cost`` is for the whole folder, so what the other stage spent is subtracted."""
    limits = stage_limits(run.settings, stage)
    other: Stage = "sample" if stage == "judge" else "judge"
    name, prompt_id = (SAMPLER_LEDGER, PROMPT_ID) if other == "sample" else (LEDGER, template_id(run.settings.judge))
    price = stage_price(run.settings, other)
    if limits.max_cost is None or price is None or not (run.folder / name).is_file():
        return limits
    with Ledger(run.folder / name, prompt_id) as ledger:
        totals = ledger.totals()
    spent = price.cost(totals.prompt_tokens, totals.completion_tokens)
    return replace(limits, max_cost=max(0.0, limits.max_cost - spent))


def stage_usage(settings: RewardSettings, stage: Stage, ledger: Ledger) -> dict[str, Any]:
    """Requests, replies, tokens and cost of a stage (:func:`hound_plugin.llm.usage.ledger_usage`)."""
    return ledger_usage(ledger, stage_price(settings, stage))


@contextlib.contextmanager
def usage_on_error(run: Run, stage: Stage, ledger: Ledger) -> Iterator[None]:
    """Counts what a stage used even if it ends with an error."""
    try:
        yield
    except BaseException as error:
        stopped = str(error) or type(error).__name__
        run.counts[f"{stage}_usage"] = {**stage_usage(run.settings, stage, ledger), "stopped": stopped, "warnings": []}
        raise


def record_usage(run: Run, stage: Stage, outcome: Outcome, ledger: Ledger) -> None:
    """Count what a finished stage used, and print its warnings."""
    run.counts[f"{stage}_usage"] = finished_usage(ledger, stage_price(run.settings, stage), outcome, run.say)
