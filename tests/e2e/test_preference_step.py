"""Preference steps with shared prompts, answers only and shared towers train as the host's own steps do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.conftest import recipe_for
from tests.e2e.together import Outcome, train_together
from tests.goldens import DPO

LORA = {"finetuning_type": "lora", "lora_rank": 4, "lora_target": "all"}
KINDS: dict[str, dict[str, Any]] = {
    "full": {},
    "another reference": {"ref_model": str(DPO), "pref_ftx": 0.3},
    "lora": {**LORA, "ld_alpha": 0.5},
    "ipo": {"pref_loss": "ipo", "gradient_checkpointing": True},
    "orpo": {**LORA, "pref_loss": "orpo"},
    "simpo": {"pref_loss": "simpo"},
    "kto": {**LORA, "pref_ftx": 0.3},
    "kto full": {"gradient_checkpointing": True},
    "towers trained": {"freeze_vision_tower": False, "freeze_multi_modal_projector": False},
    "evaluated": {**LORA, "eval_dataset": "dpo", "eval_strategy": "steps", "eval_steps": 2, "pref_bco_weight": 0.5},
}
LONG = ("ipo", "orpo", "simpo", "kto full", "evaluated")
WAYS: dict[str, dict[str, Any]] = {
    "shared": {},
    "separate": {"hound": {"prefix_sharing": "off"}},
    "stock": {"hound": {"answers_only": "off"}},
}


def stage_of(kind: str) -> str:
    return "kto" if kind.startswith("kto") else "dpo"


def run(work: Path, kinds: list[str]) -> dict[str, Outcome]:
    recipe = recipe_for(work)
    runs = {}
    for kind in kinds:
        for way, changes in WAYS.items():
            folder = f"{kind}-{way}".replace(" ", "-")
            runs[f"{kind}, {way}"] = recipe(stage_of(kind), folder, max_steps=3, **KINDS[kind], **changes)
    return train_together(work, runs, timeout=580)


@pytest.fixture(scope="module")
def quick(work: Path) -> dict[str, Outcome]:
    return run(work, [kind for kind in KINDS if kind not in LONG])


@pytest.fixture(scope="module")
def slow(work: Path) -> dict[str, Outcome]:
    return run(work, list(LONG))


def check(kind: str, ran: dict[str, Outcome]) -> None:
    stock = ran[f"{kind}, stock"].steps
    for way in ("shared", "separate"):
        outcome = ran[f"{kind}, {way}"]
        told = "active" if way == "shared" else "off (prefix_sharing: off)"
        assert f"Work that is saved: prefix_sharing {told}; answers_only active" in outcome.output
        steps = outcome.steps
        assert len(steps) == len(stock) == 3
        for key in stock[0]:
            if key.startswith("logits/") or "runtime" in key or "per_second" in key:
                continue  # means over attended tokens, and over padding too
            limits = {"rtol": 1e-4, "atol": 2e-5} if key == "grad_norm" else {"rtol": 2e-5, "atol": 2e-5}
            left, right = ([row[key] for row in rows] for rows in (steps, stock))
            np.testing.assert_allclose(left, right, err_msg=f"{kind} {way} {key}", **limits)
    off = "prefix_sharing off (answers_only: off); answers_only off (answers_only: off)"
    assert f"Work that is saved: {off}" in ran[f"{kind}, stock"].output


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in LONG])
def test_steps_are_those_of_the_host(kind: str, quick: dict[str, Outcome]) -> None:
    check(kind, quick)


@pytest.mark.long
@pytest.mark.parametrize("kind", LONG)
def test_more_steps_are_those_of_the_host(kind: str, slow: dict[str, Outcome]) -> None:
    check(kind, slow)


def test_towers_run_once_where_they_are_frozen_and_the_same(quick: dict[str, Outcome]) -> None:
    for kind in ("full", "lora", "another reference", "kto"):
        assert "The reference takes the policy's tower features" in quick[f"{kind}, shared"].output
    assert "The reference does not take" in quick["towers trained, shared"].output
