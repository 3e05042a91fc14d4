"""Packing, streaming and resumption give the numbers of the plain, uninterrupted run."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from tests.goldens import rows
from tests.host.hosting import REPO, cli, environment, history, write_dataset, write_yaml


def steps(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in history(Path(values["output_dir"])) if "loss" in row]


def train(work: Path, values: dict[str, Any], check: bool = True) -> str:
    path = write_yaml(work / f"{Path(values['output_dir']).name}.yaml", values)
    return cli(work, "train", str(path), check=check, timeout=240).stdout


def kinds() -> list[dict[str, Any]]:
    """Two clips, an image and a text: the first and the last row are about other media."""
    recorded = rows("sft.jsonl")
    clips = [row for row in recorded if "video" in row]
    image = next(row for row in recorded if "image" in row)
    text = {"conversations": [{"from": "human", "value": "Say 1."}, {"from": "gpt", "value": "I say 1."}]}
    return [{**row, "id": str(number)} for number, row in enumerate([clips[0], image, text, clips[1]])]


def test_packed_rows_have_the_loss_of_single_rows(work: Path, recipe: Any) -> None:
    write_dataset(work / "data", "kinds", kinds())
    plain = recipe("sft", "unpacked", dataset="kinds", max_steps=1, per_device_train_batch_size=4)
    packed = recipe(
        "sft",
        "packed",
        dataset="kinds",
        max_steps=1,
        per_device_train_batch_size=1,
        neat_packing=True,
        cutoff_len=2048,
    )
    train(work, plain)
    train(work, packed)
    assert abs(steps(packed)[0]["loss"] - steps(plain)[0]["loss"]) < 1e-5
    np.testing.assert_allclose(steps(packed)[0]["grad_norm"], steps(plain)[0]["grad_norm"], rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"packing": True}, "attend to one another"),
        ({"neat_packing": True, "cutoff_len": 1500}, "Set it to 1504"),
    ],
)
def test_packing_that_would_be_wrong_is_refused(work: Path, recipe: Any, changes: dict[str, Any], message: str) -> None:
    output = train(work, recipe("sft", "refused", max_steps=1, **changes), check=False)
    assert message in output


@pytest.mark.parametrize("workers", [0, 1])
def test_streamed_rows_are_the_same_batches(work: Path, recipe: Any, workers: int) -> None:
    plain = recipe("sft", f"mapped{workers}", max_steps=4)
    # the host shuffles a stream within its buffer; a buffer of one row keeps the order
    streamed = recipe(
        "sft", f"streamed{workers}", max_steps=4, streaming=True, buffer_size=1, dataloader_num_workers=workers
    )
    train(work, plain)
    train(work, streamed)
    np.testing.assert_allclose(
        [row["loss"] for row in steps(streamed)], [row["loss"] for row in steps(plain)], atol=1e-6
    )


def kill_at_checkpoint(work: Path, values: dict[str, Any], step: int) -> None:
    """Start the training, and end all of its processes with SIGKILL once a checkpoint is complete."""
    path = write_yaml(work / f"{Path(values['output_dir']).name}.yaml", values)
    program = str(Path(sys.executable).with_name("llamafactory-cli"))
    complete = Path(values["output_dir"]) / f"checkpoint-{step}" / "trainer_state.json"
    with (work / "killed.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "train", str(path)],
            cwd=REPO,
            env=environment(work),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        deadline = time.monotonic() + 240
        while not complete.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, (work / "killed.log").read_text(errors="replace")[-4000:]


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_a_killed_run_resumes_to_the_same_end(stage: str, work: Path, recipe: Any) -> None:
    changes = {
        "max_steps": 8,
        "save_strategy": "steps",
        "save_steps": 4,
        **({"pref_beta": 0.1} if stage == "dpo" else {}),
    }
    whole = recipe(stage, f"{stage}-uninterrupted", **changes)
    train(work, whole)
    killed = recipe(stage, f"{stage}-killed", **changes)
    kill_at_checkpoint(work, killed, 4)
    assert not (Path(killed["output_dir"]) / "model.safetensors").exists(), "it ended before it was killed"
    torn = Path(killed["output_dir"]) / "checkpoint-6"  # as if it had been killed again while it wrote the next one
    shutil.copytree(Path(killed["output_dir"]) / "checkpoint-4", torn)
    (torn / "trainer_state.json").unlink()
    (torn / "model.safetensors").write_bytes((torn / "model.safetensors").read_bytes()[:4096])
    output = train(work, killed)  # the same file again: the host finds the last complete checkpoint
    assert f"{torn} was not written to its end" in output
    assert "Resuming training from" in output
    assert len(steps(killed)) == 8
    np.testing.assert_allclose([row["loss"] for row in steps(killed)], [row["loss"] for row in steps(whole)], atol=1e-6)
    left, right = (load_file(Path(run["output_dir"]) / "model.safetensors") for run in (whole, killed))
    assert left.keys() == right.keys()
    for name in left:
        assert (left[name] - right[name]).abs().max() <= 1e-6, name
