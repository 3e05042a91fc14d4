"""Two trainings in one ``output_dir`` are refused; reading a recipe locks nothing. ``make test-long`` has real runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from llamafactory.hparams import get_train_args
from llamafactory.train import tuner

from hound_plugin.errors import InUseError
from hound_plugin.host import output_lock
from hound_plugin.records.files import hold
from hound_plugin.records.run_folders import TRAINING_LOCK
from tests.goldens import SFT


def arguments(folder: Path, **changes: Any) -> dict[str, Any]:
    values = {"model_name_or_path": str(SFT), "template": "llava_hound", "stage": "sft", "dataset": "sft"}
    return {**values, "do_train": True, "output_dir": str(folder), "report_to": "none", **changes}


def train(folder: Path, inside: Any = lambda: None, **changes: Any) -> None:
    """The host's function as it is patched, with its arguments parsed and nothing trained."""

    def original(config: dict[str, Any]) -> None:
        get_train_args(config["args"])
        inside()

    output_lock.locked_training(original, {"args": arguments(folder, **changes)})


def test_the_hosts_own_function_is_locked() -> None:
    assert hasattr(tuner._training_function, "_hound_plugin")


@pytest.mark.parametrize("there", [True, False])
def test_a_second_training_is_refused_before_anything_is_loaded(there: bool, tmp_path: Path) -> None:
    folder = tmp_path / "saves" / "run"
    if there:
        (folder / "checkpoint-2").mkdir(parents=True)
    begun = []

    def second() -> None:
        assert (folder / TRAINING_LOCK).exists()
        with pytest.raises(InUseError, match=r"Another training is writing to .*run \(`output_dir`\)\. Wait for it"):
            hold(folder / TRAINING_LOCK, "Another training is writing to run (`output_dir`). Wait for it.")
        begun.append(1)

    train(folder, second)
    assert begun == [1]
    assert not (folder / TRAINING_LOCK).exists()
    folder.mkdir(parents=True, exist_ok=True)
    with (
        hold(folder / TRAINING_LOCK),
        pytest.raises(InUseError, match=r"Another training is writing to .*run \(`output_dir`\)"),
    ):
        train(folder, lambda: begun.append(2))
    assert begun == [1], "it went on"
    train(folder, lambda: begun.append(3))
    assert begun == [1, 3]


def test_other_folders_are_free(tmp_path: Path) -> None:
    with hold(tmp_path / TRAINING_LOCK):
        train(tmp_path / "other")


def test_a_failed_training_frees_its_folder(tmp_path: Path) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(tmp_path, fail)
    train(tmp_path)


def test_reading_a_recipe_locks_nothing(tmp_path: Path) -> None:
    """As the doctor, `hound corpus prepare` and the web UI do beside a training."""
    with hold(tmp_path / TRAINING_LOCK):
        get_train_args(arguments(tmp_path))


def test_only_the_first_process_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with hold(tmp_path / TRAINING_LOCK):
        train(tmp_path)
