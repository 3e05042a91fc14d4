"""A stopped training goes on from its last complete checkpoint; what a kill left half-written is passed over."""

from __future__ import annotations

from pathlib import Path

import pytest
from llamafactory.hparams import get_train_args

from tests.goldens import SFT

WHOLE, CUT = '{"global_step": 2}', '{"global_step": 2, "log_hist'


def resumed(folder: Path, template: str = "llava_hound") -> str | None:
    arguments = {"model_name_or_path": str(SFT), "template": template, "stage": "sft", "do_train": True}
    parsed = get_train_args({**arguments, "dataset": "sft", "output_dir": str(folder), "report_to": "none"})
    return parsed[2].resume_from_checkpoint


def checkpoints(folder: Path, states: dict[int, str | None]) -> Path:
    for step, state in states.items():
        checkpoint = folder / f"checkpoint-{step}"
        checkpoint.mkdir()
        (checkpoint / "adapter_model.safetensors").write_bytes(b"weights")
        if state is not None:
            (checkpoint / "trainer_state.json").write_text(state)
    (folder / "checkpoint-last").mkdir()  # not the trainer's
    return folder


@pytest.mark.parametrize(
    ("states", "found"),
    [
        ({2: WHOLE, 4: WHOLE}, 4),
        ({2: WHOLE, 4: None}, 2),
        ({2: WHOLE, 9: WHOLE, 10: CUT}, 9),  # by number, not by name
        ({2: WHOLE, 4: ""}, 2),
        ({2: None, 4: CUT}, None),
        ({}, None),
    ],
)
def test_the_last_complete_checkpoint(tmp_path: Path, states: dict[int, str | None], found: int | None) -> None:
    assert resumed(checkpoints(tmp_path, states)) == (None if found is None else str(tmp_path / f"checkpoint-{found}"))


def test_a_passed_checkpoint_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING"):
        resumed(checkpoints(tmp_path, {2: WHOLE, 4: CUT}))
    assert "checkpoint-4 was not written to its end" in caplog.text
    assert "goes on from " + str(tmp_path / "checkpoint-2") in caplog.text


def test_other_models_keep_the_hosts_choice(tmp_path: Path) -> None:
    assert resumed(checkpoints(tmp_path, {2: WHOLE, 4: None}), "vicuna") == str(tmp_path / "checkpoint-4")
