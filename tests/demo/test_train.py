"""The environment of the demo's trainings, and what two of them at once do to each other: nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from hound_plugin.demo import run
from hound_plugin.demo.build import DemoPaths
from hound_plugin.demo.train import SPIN, _environment
from hound_plugin.errors import InUseError
from hound_plugin.records.files import hold
from hound_plugin.records.run_folders import TRAINING_LOCK


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)


def test_threads_sleep_soon_where_cores_are_shared(tmp_path: Path) -> None:
    assert _environment(DemoPaths(tmp_path))["GOMP_SPINCOUNT"] == SPIN


@pytest.mark.parametrize(("name", "value"), [("OMP_WAIT_POLICY", "ACTIVE"), ("GOMP_SPINCOUNT", "5")])
def test_how_threads_wait_is_the_users_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    environment = _environment(DemoPaths(tmp_path))
    assert environment[name] == value
    assert not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} - {name} & set(environment)


def test_a_second_run_leaves_the_first_ones_checkpoints_alone(tmp_path: Path) -> None:
    paths = DemoPaths(tmp_path)
    checkpoint = paths.runs / "sft" / "checkpoint-5"
    checkpoint.mkdir(parents=True)
    with paths.alone(), pytest.raises(InUseError, match="builds or trains the demo"):
        run.run_demo(str(tmp_path))
    assert checkpoint.is_dir()


def test_a_training_that_outlived_its_killed_command_is_left_alone(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint-5"
    checkpoint.mkdir()
    with hold(tmp_path / TRAINING_LOCK), pytest.raises(InUseError, match="A training is still writing"):
        run._remove(tmp_path)
    assert checkpoint.is_dir()
    run._remove(tmp_path)
    assert not tmp_path.exists()
