"""Our model and suites in lmms-eval itself: the same answers and accuracy as `hound eval`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from hound_plugin import cli
from hound_plugin.demo.build import build_demo
from hound_plugin.demo.model import write_model
from hound_plugin.evaluation.run_folder import load_run
from tests.evaluation.stand_ins import write_recipe

pytestmark = [
    pytest.mark.lmms_eval,
    pytest.mark.skipif(find_spec("lmms_eval") is None, reason="lmms-eval is installed by `make eval-env` only"),
]


def test_the_same_answers_and_accuracy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = build_demo(tmp_path / "demo", train_clips=8, held_out_clips=12, progress=False, write_model=write_model)
    recipe = write_recipe(
        tmp_path / "eval.yaml", suite="demo", data=str(paths.folder), model=str(paths.model), predict={"batch_size": 8}
    )
    assert cli.main(["eval", "run", str(recipe)]) == 0
    ours = load_run(tmp_path / "runs" / "tiny" / "demo")
    capsys.readouterr()
    assert cli.main(["eval", "list", "--tasks"]) == 0
    tasks = capsys.readouterr().out.strip()
    command = [
        sys.executable, "-m", "lmms_eval", "--model", "llava_hound", "--tasks", "hound_demo", "--batch_size", "8",
        "--model_args", f"pretrained={paths.model},dtype=float32,device=cpu", "--include_path", tasks,
        "--output_path", str(tmp_path / "out"),
    ]  # fmt: skip
    done = subprocess.run(
        command, env={**os.environ, "LMMS_EVAL_HOUND_RECIPE": str(recipe)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    theirs = load_run(tmp_path / "runs" / "lmms_eval" / "demo")
    assert {name: row.text or "" for name, row in theirs.predictions.items()} == {
        name: row.text for name, row in ours.predictions.items()
    }
    results = json.loads(next((tmp_path / "out").rglob("*results.json")).read_text())["results"]["hound_demo"]
    right = [row.correct for row in ours.judgements.values()]
    assert results["accuracy,none"] == pytest.approx(sum(map(bool, right)) / len(right))
