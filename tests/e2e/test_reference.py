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
    "kto": ("kto", {"max_steps": 2}),
}
SLOW: dict[str, tuple[str, dict[str, Any]]] = {
    "evaluated": ("dpo", {"pref_loss": "ipo", "val_size": 0.25, "eval_strategy": "steps", "eval_steps": 2,
                          "max_steps": 2, "pref_bco_weight": 0.5, "disable_shuffling": False}),
}  # fmt: skip
"""Each is run without a file, and with one."""
KEPT = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
ANOTHER = {"model_name_or_path": str(DPO), "ref_model": str(SFT)}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another model": (
        {"model_name_or_path": str(DPO)},
        "is of another reference (weights.model.safetensors: other content",
    ),
    "other pairs": ({"dataset": "others"}, "is of other rows: it lacks 1 of the 3 rows"),
}
LOADED = "Created reference model"


def stored(work: Path, stage: str, name: str, file: str = "", **changes: Any) -> dict[str, Any]:
    block = {"reference_log_probs": str(work / f"{file or stage}.reference.jsonl")}
    return recipe_for(work)(stage, f"stored-{name}", pref_beta=0.1, **changes, hound=block)


def with_and_without(work: Path, cases: dict[str, tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    plain = {
        f"{name}, plain": recipe_for(work)(stage, f"plain-{name}", pref_beta=0.1, **changes)
        for name, (stage, changes) in cases.items()
    }
    return {**plain, **{name: stored(work, stage, name, **changes) for name, (stage, changes) in cases.items()}}


@pytest.fixture(scope="module")
def ran(work: Path) -> dict[str, Outcome]:
    """The quick trainings of this file, in two processes, in this order."""
    others = rows("dpo.jsonl")[:3]
    write_dataset(work / "data", "others", [*others[:2], {**others[2], "chosen": "Nothing like it."}], ranking=True)
    first = {"recorded": stored(work, "dpo", "recorded"), **with_and_without(work, PLAIN)}
    first["whole"] = stored(work, "dpo", "whole", **KEPT)
    outcomes = train_together(work, first, timeout=580)
    second = {name: stored(work, "dpo", name.replace(" ", "-"), **changes) for name, (changes, _) in REFUSED.items()}
    for name, file in (("resumed", ""), ("resumed, cold", "cold")):
        second[name] = stored(work, "dpo", name.replace(", ", "-"), file, **KEPT)
        half = outcomes["whole"].folder / "checkpoint-2"
        shutil.copytree(half, Path(second[name]["output_dir"]) / "checkpoint-2")
    return outcomes | train_together(work, second, timeout=580)


@pytest.fixture(scope="module")
def slow(work: Path) -> dict[str, Outcome]:
    runs = {"another reference": stored(work, "dpo", "another", **ANOTHER), **with_and_without(work, SLOW)}
    return train_together(work, runs, timeout=580)


def assert_same_steps(left: Outcome, right: Outcome) -> None:
    assert len(left.steps) == len(right.steps) > 0
    for key in right.steps[0]:
        if "runtime" in key or "per_second" in key:
            continue
        limits = {"rtol": 1e-4, "atol": 2e-5} if key == "grad_norm" else {"rtol": 2e-5, "atol": 2e-5}
        got, expected = ([row[key] for row in run.steps] for run in (left, right))
        np.testing.assert_allclose(got, expected, err_msg=key, **limits)


def assert_follows_the_original(outcome: Outcome, recorded: str) -> None:
    steps, there = outcome.steps, load_json("h_training.json")[recorded]["steps"]
    assert len(steps) == len(there) == 6
    np.testing.assert_allclose([row["loss"] for row in steps], [row["loss"] for row in there], atol=2e-5, rtol=0)
    np.testing.assert_allclose([row["grad_norm"] for row in steps], [row["grad_norm"] for row in there], rtol=1e-4)


def test_six_steps_follow_the_original(ran: dict[str, Outcome]) -> None:
    assert_follows_the_original(ran["recorded"], "dpo_gamma0")


@pytest.mark.long
def test_six_steps_with_another_reference_follow_the_original(slow: dict[str, Outcome]) -> None:
    assert_follows_the_original(slow["another reference"], "dpo_from_policy_gamma0")


def test_a_second_model_is_loaded_for_the_file_alone(ran: dict[str, Outcome]) -> None:
    assert ran["recorded"].output.count(LOADED) == 1
    for name in ("lora", "whole", "resumed"):
        assert LOADED not in ran[name].output, name
        assert "log-probabilities of 12 rows are read" in ran[name].output, name
    assert ran["kto"].output.count(LOADED) == 1
    assert LOADED in ran["kto, plain"].output


@pytest.mark.parametrize("name", PLAIN)
def test_steps_are_those_of_a_run_without_a_file(name: str, ran: dict[str, Outcome]) -> None:
    assert_same_steps(ran[name], ran[f"{name}, plain"])


@pytest.mark.long
@pytest.mark.parametrize("name", SLOW)
def test_evaluations_are_those_of_a_run_without_a_file(name: str, slow: dict[str, Outcome]) -> None:
    with_file, without = slow[name], slow[f"{name}, plain"]
    assert_same_steps(with_file, without)
    evaluated = [
        [
            row
            for row in json.loads((run.folder / "trainer_state.json").read_text())["log_history"]
            if "eval_loss" in row
        ]
        for run in (with_file, without)
    ]
    assert evaluated[0]
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
