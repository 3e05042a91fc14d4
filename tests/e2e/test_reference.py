"""Trainings whose reference's log-probabilities are in a file are the trainings without it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from tests.e2e.conftest import recipe_for
from tests.e2e.together import Outcome, train_together
from tests.goldens import DPO, SFT, load_json, rows
from tests.host.hosting import write_dataset

LORA = {"finetuning_type": "lora", "lora_rank": 4, "lora_target": "all"}
PLAIN: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("dpo", {**LORA, "max_steps": 2}),
    "evaluated": ("dpo", {"pref_loss": "ipo", "val_size": 0.25, "eval_strategy": "steps", "eval_steps": 2,
                          "max_steps": 2, "pref_bco_weight": 0.5, "disable_shuffling": False}),
    "kto": ("kto", {"max_steps": 2}),
}  # fmt: skip
"""Each is run without a file, and with one."""
KEPT = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
ANOTHER = {"model_name_or_path": str(DPO), "ref_model": str(SFT)}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another model": ({"model_name_or_path": str(DPO)}, "is of another reference (weights.config.json"),
    "other pairs": ({"dataset": "others"}, "is of other rows: it lacks 1 of the 3 rows"),
}
LOADED = "Created reference model"


@pytest.fixture(scope="module")
def ran(work: Path) -> dict[str, Outcome]:
    """All trainings of this file in one process, in this order."""
    recipe = recipe_for(work)
    others = rows("dpo.jsonl")[:3]
    write_dataset(work / "data", "others", [*others[:2], {**others[2], "chosen": "Nothing like it."}], ranking=True)

    def stored(stage: str, name: str, file: str = "", **changes: Any) -> dict[str, Any]:
        block = {"reference_log_probs": str(work / f"{file or stage}.reference.jsonl")}
        return recipe(stage, f"stored-{name}", pref_beta=0.1, **changes, hound=block)

    first = {
        "recorded": stored("dpo", "recorded"),
        "another reference": stored("dpo", "another", **ANOTHER),
    }
    for name, (stage, changes) in PLAIN.items():
        first[f"{name}, plain"] = recipe(stage, f"plain-{name}", pref_beta=0.1, **changes)
        first[name] = stored(stage, name, **changes)
    first["whole"] = stored("dpo", "whole", **KEPT)
    outcomes = train_together(work, first, timeout=3000)

    second = {name: stored("dpo", name.replace(" ", "-"), **changes) for name, (changes, _) in REFUSED.items()}
    for name, file in (("resumed", ""), ("resumed, cold", "cold")):
        second[name] = stored("dpo", name.replace(", ", "-"), file, **KEPT)
        half = outcomes["whole"].folder / "checkpoint-2"
        shutil.copytree(half, Path(second[name]["output_dir"]) / "checkpoint-2")
    return outcomes | train_together(work, second, timeout=3000)


def assert_same_steps(left: Outcome, right: Outcome) -> None:
    assert len(left.steps) == len(right.steps) > 0
    for key in right.steps[0]:
        if "runtime" in key or "per_second" in key:
            continue
        limits = {"rtol": 1e-4, "atol": 2e-5} if key == "grad_norm" else {"rtol": 2e-5, "atol": 2e-5}
        got, expected = ([row[key] for row in run.steps] for run in (left, right))
        np.testing.assert_allclose(got, expected, err_msg=key, **limits)


def test_six_steps_follow_the_original(ran: dict[str, Outcome]) -> None:
    expected = load_json("h_training.json")
    for name, recorded in (
        ("recorded", "dpo_gamma0"),
        ("another reference", "dpo_from_policy_gamma0"),
    ):
        steps, there = ran[name].steps, expected[recorded]["steps"]
        assert len(steps) == len(there) == 6
        np.testing.assert_allclose([row["loss"] for row in steps], [row["loss"] for row in there], atol=2e-5, rtol=0)
        np.testing.assert_allclose([row["grad_norm"] for row in steps], [row["grad_norm"] for row in there], rtol=1e-4)


def test_a_second_model_is_loaded_for_the_file_alone(ran: dict[str, Outcome]) -> None:
    assert ran["recorded"].output.count(LOADED) == 1
    for name in ("another reference", "lora", "evaluated", "whole", "resumed"):
        assert LOADED not in ran[name].output, name
        assert "log-probabilities of 12 rows are read" in ran[name].output, name
    assert ran["kto"].output.count(LOADED) == 1
    assert LOADED in ran["kto, plain"].output


@pytest.mark.parametrize("name", PLAIN)
def test_steps_and_evaluations_are_those_of_a_run_without_a_file(name: str, ran: dict[str, Outcome]) -> None:
    with_file, without = ran[name], ran[f"{name}, plain"]
    assert_same_steps(with_file, without)
    evaluated = [
        [
            row
            for row in json.loads((run.folder / "trainer_state.json").read_text())["log_history"]
            if "eval_loss" in row
        ]
        for run in (with_file, without)
    ]
    assert bool(evaluated[0]) == (name == "evaluated")
    for got, expected in zip(*evaluated, strict=True):
        for key in ("eval_loss", "eval_rewards/chosen", "eval_rewards/margins"):
            np.testing.assert_allclose(got[key], expected[key], rtol=2e-5, atol=2e-5, err_msg=key)


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_of_something_else_is_refused(name: str, ran: dict[str, Outcome]) -> None:
    assert ran[name].failed
    assert REFUSED[name][1] in ran[name].output
    assert "Running training" not in ran[name].output


@pytest.mark.parametrize("name", ["resumed", "resumed, cold"])
def test_a_resumed_run_ends_as_an_uninterrupted_one(name: str, ran: dict[str, Outcome]) -> None:
    whole, again = ran["whole"], ran[name]
    np.testing.assert_allclose([row["loss"] for row in again.steps], [row["loss"] for row in whole.steps], atol=1e-6)
    left, right = (load_file(run.folder / "model.safetensors") for run in (whole, again))
    for key in left:
        assert (left[key] - right[key]).abs().max() <= 1e-6, key


def test_the_log_says_what_is_active(ran: dict[str, Outcome]) -> None:
    both = "prefix_sharing active; answers_only active"
    assert f"Work that is saved: {both}; reference_log_probs active" in ran["whole"].output
    assert f"Work that is saved: {both}; reference_log_probs off (no file is set)" in ran["lora, plain"].output
    assert "reference_log_probs active" in ran["kto"].output
