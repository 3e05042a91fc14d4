"""What kills at any moment, a full disk and a second start leave of a training: a run that resumes to the same end."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hound_plugin.host.resume import is_complete
from tests.e2e.conftest import recipe_for
from tests.e2e.test_distributed import launcher
from tests.e2e.test_resuming import assert_same_end
from tests.e2e.together import SEVERAL, Outcome, train_together
from tests.host.hosting import REPO, environment, write_yaml

pytestmark = pytest.mark.long

KILLS = 20
LLAMAFACTORY = (str(Path(sys.executable).with_name("llamafactory-cli")), "train")


def recipe(work: Path, name: str, **changes: Any) -> dict[str, Any]:
    values = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": 2, **changes}
    return recipe_for(work)("sft", name, **values)


def start(work: Path, command: list[str], log: Path, **extra: str) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        return subprocess.Popen(
            command,
            cwd=REPO,
            env={**environment(work, OMP_NUM_THREADS="1", **extra), "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[bytes], log: Path, seconds: float = 900) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, log.read_text(errors="replace")[-5000:]
        assert time.monotonic() < deadline, log.read_text(errors="replace")[-5000:]
        time.sleep(0.005)


def kill(process: subprocess.Popen[bytes]) -> None:
    """All processes of the training, the launcher's children included, which are in sessions of their own."""
    listed = subprocess.run(
        ["ps", "-e", "-o", "pid=,ppid="], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.splitlines()
    parents = {int(child): int(parent) for child, parent in (line.split() for line in listed)}
    doomed = [process.pid]
    for parent in doomed:  # grows
        doomed += [child for child, of in parents.items() if of == parent]
    for pid in doomed:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait(60)


def numbers(folder: Path) -> list[int]:
    """The steps of the checkpoints that are there, complete or not."""
    return sorted(int(path.name.removeprefix("checkpoint-")) for path in folder.glob("checkpoint-*"))


@pytest.mark.timeout(3600)
def test_a_run_of_two_processes_killed_at_random_moments_always_resumes(work: Path) -> None:
    """Each start is killed at a random moment after its first new checkpoint was begun; then the run is finished."""
    two = {"per_device_train_batch_size": 1, "ddp_find_unused_parameters": False, "ddp_timeout": 120}
    chosen = random.Random(7)
    values = recipe(work, "killed", max_steps=10_000, **two)
    folder, log = Path(values["output_dir"]), work / "killed.log"
    path = write_yaml(work / "killed.yaml", values)
    incomplete = 0
    for number in range(KILLS):
        before = numbers(folder)[-1:] or [0]
        process = start(work, [*launcher(work, "ddp"), str(SEVERAL), str(path)], log)
        try:
            wait_for(lambda before=before: (numbers(folder)[-1:] or [0]) > before, process, log)
            time.sleep(chosen.uniform(0, 2))
            assert process.poll() is None, log.read_text(errors="replace")[-5000:]
        finally:
            kill(process)
        last = folder / f"checkpoint-{numbers(folder)[-1]}"
        incomplete += not is_complete(last)
        print(
            f"{number + 1} kills, {incomplete} of them while a checkpoint was being written; last: {last.name}",
            flush=True,
        )
    assert incomplete, "no kill hit a checkpoint: choose other moments"
    steps = numbers(folder)[-1] + 2
    ended = train_together(work, {"end": {**values, "max_steps": steps}}, command=launcher(work, "ddp"), threads="1")[
        "end"
    ]
    assert "Resuming training from" in ended.output
    whole = recipe(work, "unbroken", **two, max_steps=steps) | {"save_strategy": "no"}
    unbroken = train_together(work, {"whole": whole}, command=launcher(work, "ddp"), threads="1")["whole"]
    assert_same_end(unbroken, ended)


FULL = """
import resource, sys, threading, time
from pathlib import Path
first, part = Path(sys.argv[1]), sys.argv[2]
def fill():
    while not (first / "trainer_state.json").exists():
        time.sleep(0.005)
    size = (first / part).stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
threading.Thread(target=fill, daemon=True).start()
sys.argv = ["llamafactory-cli", "train", sys.argv[3]]
import torch
from llamafactory.cli import main
main()
"""


@pytest.mark.parametrize("part", ["model.safetensors", "optimizer.pt", "tokenizer.json"])
def test_a_disk_that_is_full_while_a_checkpoint_is_saved_keeps_the_one_before(part: str, work: Path) -> None:
    values = recipe(work, f"full {part}", max_steps=6, save_total_limit=1)
    folder, log = Path(values["output_dir"]), work / "full.log"
    path = write_yaml(work / "full.yaml", values)
    process = start(work, [sys.executable, "-c", FULL, str(folder / "checkpoint-2"), part, str(path)], log)
    assert process.wait(300) != 0
    output = log.read_text(errors="replace")
    assert f"Cannot write {folder}/checkpoint-4: " in output, output[-5000:]
    assert "What was there before is unchanged. Free some space" in output
    assert numbers(folder) == [2], "the half-written checkpoint took the space that the next start needs"
    ended = train_together(work, {"again": values})["again"]
    assert f"Resuming training from {folder}/checkpoint-2" in ended.output
    whole = train_together(work, {"whole": recipe(work, f"unbroken {part}", max_steps=6)})["whole"]
    assert_same_end(whole, ended)


def test_a_second_training_in_one_output_dir_is_refused(work: Path) -> None:
    values = recipe(work, "shared", max_steps=10_000)
    folder = Path(values["output_dir"])
    path, log, second_log = write_yaml(work / "shared.yaml", values), work / "first.log", work / "second.log"
    first = start(work, [*LLAMAFACTORY, str(path)], log)
    try:
        wait_for(lambda: (folder / ".hound.lock").exists(), first, log)
        second = start(work, [*LLAMAFACTORY, str(path)], second_log)
        assert second.wait(300) != 0
        message = f"Another training is writing to {folder} (`output_dir`)."
        assert message in second_log.read_text(errors="replace")
        wait_for(lambda: any(map(is_complete, folder.glob("checkpoint-*"))), first, log)  # the first ones are removed
    finally:
        kill(first)
    ended = train_together(work, {"after": {**values, "max_steps": numbers(folder)[-1] + 2}})["after"]
    assert isinstance(ended, Outcome)
    assert not ended.failed, ended.output[-3000:]
    assert not (folder / ".hound.lock").exists()
