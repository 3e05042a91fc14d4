"""Commands with ``--engine ray`` write what they write without it, on the recorded model."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from hound_plugin import cli
from hound_plugin.engines.work import LOCAL
from hound_plugin.errors import MediaError, SettingsError
from hound_plugin.evaluation.prediction import predict_with_model
from hound_plugin.evaluation.run_folder import PREDICTIONS, finish_predictions, freeze_questions
from hound_plugin.evaluation.shards import Shard
from hound_plugin.records.jsonl import read_objects
from hound_plugin.records.questions import read_questions
from hound_plugin.reward.candidates import sample_candidates
from tests.engines.conftest import MakeEngine
from tests.engines.jobs import Echo, Parrot
from tests.evaluation.runs import questions as asked
from tests.evaluation.stand_ins import rows, write_rows
from tests.goldens import ROOT, SFT
from tests.media.clips import encode
from tests.records.servers import ranges

OPTIONS = ["--engine", "ray", "--engine-options", "actors=2", "batch=2"]
ENGINE = ["--engine", "ray", "engine.actors=2", "engine.batch=2"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five clips, of which one is broken, with two questions each in JSON lines and in Parquet."""
    folder = tmp_path_factory.mktemp("clips")
    encode(str(folder / "0.mp4"), 8, 64, 48)
    for name in ("clip_short", "few3"):
        shutil.copytree(ROOT / "frames" / name, folder / name)
    encode(str(folder / "1.mp4"), 10, 48, 64)
    (folder / "broken.mp4").write_bytes((folder / "0.mp4").read_bytes()[:300])
    names = ["0.mp4", "clip_short", "few3", "broken.mp4", "1.mp4"]
    values = [
        {"id": f"{name}/{part}", "video": name, "prompt": f"<video>\nWhat moves in part {part}?", "reference": "A dog."}
        for name in names
        for part in range(2)
    ]
    write_rows(folder / "questions.jsonl", values)
    from hound_plugin.records.parquet import write_parquet

    write_parquet(folder / "questions.parquet", values)
    return folder


def reward_recipe(folder: Path, clips: Path, **changes: Any) -> str:
    sample = {"model": str(SFT), "n": 3, "max_new_tokens": 6, "device": "cpu", "dtype": "float32"}
    values = {
        "folder": str(folder / "run"),
        "questions": str(clips / "questions.jsonl"),
        "media_dir": str(clips),
        "sample": sample,
        "on_bad_rows": "skip",
        "max_bad_rows": 0.3,
        **changes,
    }
    folder.mkdir(exist_ok=True)
    (folder / "reward.yaml").write_text(yaml.safe_dump(values))
    return str(folder / "reward.yaml")


@pytest.mark.long
def test_sampling(cluster: None, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    local = reward_recipe(tmp_path / "local", clips)
    spread = reward_recipe(tmp_path / "ray", clips, questions=str(clips / "questions.parquet"))
    assert cli.main(["reward", "sample", local]) == 0
    assert cli.main(["reward", "sample", spread, *ENGINE]) == 0
    told = capsys.readouterr()
    assert told.err.count("the clips of 2 of 10 questions cannot be read") == 2
    for name in ("candidates.jsonl", "bad_media.jsonl"):
        written = [(tmp_path / kind / "run" / name).read_bytes() for kind in ("local", "ray")]
        assert written[0] == written[1], name
    assert len(rows(tmp_path / "ray" / "run" / "candidates.jsonl")) == 24
    strict = reward_recipe(tmp_path / "strict", clips, on_bad_rows="error")
    assert cli.main(["reward", "sample", strict, *ENGINE]) == 2
    assert "broken.mp4" in capsys.readouterr().err


@pytest.mark.long
def test_predicting_and_captions(cluster: None, clips: Path, tmp_path: Path) -> None:
    recipe = {
        "suite": str(clips / "questions.parquet"),
        "media_dir": str(clips),
        "model": str(SFT),
        "predict": {"max_new_tokens": 6, "batch_size": 2, "device": "cpu", "dtype": "float32"},
    }
    for name, more in (("local", []), ("ray", ENGINE)):
        (tmp_path / f"{name}.yaml").write_text(
            yaml.safe_dump({**recipe, "folder": str(tmp_path / "runs"), "name": name})
        )
        assert cli.main(["eval", "predict", str(tmp_path / f"{name}.yaml"), *more]) == 0
    written = [(tmp_path / "runs" / name / "questions" / PREDICTIONS).read_bytes() for name in ("local", "ray")]
    assert written[0] == written[1]
    assert sum(row["text"] is None for row in rows(tmp_path / "runs" / "ray" / "questions" / PREDICTIONS)) == 2

    command = ["caption", str(clips / "questions.parquet"), "--media-dir", str(clips), "--model", str(SFT)]
    command += ["--max-new-tokens", "6", "--device", "cpu", "--dtype", "float32", "--batch-size", "2", "--out"]
    assert cli.main([*command, str(tmp_path / "local.jsonl")]) == 1
    assert cli.main([*command, str(tmp_path / "ray.parquet"), *OPTIONS]) == 1
    assert list(read_objects(tmp_path / "ray.parquet")) == rows(tmp_path / "local.jsonl")
    assert (tmp_path / "ray.bad.jsonl").read_bytes() == (tmp_path / "local.bad.jsonl").read_bytes()


@pytest.mark.long
def test_validating(cluster: None, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["corpus", "validate", str(clips / "questions.parquet"), "--media-dir", str(clips), "--media", "open"]
    command += ["--kind", "questions", "--report"]
    told = []
    for name, more in (("local", []), ("ray", OPTIONS)):
        assert cli.main([*command, str(tmp_path / f"{name}.jsonl"), *more]) == 1
        told.append(capsys.readouterr().out)
    assert told[0] == told[1]
    assert "10 rows, 2 with problems" in told[0]
    assert (tmp_path / "local.jsonl").read_bytes() == (tmp_path / "ray.jsonl").read_bytes()


@pytest.mark.long
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_rows_behind_a_url(
    cluster: None, clips: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Read from a server by the command, answered on the cluster: what one process makes of the file itself."""
    with ranges(clips) as address:
        url = f"{address}/questions.{kind}"
        recipes = [
            reward_recipe(tmp_path / name, clips, questions=questions)
            for name, questions in (("local", str(clips / "questions.jsonl")), ("ray", url))
        ]
        assert cli.main(["reward", "sample", recipes[0]]) == 0
        assert cli.main(["reward", "sample", recipes[1], *ENGINE]) == 0
        written = [(tmp_path / name / "run" / "candidates.jsonl").read_bytes() for name in ("local", "ray")]
        assert written[0] == written[1]
        predict = {"max_new_tokens": 6, "batch_size": 2, "device": "cpu", "dtype": "float32"}
        values = {"suite": url, "media_dir": str(clips), "model": str(SFT), "folder": str(tmp_path), "name": "run"}
        (tmp_path / "eval.yaml").write_text(yaml.safe_dump({**values, "predict": predict}))
        assert cli.main(["eval", "predict", str(tmp_path / "eval.yaml"), *ENGINE]) == 0
        assert len(rows(tmp_path / "run" / "questions" / PREDICTIONS)) == 10
        command = ["caption", url, "--media-dir", str(clips), "--model", str(SFT), "--max-new-tokens", "6"]
        assert cli.main([*command, "--device", "cpu", "--out", str(tmp_path / "captions.parquet"), *OPTIONS]) == 1
        assert len(list(read_objects(tmp_path / "captions.parquet"))) == 4
        capsys.readouterr()
        report = ["--report", str(tmp_path / "bad.jsonl"), "--kind", "questions", "--media", "open"]
        assert cli.main(["corpus", "validate", url, "--media-dir", str(clips), *report, *OPTIONS]) == 1
        assert "10 rows, 2 with problems" in capsys.readouterr().out


# --- without a model


def question_file(folder: Path, number: int) -> Path:
    (folder / "clip.mp4").write_bytes(b"clip")
    prompt = "<video>\nWhat is number {}?"
    values = [{"id": f"q{n}", "video": "clip.mp4", "prompt": prompt.format(n)} for n in range(number)]
    return write_rows(folder / "questions.jsonl", values)


def test_answers_are_those_of_one_process_in_its_order(ray_engine: MakeEngine, tmp_path: Path) -> None:
    questions = read_questions(question_file(tmp_path, 30), str(tmp_path))
    folders = [tmp_path / name for name in ("local", "ray", "stopped")]
    for folder in folders:
        folder.mkdir()
    whole = sample_candidates(questions, Parrot("r 13?"), folders[0], 4, 0, on_bad_media="skip")
    spread = sample_candidates(questions, Parrot("r 13?"), folders[1], 4, 0, engine=ray_engine(), on_bad_media="skip")
    assert spread == whole
    assert list(spread.broken) == ["q13"]
    with pytest.raises(MediaError, match="it is no clip"):
        sample_candidates(questions, Parrot("r 13?"), folders[2], 4, 0, engine=LOCAL)
    kept = (folders[2] / "candidates.jsonl").read_text().count("\n")
    assert kept == 4 * 13
    rest = sample_candidates(questions, Parrot("r 13?"), folders[2], 4, 0, engine=ray_engine(), on_bad_media="skip")
    assert rest.added == 4 * 29 - kept, "what is there is not sampled again"
    first, *others = [(folder / "candidates.jsonl").read_bytes() for folder in folders]
    assert others == [first, first]


DRIVER = """
import sys
from pathlib import Path
from hound_plugin.engines.ray_data import RayEngine
from hound_plugin.engines.settings import EngineSettings
from hound_plugin.evaluation.prediction import predict_with_model
from hound_plugin.evaluation.shards import Shard
from tests.engines.jobs import Echo
engine = RayEngine(EngineSettings(kind="ray", actors=2, batch=1, object_store=0.1))
predict_with_model(Path(sys.argv[1]), Echo(0.2), 2, Shard(), print, engine=engine)
"""


@pytest.fixture
def of_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where Ray has its folders; sockets are in them, whose paths must be short."""
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp") as folder:
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield Path(folder) / "ray"


@pytest.mark.long
def test_a_killed_driver_leaves_nothing_behind_and_goes_on(tmp_path: Path, of_ray: Path) -> None:
    questions = asked({"s": 60}, per_clip=2)
    folders = [tmp_path / name for name in ("whole", "killed")]
    for folder in folders:
        folder.mkdir()
        freeze_questions(folder, questions)
    predict_with_model(folders[0], Echo(), 2, Shard())
    finish_predictions(folders[0])
    command = [sys.executable, "-c", DRIVER, str(folders[1])]
    driver = subprocess.Popen(command, cwd=ROOT.parents[1])
    deadline = time.monotonic() + 300
    while not (folders[1] / PREDICTIONS).exists() or len(rows(folders[1] / PREDICTIONS)) < 10:
        assert driver.poll() is None
        assert time.monotonic() < deadline, "too slow to begin"
        time.sleep(0.1)
    below = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    _, alive = psutil.wait_procs(below, timeout=240)  # agents look for their parent now and then
    assert not alive, "processes of Ray outlive the driver"
    assert list(of_ray.glob("session_2*")), "its logs stay until the next start"
    kept = rows(folders[1] / PREDICTIONS)
    assert 10 <= len(kept) < len(questions)
    subprocess.run(command, cwd=ROOT.parents[1], check=True, timeout=500)
    assert not list(of_ray.glob("session_2*"))
    assert finish_predictions(folders[1])
    assert rows(folders[1] / PREDICTIONS) == rows(folders[0] / PREDICTIONS)
    assert (folders[1] / PREDICTIONS).read_bytes() == (folders[0] / PREDICTIONS).read_bytes()


def processes_at_work(driver: subprocess.Popen[bytes], folder: Path) -> list[psutil.Process]:
    """The processes of a job, once it has its first predictions."""
    deadline = time.monotonic() + 300
    while not (folder / PREDICTIONS).exists():
        assert driver.poll() is None
        assert time.monotonic() < deadline, "too slow to begin"
        time.sleep(0.1)
    return psutil.Process(driver.pid).children(recursive=True)


@pytest.mark.long
def test_sigterm_ends_it_in_order(tmp_path: Path, of_ray: Path) -> None:
    """As a batch system ends a job: not by Ray's own handler, which prints a stack and aborts."""
    freeze_questions(tmp_path, asked({"s": 400}, per_clip=2))
    command = [sys.executable, "-c", DRIVER, str(tmp_path)]
    with (tmp_path / "told").open("w") as told:
        driver = subprocess.Popen(command, cwd=ROOT.parents[1], stderr=told)
        below = processes_at_work(driver, tmp_path)
        driver.terminate()
        assert driver.wait(timeout=120) == 128 + signal.SIGTERM
    _, alive = psutil.wait_procs(below, timeout=120)
    assert not alive
    text = (tmp_path / "told").read_text()
    assert "SIGTERM received. Finished tasks are kept: start the command again" in text
    assert "***" not in text
    assert rows(tmp_path / PREDICTIONS)


@pytest.mark.long
@pytest.mark.parametrize("part", ["raylet", "gcs_server"])
def test_a_killed_part_of_ray_ends_the_command(part: str, tmp_path: Path, of_ray: Path) -> None:
    freeze_questions(tmp_path, asked({"s": 400}, per_clip=2))
    command = [sys.executable, "-c", DRIVER, str(tmp_path)]
    driver = subprocess.Popen(command, cwd=ROOT.parents[1])
    below = processes_at_work(driver, tmp_path)
    (lost,) = (process for process in below if process.name() == part)
    lost.kill()
    assert driver.wait(timeout=240) != 0
    _, alive = psutil.wait_procs(below, timeout=240)
    assert not alive
    assert rows(tmp_path / PREDICTIONS), "what was done is kept"


# --- what is refused before anything starts


def test_ray_under_torchrun_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    command = ["caption", str(tmp_path), "--model", "m", "--out", str(tmp_path / "o.jsonl"), "--engine", "ray"]
    assert cli.main(command) == 2
    assert "engine.kind: expected local under torchrun (2 processes); got ray" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--engine", "ray", "--engine-options", "actor=2"],
            "--engine-options: actor: unknown key. Did you mean 'actors'",
        ),
        (["--engine", "ray", "--engine-options", "gpus=-1"], "--engine-options: gpus: expected a number of at least 0"),
        (["--engine", "ray", "--engine-options", "gpus=1.5"], "gpus: expected a part of one GPU or a whole number"),
        (["--engine-options", "actors=2"], "--engine-options: expected --engine ray with it"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    tmp_path: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"id": "a"}) + "\n")
    assert cli.main(["corpus", "validate", str(tmp_path / "rows.jsonl"), *options]) == 2
    assert message in capsys.readouterr().err


def test_a_block_in_yaml_is_checked(clips: Path, tmp_path: Path) -> None:
    from hound_plugin.reward.settings import read_settings

    settings = read_settings(reward_recipe(tmp_path, clips), ["engine.kind=ray", "engine.gpus=0.5"])
    assert (settings.engine.kind, settings.engine.gpus, settings.engine.actors) == ("ray", 0.5, 1)
    with pytest.raises(SettingsError, match=r"engine\.adress: unknown key. Did you mean 'address'"):
        read_settings(reward_recipe(tmp_path, clips), ["engine.adress=auto"])
