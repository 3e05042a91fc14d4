"""A stopped training resumes from its last complete checkpoint; what a kill left half-written is skipped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from llamafactory.hparams import get_train_args

from hound_plugin.errors import SettingsError
from hound_plugin.host import resume
from tests.goldens import SFT

WHOLE, CUT = '{"global_step": 2}', '{"global_step": 2, "log_hist'


def resumed(folder: Path, template: str = "llava_hound", **changes: object) -> str | None:
    arguments = {**changes, "model_name_or_path": str(SFT), "template": template, "stage": "sft", "do_train": True}
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
    assert "checkpoint-4 is incomplete" in caplog.text
    assert "resumes from " + str(tmp_path / "checkpoint-2") in caplog.text


def test_other_models_keep_the_hosts_choice(tmp_path: Path) -> None:
    assert resumed(checkpoints(tmp_path, {2: WHOLE, 4: None}), "vicuna") == str(tmp_path / "checkpoint-4")


def signed(checkpoint: Path, **changes: object) -> None:
    run = {
        "model_name_or_path": str(SFT), "adapter_name_or_path": None, "stage": "sft", "finetuning_type": "lora",
        "dataset": ["sft"], "ref_model": None,
    }  # fmt: skip
    (checkpoint / "hound_run.json").write_text(json.dumps({**run, **changes}))


def test_a_checkpoint_of_this_run_is_gone_on_from(tmp_path: Path) -> None:
    folder = checkpoints(tmp_path, {2: WHOLE})
    signed(folder / "checkpoint-2")
    assert resumed(folder) == str(folder / "checkpoint-2")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"stage": "dpo"}, "stage: 'dpo' there, 'sft' now"),
        ({"dataset": ["sft", "more"]}, r"dataset: \['sft', 'more'\] there"),
        ({"model_name_or_path": "another"}, "model_name_or_path: 'another' there"),
        ({"finetuning_type": "full"}, "finetuning_type"),
        ({"ref_model": "another"}, "ref_model: 'another' there, None now"),
        ({"max_samples": 40}, "max_samples: 40 there, None now"),
        ({"freeze_vision_tower": False}, "freeze_vision_tower: False there, True now"),
        ({"lora_rank": 64}, "lora_rank: 64 there"),
        ({"pref_loss": "ipo"}, "pref_loss: 'ipo' there"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, changes: dict[str, object], named: str) -> None:
    folder = checkpoints(tmp_path, {2: WHOLE, 4: WHOLE})
    signed(folder / "checkpoint-2")
    signed(folder / "checkpoint-4", **changes)
    with pytest.raises(SettingsError, match=named) as caught:
        resumed(folder)
    assert "resume_from_checkpoint: " + str(folder / "checkpoint-4") in str(caught.value)
    assert resumed(folder, resume_from_checkpoint=str(folder / "checkpoint-4")) == str(folder / "checkpoint-4")


@pytest.mark.parametrize("true", [True, "true", "True"])
def test_true_goes_on_from_the_last_complete_one(tmp_path: Path, true: object) -> None:
    folder = checkpoints(tmp_path, {2: WHOLE, 4: None})
    assert resumed(folder, resume_from_checkpoint=true) == str(folder / "checkpoint-2")


@pytest.mark.parametrize("states", [{}, {2: CUT}])
def test_true_without_a_complete_one_is_refused(tmp_path: Path, states: dict[int, str | None]) -> None:
    with pytest.raises(SettingsError, match="Expected a complete checkpoint in output_dir"):
        resumed(checkpoints(tmp_path, states), resume_from_checkpoint=True)


def test_optimiser_states_are_read_by_two_processes_on_a_cpu(tmp_path: Path) -> None:
    torch.save({"step": torch.arange(3)}, tmp_path / "optimizer.pt")
    resume.read_numbered_cpus()
    found = torch.load(tmp_path / "optimizer.pt", map_location=torch.device("cpu", 1), weights_only=True)
    assert found["step"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(("states", "why"), [({2: CUT}, "missing or cut"), ({}, "no such folder")])
def test_a_named_checkpoint_that_cannot_be_used_is_refused(
    tmp_path: Path, states: dict[int, str | None], why: str
) -> None:
    folder = checkpoints(tmp_path, states)
    with pytest.raises(SettingsError, match=f"complete checkpoint in `resume_from_checkpoint: .*{why}"):
        resumed(folder, resume_from_checkpoint=str(folder / "checkpoint-2"))
