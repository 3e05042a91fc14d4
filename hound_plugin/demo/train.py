"""One training run of the demo through the host's own command, in a process of its own."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hound_plugin.demo.build import DemoPaths
from hound_plugin.errors import HoundError, SettingsError

RECIPES = {"sft": Path("examples/yaml/demo_sft.yaml"), "dpo": Path("examples/yaml/demo_dpo.yaml")}
"""Stage -> its recipe, in the order in which they are run; relative to a checkout."""
SPIN = "1000"
"""Rounds that a thread of GNU OpenMP waits for another before it sleeps, where the user sets nothing.

The default, 300000, is meant for cores of one's own. Two threads on two cores, 60 steps of SFT: 9.7 s with
the default, 10 s with this and 11.7 s without any waiting; beside one busy process about 380 s, 18 s and 15 s.
"""
_TAIL = 30  # lines of the log that an error quotes


def check_recipes() -> None:
    """Make sure that the recipes are here.

    Raises:
        SettingsError: the current folder is not a checkout.
    """
    for recipe in RECIPES.values():
        if not recipe.is_file():
            raise SettingsError(f"Expected {recipe} in the current folder; run this in a checkout of hound_plugin.")


def train(stage: str, paths: DemoPaths, overrides: Sequence[str] = ()) -> None:
    """Run ``llamafactory-cli train`` with a stage's recipe. Losses go to the screen, the whole log to a file.

    Args:
        stage: a key of ``RECIPES``.
        paths: the demo to train on; the checkpoint is written to ``runs/<stage>`` in its folder.
        overrides: ``key=value``, as on the host's command line.

    Raises:
        HoundError: the run failed; the message ends with the last lines of its log.
    """
    command = [str(Path(sys.executable).with_name("llamafactory-cli")), "train", str(RECIPES[stage])]
    command += [*_folder_overrides(stage, paths), *overrides]
    log = paths.runs / f"{stage}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    output: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    last_lines: deque[str] = deque(maxlen=_TAIL)
    with (
        log.open("w", encoding="utf-8") as file,
        subprocess.Popen(command, env=_environment(paths), **output) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            file.write(line)
            last_lines.append(line)
            if line.startswith("{'loss'"):
                print(_progress(line), flush=True)
        code = process.wait()
    if code:
        raise HoundError(
            f"`{' '.join(command)}` ended with exit code {code}. The whole log is in {log}; its end:\n"
            f"{''.join(last_lines)}"
        )


def _environment(paths: DemoPaths) -> dict[str, str]:
    """Offline, with data sets cached in the demo's folder; threads do not wait for long, see ``SPIN``."""
    ours = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(paths.folder / "datasets_cache")}
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
        ours["GOMP_SPINCOUNT"] = SPIN
    return {**os.environ, **ours}


def _progress(line: str) -> str:
    """One of the trainer's log lines, ``{'loss': '0.69', ...}``, in short."""
    values = {name: float(value) for name, value in ast.literal_eval(line.strip()).items()}
    accuracy = values.get("rewards/accuracies")
    shown = "" if accuracy is None else f"  pairs in the right order {100 * accuracy:.0f}%"
    return f"     {100 * values['epoch']:4.0f}%  loss {values['loss']:.3f}{shown}"


def _folder_overrides(stage: str, paths: DemoPaths) -> list[str]:
    """Nothing for the folder that the recipes name; for another one, its paths."""
    if paths.folder == Path("demo"):
        return []
    return [
        f"model_name_or_path={paths.model if stage == 'sft' else paths.runs / 'sft'}",
        f"dataset_dir={paths.data}",
        f"media_dir={paths.clips}",
        f"output_dir={paths.runs / stage}",
        f"hound.frame_cache={paths.folder / 'frame_cache'}",
    ]
