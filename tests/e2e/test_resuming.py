"""A training that was stopped ends as one that was not: losses and weights. Kills are in ``make test-long``."""

from __future__ import annotations

import json
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

from hound_plugin.host.media_stamps import FILE as MEDIA
from hound_plugin.host.resume import STATE
from hound_plugin.model.adapters import RUN
from tests.e2e.conftest import recipe_for
from tests.e2e.together import Outcome, train_together
from tests.host.hosting import REPO, cli, environment, write_yaml

STAGES = ("sft", "dpo")
ENDED: dict[str, dict[str, Any]] = {
    "not saved": {"max_steps": 4},
    "not saved, at the end of an epoch": {"max_steps": 4, "per_device_train_batch_size": 3},
    "steps beyond": {"max_steps": 2},
    "steps beyond, at the end of an epoch": {"max_steps": 2, "per_device_train_batch_size": 3},
}
"""Runs whose folder holds a checkpoint at step 4."""
FINISHED: dict[str, dict[str, Any]] = {
    "finished": {},
    "finished, at the end of an epoch": {"per_device_train_batch_size": 3},
    "finished, with evaluation": {"do_eval": True, "eval_dataset": "sft"},
}
"""Runs of 4 steps whose folder holds all that the run has left."""


def arguments(work: Path, stage: str, name: str, **changes: Any) -> dict[str, Any]:
    preference = {"pref_beta": 0.1} if stage == "dpo" else {}
    return recipe_for(work)(stage, f"{stage}-{name}", save_strategy="steps", **preference, **changes)


def assert_same_end(whole: Outcome, again: Outcome) -> None:
    assert len(again.steps) == len(whole.steps)
    np.testing.assert_allclose(again.losses, whole.losses, atol=1e-6)
    left, right = (load_file(run.folder / "model.safetensors") for run in (whole, again))
    assert left.keys() == right.keys()
    for name in left:
        assert (left[name] - right[name]).abs().max() <= 1e-6, name


def tear(folder: Path, complete: int, torn: int) -> Path:
    """A checkpoint behind the last complete one, as a kill leaves it that comes while it is written."""
    path = folder / f"checkpoint-{torn}"
    shutil.copytree(folder / f"checkpoint-{complete}", path)
    (path / "trainer_state.json").unlink()
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:4096])
    return path


def note_batch(folder: Path, changes: dict[str, Any]) -> None:
    """Let copied checkpoints be of a run with another number of rows a step, so that their step ends an epoch."""
    for note in folder.glob("checkpoint-*/hound_run.json") if "per_device_train_batch_size" in changes else ():
        rows = changes["per_device_train_batch_size"]
        note.write_text(json.dumps({**json.loads(note.read_text()), "rows_a_step": rows}))


@pytest.fixture(scope="module")
def whole(work: Path) -> dict[str, Outcome]:
    runs = {stage: arguments(work, stage, "whole", max_steps=4, save_steps=2) for stage in STAGES}
    return train_together(work, runs)


@pytest.fixture(scope="module")
def stopped(work: Path, whole: dict[str, Outcome]) -> dict[str, Outcome]:
    """From a named checkpoint; and, from the folder of a run that a kill has cut off, by itself."""
    runs = {}
    for stage in STAGES:
        half = whole[stage].folder / "checkpoint-2"
        runs[f"{stage} named"] = arguments(
            work, stage, "named", max_steps=4, save_steps=2, resume_from_checkpoint=str(half)
        )
        runs[f"{stage} found"] = arguments(work, stage, "found", max_steps=4, save_steps=2)
        folder = Path(runs[f"{stage} found"]["output_dir"])
        shutil.copytree(half, folder / "checkpoint-2")
        tear(folder, 2, 3)
    written = os.path.relpath(recipe_for(work)("sft", "")["model_name_or_path"], REPO) + "/"
    runs["written otherwise"] = arguments(
        work, "sft", "otherwise", max_steps=4, save_steps=2, model_name_or_path=written
    )
    shutil.copytree(whole["sft"].folder / "checkpoint-2", work / "runs" / "sft-otherwise" / "checkpoint-2")
    for name, changes in ENDED.items():
        runs[name] = arguments(work, "sft", name, save_steps=2, **changes)
        folder = Path(runs[name]["output_dir"])
        shutil.copytree(whole["sft"].folder / "checkpoint-4", folder / "checkpoint-4")
        note_batch(folder, changes)
    for name, changes in FINISHED.items():
        runs[name] = arguments(work, "sft", name, save_steps=2, max_steps=4, **changes)
        shutil.copytree(whole["sft"].folder, runs[name]["output_dir"])
        note_batch(Path(runs[name]["output_dir"]), changes)
    return train_together(work, runs)


@pytest.mark.parametrize("how", ["named", "found"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_resumed_run_ends_as_an_uninterrupted_one(
    stage: str, how: str, whole: dict[str, Outcome], stopped: dict[str, Outcome]
) -> None:
    assert_same_end(whole[stage], stopped[f"{stage} {how}"])
    assert (whole[stage].folder / "checkpoint-4" / "hound_media.npy").is_file()
    if how == "found":
        assert "checkpoint-3 is incomplete" in stopped[f"{stage} found"].output


@pytest.mark.parametrize("stage", STAGES)
def test_nothing_is_written_to_a_complete_checkpoint(stage: str, whole: dict[str, Outcome]) -> None:
    """But notes of the run, which are written in one step: a kill or a full disk would damage the rest."""
    checkpoint = whole[stage].folder / "checkpoint-4"
    complete = (checkpoint / STATE).stat().st_mtime_ns
    assert {"tokenizer.json", "processor_config.json"} <= {path.name for path in checkpoint.iterdir()}
    assert {path.name for path in checkpoint.iterdir() if path.stat().st_mtime_ns > complete} <= {RUN, MEDIA}


def test_a_model_is_the_same_however_its_path_is_written(
    whole: dict[str, Outcome], stopped: dict[str, Outcome]
) -> None:
    assert_same_end(whole["sft"], stopped["written otherwise"])


@pytest.mark.parametrize("name", ENDED)
def test_a_checkpoint_at_the_end_of_a_run(name: str, whole: dict[str, Outcome], stopped: dict[str, Outcome]) -> None:
    """Killed behind the last step, a run ends with its model; steps beyond it are none of this run's."""
    run = stopped[name]
    if name.startswith("steps beyond"):
        assert run.failed
        assert "is at step 4, and this run has 2. Raise `max_steps`" in run.output
        assert not (run.folder / "model.safetensors").exists()
    else:
        assert_same_end(whole["sft"], run)
        assert "has all 4 steps of this run" in run.output
        assert "train_loss" not in (run.folder / "train_results.json").read_text(), "the mean of no steps"


@pytest.mark.parametrize("name", FINISHED)
def test_a_finished_run_started_again(name: str, whole: dict[str, Outcome], stopped: dict[str, Outcome]) -> None:
    """It ends well, says where the model lies and how to go on, and leaves every file of the run as it is."""
    run = stopped[name]
    assert not run.failed, run.output[-3000:]
    assert f"The training in {run.folder} is finished, with all 4 steps: its model is there" in run.output
    assert "raise `max_steps` or `num_train_epochs`" in run.output
    for file in ("model.safetensors", "train_results.json", "trainer_state.json"):
        assert (run.folder / file).read_bytes() == (whole["sft"].folder / file).read_bytes(), file
    results = json.loads((run.folder / "all_results.json").read_text())
    assert results["train_loss"] > 1
    assert ("eval_loss" in results) == ("evaluation" in name)


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


@pytest.mark.long
@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_run_resumes_to_the_same_end(stage: str, work: Path) -> None:
    """The host's own command, killed twice: behind its first checkpoint, and while it writes the next one."""
    values = arguments(work, stage, "unbroken", max_steps=8, save_steps=4)
    unbroken = train_together(work, {"unbroken": values})["unbroken"]
    killed = arguments(work, stage, "killed", max_steps=8, save_steps=4)
    folder = Path(killed["output_dir"])
    kill_at_checkpoint(work, killed, 4)
    assert not (folder / "model.safetensors").exists(), "it ended before it was killed"
    torn = tear(folder, 4, 6)
    path = write_yaml(work / f"{folder.name}.yaml", killed)
    output = cli(work, "train", str(path), timeout=240).stdout  # the same file again
    assert f"{torn} is incomplete" in output
    assert "Resuming training from" in output
    assert_same_end(unbroken, Outcome(folder, output, failed=False))
