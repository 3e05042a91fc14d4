"""What was run, for the report and the pages: sampler, judge, prompt version, numbers, thresholds, seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from hound_plugin.reward.run_folder import Row
from hound_plugin.reward.settings import RewardSettings
from hound_plugin.version import __version__

_IN_WORDS = {"model": "a model in this process", "vllm": "vLLM in this process"}


def run_facts(
    settings: RewardSettings, judges: Sequence[Mapping[str, Any]], answers: Sequence[Row]
) -> list[tuple[str, Any]]:
    """Facts by name; what the files record counts, and the settings fill in the rest.

    Args:
        settings: of the run.
        judges: what is recorded with the scores, different ones only.
        answers: rows of candidates.
    """
    return [*_sampling(settings, answers), *_judging(settings, judges), *_pairing(settings), *_all(settings)]


def recorded_judges(scores: Mapping[Any, Row]) -> list[dict[str, Any]]:
    """The different judges of some scores."""
    texts = {json.dumps(row.get("judge", {}), sort_keys=True) for row in scores.values()}
    return [json.loads(text) for text in sorted(texts)]


def _sampling(settings: RewardSettings, answers: Sequence[Row]) -> list[tuple[str, Any]]:
    sample = settings.sample
    samplers = {f"{row.get('sampler') or '?'} ({row.get('sampler_fingerprint') or '?'})" for row in answers}
    facts: list[tuple[str, Any]] = [("sampler", ", ".join(sorted(samplers)) or sample.model or "-")]
    if sample.backend == "given":
        return [*facts, ("answers from", sample.answers)]
    return [
        *facts,
        ("sampled by", _IN_WORDS.get(sample.backend) or _server(sample)),
        ("answers per question (n)", sample.n),
        ("temperature, top_p", f"{sample.temperature:g}, {sample.top_p:g}"),
        ("longest answer", f"{sample.max_new_tokens} tokens"),
        ("frames per clip", sample.num_frames or "the model's own number"),
    ]


def _server(sample: Any) -> str:
    return f"server {sample.base_url or sample.azure_endpoint or 'api.openai.com'}, shown: {sample.show}"


def _judging(settings: RewardSettings, judges: Sequence[Mapping[str, Any]]) -> list[tuple[str, Any]]:
    def different(name: str, default: str = "-") -> str:
        values = {str(judge[name]) for judge in judges if judge.get(name)}
        return ", ".join(sorted(values)) or default

    facts = [
        ("judge", different("model")),
        ("judge's back end", different("backend")),
        ("prompt version", different("protocol")),
        ("judgements per answer (k)", settings.judge.k),
        ("judge sees the reference", "yes" if settings.judge.reference else "no"),
    ]
    reported = {name for judge in judges for name in judge.get("reported_models", ())}
    named = {judge.get("model") for judge in judges}
    if reported - named:
        facts.append(("judge, as the server names it", ", ".join(sorted(reported))))
    if any(judge.get("endpoint") for judge in judges):
        facts.append(("judge's address", different("endpoint")))
    return facts


def _pairing(settings: RewardSettings) -> list[tuple[str, Any]]:
    pairs = settings.pairs
    policy = {
        "threshold": f"threshold: chosen {pairs.threshold:g} or more, rejected less",
        "margin": f"margin: at least {pairs.margin:g} apart",
    }.get(pairs.policy, pairs.policy)
    return [
        ("pairs", "the reference is chosen" if pairs.chosen_from_reference else policy),
        ("smallest gap", pairs.min_gap),
        ("most pairs per question", 1 if pairs.policy == "best-worst" else pairs.max_pairs),
        ("near duplicates from", pairs.near_duplicate),
        ("largest ratio of lengths", pairs.max_length_ratio),
        ("dropped pairs are replaced", "yes" if pairs.replace_dropped else "no"),
    ]


def _all(settings: RewardSettings) -> list[tuple[str, Any]]:
    return [
        ("seed", settings.seed),
        ("questions", settings.questions + (f", the first {settings.limit}" if settings.limit else "")),
        ("folder", settings.folder),
        ("hound_plugin", __version__),
    ]
