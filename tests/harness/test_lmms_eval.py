"""Our model and suites in lmms-eval itself, and our API under its `openai` model: the same answers as `hound eval`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from hound_plugin import cli
from hound_plugin.demo.build import DemoPaths, build_demo
from hound_plugin.evaluation.comparison import compare
from hound_plugin.evaluation.run_folder import EvaluationRun, load_run
from tests.evaluation.stand_ins import write_recipe
from tests.goldens import SFT

REPO = Path(__file__).resolve().parents[2]
SERVER = Path(os.environ.get("HOUND_SERVER_BIN", REPO / ".venv" / "bin")) / "llamafactory-cli"
"""The server runs in the environment that trains and serves; lmms-eval needs one of its own."""

pytestmark = [
    pytest.mark.lmms_eval,
    pytest.mark.skipif(find_spec("lmms_eval") is None, reason="lmms-eval is installed by `make eval-env` only"),
]


@dataclass(frozen=True)
class Measured:
    """Questions of a small demo, and what `hound eval run` says of the recorded model."""

    paths: DemoPaths
    recipe: Path
    run: EvaluationRun

    def theirs(self, out: Path, *arguments: str) -> tuple[EvaluationRun, dict[str, Any]]:
        """The suite as a task of lmms-eval: the run that it leaves, and its own results."""
        tasks = str(REPO / "hound_plugin" / "harness" / "tasks")
        command = [sys.executable, "-m", "lmms_eval", "--tasks", "hound_demo", "--include_path", tasks, *arguments]
        done = subprocess.run(
            [*command, "--output_path", str(out)],
            env={**os.environ, "LMMS_EVAL_HOUND_RECIPE": str(self.recipe)},
            capture_output=True,
            text=True,
            check=False,
        )
        found = list(out.rglob("*results.json"))  # its exit code is 0 whatever happens
        assert found, done.stderr[-3000:]
        results = json.loads(found[0].read_text())["results"]["hound_demo"]
        return load_run(self.run.folder.parents[1] / "lmms_eval" / "demo"), results

    def check(self, theirs: EvaluationRun, results: dict[str, Any]) -> None:
        """The same answers, one for each question, and the same accuracy; the run on disk can be compared with ours."""
        assert {name: row.text or "" for name, row in theirs.predictions.items()} == {
            name: row.text for name, row in self.run.predictions.items()
        }
        right = [row.correct for row in self.run.judgements.values()]
        assert results["accuracy,none"] == pytest.approx(sum(map(bool, right)) / len(right))
        assert not compare(self.run, theirs).changes
        assert theirs.meta["judge"] == self.run.meta["judge"]
        assert "hound_demo" in theirs.meta["command"]
        assert cli.main(["eval", "report", str(self.recipe), "name=lmms_eval"]) == 0
        report = (theirs.folder / "report" / "report.md").read_text()
        assert f"| {theirs.meta['model']} |".replace("_", r"\_") in report, "not the model that the recipe names"


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    folder = tmp_path_factory.mktemp("small")
    paths = build_demo(folder / "demo", train_clips=8, held_out_clips=12, progress=False)
    recipe = write_recipe(folder / "eval.yaml", suite="demo", data=str(paths.folder), predict={"batch_size": 8})
    assert cli.main(["eval", "run", str(recipe)]) == 0
    return Measured(paths, recipe, load_run(folder / "runs" / "tiny" / "demo"))


def test_the_tasks_have_a_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["eval", "list", "--tasks"]) == 0
    assert (Path(capsys.readouterr().out.strip()) / "hound_demo.yaml").is_file()


def test_our_model_gives_the_same_answers_and_accuracy(ours: Measured, tmp_path: Path) -> None:
    model = f"pretrained={SFT},dtype=float32,device=cpu"
    ours.check(*ours.theirs(tmp_path, "--model", "llava_hound", "--model_args", model, "--batch_size", "8"))


# --- the API under lmms-eval's own model for servers


@pytest.fixture(scope="module")
def api(ours: Measured, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``llamafactory-cli api`` with the demo's model; its address."""
    folder = tmp_path_factory.mktemp("api")
    recipe = {"model_name_or_path": str(SFT), "template": "llava_hound", "infer_dtype": "float32"}
    (folder / "api.yaml").write_text(yaml.safe_dump({**recipe, "infer_backend": "huggingface", "do_sample": False}))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {"SAFE_MEDIA_PATH": str(ours.paths.clips), "API_HOST": "127.0.0.1", "API_PORT": str(port)}
    environment |= {"API_KEY": "secret", "API_VERBOSE": "0", "HF_HUB_OFFLINE": "1"}
    with (folder / "log.txt").open("w") as log:
        server = subprocess.Popen(
            [str(SERVER), "api", str(folder / "api.yaml")],
            env={**os.environ, **environment}, cwd=folder, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            wait_for(f"http://127.0.0.1:{port}/v1/models", server, folder / "log.txt")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()
            server.wait(30)


def wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    request = urllib.request.Request(address, headers={"Authorization": "Bearer secret"})
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(request, timeout=5).read()
            return
        except (urllib.error.URLError, TimeoutError):
            assert server.poll() is None, log.read_text()[-3000:]
            time.sleep(0.5)
    raise AssertionError(log.read_text()[-3000:])


def openai_model(address: str, frames: int, **more: Any) -> list[str]:
    settings = {"model": "tiny", "base_url": address, "api_key": "secret", "pass_video_url": True}
    settings |= {"max_frames_num": frames, "num_concurrent": 2, "timeout": 120, **more}
    arguments = ",".join(f"{name}={value}" for name, value in settings.items())
    return ["--model", "openai", "--model_args", arguments, "--batch_size", "1"]


def test_the_api_gives_the_same_answers_and_accuracy(ours: Measured, api: str, tmp_path: Path) -> None:
    """Clips by their addresses, images as data."""
    ours.check(*ours.theirs(tmp_path, *openai_model(api, 8)))


def test_requests_that_fail_are_no_wrong_answers(ours: Measured, api: str, tmp_path: Path) -> None:
    """The API shows 8 frames, and refuses whoever asks for 10."""
    run, results = ours.theirs(tmp_path, *openai_model(api, 10, max_retries=1))
    assert len(run.predictions) == len(ours.run.questions)
    assert all(row.text is None and "expected num_frames 8" in row.error for row in run.predictions.values())
    assert {row.status for row in run.judgements.values()} == {"unanswered"}
    assert results["accuracy,none"] != 0
