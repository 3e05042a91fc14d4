"""Two processes on CPU (gloo, real torchrun) give the losses of one process, whatever shards the model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.goldens import rows
from tests.host.hosting import REPO, environment, history, write_dataset, write_yaml

SEVERAL = Path(__file__).with_name("several.py")
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "dpo-full": ("dpo", {"pref_beta": 0.1}),
    "dpo-lora": ("dpo", {"pref_beta": 0.1, "finetuning_type": "lora", "lora_rank": 4, "lora_target": "all"}),
    # one row per device: at some step one rank has an image, the other a clip or text alone
    "mixed-full": ("sft", {"dataset": "mixed", "per_device_train_batch_size": 1}),
    "mixed-lora": (
        "sft",
        {
            "dataset": "mixed",
            "per_device_train_batch_size": 1,
            "finetuning_type": "lora",
            "lora_rank": 4,
            "lora_target": "all",
        },
    ),
}
ENGINES: dict[str, dict[str, Any]] = {
    "ddp": {"ddp_find_unused_parameters": False},
    "zero2": {"deepspeed": str(REPO / "examples" / "deepspeed" / "zero2.json")},
    "zero3": {"deepspeed": str(REPO / "examples" / "deepspeed" / "zero3.json")},
    "fsdp2": {},
}
TIMEOUT = 420  # a hang is a failure, not a long wait


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


def trainings(work: Path, recipe: Any, engine: str, changes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    runs = {}
    for name, (stage, of_case) in CASES.items():
        values = recipe(stage, f"{engine}-{name}", **{"max_steps": 3, **of_case, **changes})
        values["ddp_timeout"] = 120
        write_yaml(work / f"{engine}-{name}.yaml", values)
        runs[name] = values
    return runs


def start(work: Path, command: list[str], engine: str, threads: str) -> str:
    files = " -- ".join(str(work / f"{engine}-{name}.yaml") for name in CASES).split()
    done = subprocess.run(
        [*command, str(SEVERAL), *files],
        cwd=REPO,
        env={**environment(work, OMP_NUM_THREADS=threads), "PYTHONPATH": str(REPO)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    return done.stdout


def steps(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in history(Path(values["output_dir"])) if "loss" in row]


@pytest.fixture(scope="module")
def single(work: Path) -> dict[str, dict[str, Any]]:
    """The same micro-batches one after the other in one process."""
    from tests.e2e.conftest import recipe_for

    write_dataset(work / "data", "mixed", mixed_rows())
    runs = trainings(work, recipe_for(work), "single", {"gradient_accumulation_steps": 2})
    start(work, [sys.executable], "single", "2")
    return runs


def fsdp_config(work: Path) -> Path:
    """The shipped file for two processes without GPUs."""
    import yaml

    values = yaml.safe_load((REPO / "examples" / "accelerate" / "fsdp2.yaml").read_text())
    values.update(num_processes=2, use_cpu=True, mixed_precision="no")
    return write_yaml(work / "fsdp2.yaml", values)


@pytest.mark.parametrize("engine", ENGINES)
def test_two_processes_give_the_losses_of_one(
    engine: str, work: Path, recipe: Any, single: dict[str, dict[str, Any]]
) -> None:
    runs = trainings(work, recipe, engine, ENGINES[engine])
    bin_folder = Path(sys.executable).parent
    if engine == "fsdp2":
        command = [str(bin_folder / "accelerate"), "launch", "--config_file", str(fsdp_config(work))]
    else:
        port = str(29600 + os.getpid() % 300)
        command = [str(bin_folder / "torchrun"), "--nproc_per_node", "2", "--master_port", port]
    output = start(work, command, engine, "1")
    assert "world size: 2" in output
    for name, values in runs.items():
        expected, got = steps(single[name]), steps(values)
        losses = [[row["loss"] for row in run] for run in (got, expected)]
        norms = [[row["grad_norm"] for row in run] for run in (got, expected)]
        np.testing.assert_allclose(*losses, atol=1e-4, err_msg=f"{engine} {name}")
        np.testing.assert_allclose(*norms, rtol=1e-3, err_msg=f"{engine} {name}")
