"""Two processes on CPU (gloo, real torchrun) give the losses of one process, whatever shards the model.

``make test`` runs the riskiest pairs of engine and job; ``make test-long`` every engine with every job.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.conftest import recipe_for
from tests.e2e.together import Outcome, train_together
from tests.goldens import rows
from tests.host.hosting import REPO, write_dataset, write_yaml

LORA = {"finetuning_type": "lora", "lora_rank": 4, "lora_target": "all"}
# one row per device: at some step one rank has an image, the other a clip or text alone
MIXED = {"dataset": "mixed", "per_device_train_batch_size": 1}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "sft-full": ("sft", {}),
    "sft-lora": ("sft", LORA),
    "dpo-full": ("dpo", {"pref_beta": 0.1}),
    "dpo-lora": ("dpo", {"pref_beta": 0.1, **LORA}),
    "dpo-stored": ("dpo", {"pref_beta": 0.1}),
    "mixed-full": ("sft", MIXED),
    "mixed-lora": ("sft", {**MIXED, **LORA}),
    # an even number of groups, which two ranks share out without repeating one; some of one row, some of two
    "grouped-full": ("sft", {"per_device_train_batch_size": 1, "hound": {"group_questions": 2}}),
}
ENGINES: dict[str, dict[str, Any]] = {
    "ddp": {"ddp_find_unused_parameters": False},
    "zero2": {"deepspeed": str(REPO / "examples" / "deepspeed" / "zero2.json")},
    "zero3": {"deepspeed": str(REPO / "examples" / "deepspeed" / "zero3.json")},
    "fsdp2": {},
}
QUICK = {
    "ddp": ("sft-full", "mixed-lora", "grouped-full"),
    "zero3": ("dpo-full", "mixed-full", "dpo-stored"),
}
STORED = "dpo-stored"
"""Its reference's log-probabilities are computed by all processes, and kept in a file."""


def mixed_rows() -> list[dict[str, Any]]:
    """Image, clip and text in turn, so that the two ranks of a step never hold the same kind."""
    recorded = rows("sft.jsonl")
    images = [row for row in recorded if "image" in row]
    clips = [row for row in recorded if "video" in row]
    mixed = []
    for number in range(6):
        text = [{"from": "human", "value": f"Say {number}."}, {"from": "gpt", "value": f"I say {number}."}]
        mixed += [images[number % len(images)], clips[number % len(clips)], {"conversations": text}]
    return [{**row, "id": str(number)} for number, row in enumerate(mixed)]


def trainings(work: Path, engine: str, names: tuple[str, ...], changes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    recipe = recipe_for(work)
    shared = {"max_steps": 3, "ddp_timeout": 120, **changes}
    runs = {name: recipe(CASES[name][0], f"{engine}-{name}", **{**CASES[name][1], **shared}) for name in names}
    for run in (runs[name] for name in names if name == STORED):
        run["hound"] = {"reference_log_probs": str(reference_file(work, engine))}
    return runs


def reference_file(work: Path, engine: str) -> Path:
    return work / f"{engine}.reference.jsonl"


def in_one_process(work: Path, names: tuple[str, ...]) -> dict[str, Outcome]:
    """The same micro-batches one after the other.

    The host takes the mean of the ranks' means, as the original does; accumulation makes the same micro-batches.
    """
    write_dataset(work / "data", "mixed", mixed_rows())
    return train_together(work, trainings(work, "single", names, {"gradient_accumulation_steps": 2}))


@pytest.fixture(scope="module")
def few(work: Path) -> dict[str, Outcome]:
    return in_one_process(work, tuple(name for names in QUICK.values() for name in names))


@pytest.fixture(scope="module")
def every(work: Path) -> dict[str, Outcome]:
    return in_one_process(work, tuple(CASES))


def fsdp_config(work: Path) -> Path:
    """The shipped file for two processes without GPUs."""
    import yaml

    values = yaml.safe_load((REPO / "examples" / "accelerate" / "fsdp2.yaml").read_text())
    values.update(num_processes=2, use_cpu=True, mixed_precision="no")
    return write_yaml(work / "fsdp2.yaml", values)


def launcher(work: Path, engine: str) -> list[str]:
    bin_folder = Path(sys.executable).parent
    if engine == "fsdp2":
        return [str(bin_folder / "accelerate"), "launch", "--config_file", str(fsdp_config(work))]
    port = str(29600 + os.getpid() % 300)
    return [str(bin_folder / "torchrun"), "--nproc_per_node", "2", "--master_port", port]


def assert_two_are_one(work: Path, engine: str, names: tuple[str, ...], single: dict[str, Outcome]) -> None:
    double = train_together(
        work, trainings(work, engine, names, ENGINES[engine]), command=launcher(work, engine), threads="1"
    )
    for name, outcome in double.items():
        assert "world size: 2" in outcome.output
        got, expected = outcome.steps, single[name].steps
        assert len(got) == len(expected) == 3
        for key, limits in (("loss", {"atol": 2e-5, "rtol": 0}), ("grad_norm", {"rtol": 1e-4})):
            left, right = ([row[key] for row in run] for run in (got, expected))
            np.testing.assert_allclose(left, right, err_msg=f"{engine} {name} {key}", **limits)
    if STORED in names:
        left, right = (
            [json.loads(line)["log_probs"] for line in reference_file(work, run).read_text().splitlines()[1:]]
            for run in (engine, "single")
        )
        np.testing.assert_allclose(left, right, rtol=1e-6)
        assert not list(work.glob(f"{engine}.reference.jsonl?*"))


@pytest.mark.parametrize("engine", QUICK)
def test_two_processes_give_the_losses_of_one(engine: str, work: Path, few: dict[str, Outcome]) -> None:
    assert_two_are_one(work, engine, QUICK[engine], few)


@pytest.mark.long
@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_gives_the_losses_of_one_process(engine: str, work: Path, every: dict[str, Outcome]) -> None:
    assert_two_are_one(work, engine, tuple(CASES), every)
