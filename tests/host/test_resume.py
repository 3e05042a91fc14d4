"""A stopped training resumes from its last complete checkpoint; what a kill left half-written is skipped."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from llamafactory.hparams import get_train_args
from llamafactory.hparams.parser import _TRAIN_ARGS
from safetensors.torch import load_file, save_file

from hound_plugin.errors import SettingsError
from hound_plugin.host import resume, run_identity, settings_state
from tests.goldens import SFT
from tests.host.hosting import write_dataset
from tests.host.test_pipeline import Host

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


# --- settings and rows


def noted(folder: Path, step: int = 2, **changes: object) -> dict[str, Any]:
    """A checkpoint of the run that :func:`resumed` starts, with other values in its note."""
    checkpoints(folder, {step: WHOLE})
    resumed(folder)
    note = {**settings_state.run(), **changes}
    (folder / f"checkpoint-{step}" / "hound_run.json").write_text(json.dumps(note))
    return note


def test_a_checkpoint_of_an_earlier_version_noted_the_default_by_its_name(tmp_path: Path) -> None:
    noted(tmp_path, **{"hound.frame_sampling": "uniform"})
    assert resumed(tmp_path) == str(tmp_path / "checkpoint-2")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"learning_rate": 2e-6}, "learning_rate: 5e-05 there, 2e-06 now"),
        ({"seed": 43}, "seed: 42 there, 43 now"),
        ({"cutoff_len": 4096}, "cutoff_len: 2048 there, 4096 now"),
        ({"hound": {"num_frames": 16}}, "hound.num_frames: None there, 16 now"),
        ({"hound": {"frame_sampling": "fps"}}, "hound.frame_sampling: None there, 'fps' now"),
        ({"lr_scheduler_type": "cosine", "warmup_steps": 10}, "type: 'linear' there, 'cosine' now; warmup"),
        ({"weight_decay": 0.1}, "weight_decay: 0.0 there, 0.1 now"),
        ({"per_device_train_batch_size": 2}, r"per_device_train_batch_size \* .*: 8 there, 2 now"),
        ({"gradient_accumulation_steps": 4}, r"gradient_accumulation_steps \* processes: 8 there, 32 now"),
        ({"lora_alpha": 64}, "lora_alpha: 16 there, 64 now"),
        ({"pref_beta": 0.5}, "pref_beta: 0.1 there, 0.5 now"),
        ({"kto_chosen_weight": 2.0}, "kto_chosen_weight: 1.0 there, 2.0 now"),
        ({"default_system": "Be short."}, "default_system: None there, 'Be short.' now"),
        ({"val_size": 0.2, "eval_strategy": "steps", "eval_steps": 5}, "val_size: 0.0 there, 0.2 now"),
        ({"disable_shuffling": True}, "disable_shuffling: False there, True now"),
    ],
)
def test_a_setting_that_changes_the_run_is_refused(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    noted(tmp_path)
    with pytest.raises(SettingsError, match=named) as caught:
        resumed(tmp_path, **changes)
    assert "Set back what has changed, or choose another `output_dir`" in str(caught.value)
    by_name = str(tmp_path / "checkpoint-2")
    assert resumed(tmp_path, **changes, resume_from_checkpoint=by_name) == by_name


@pytest.mark.parametrize(
    "changes",
    [
        {"save_steps": 7, "save_total_limit": 2},
        {"logging_steps": 1, "run_name": "again"},
        {"num_train_epochs": 9.0},
        {"max_steps": 900},
        {"eval_strategy": "steps", "eval_steps": 5, "eval_dataset": "sft", "per_device_eval_batch_size": 1},
        {"dataloader_num_workers": 2, "preprocessing_num_workers": 2},
        {"hound": {"decoder": "pyav", "on_bad_media": "skip", "prefix_sharing": "off", "check_media": "off"}},
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},  # 8 rows a step, as before
        {"auto_find_batch_size": True},
        {"media_dir": "elsewhere", "plot_loss": True, "disable_gradient_checkpointing": True},
    ],
)
def test_what_does_not_change_the_run_may_change(tmp_path: Path, changes: dict[str, Any]) -> None:
    noted(tmp_path)
    assert resumed(tmp_path, **changes) == str(tmp_path / "checkpoint-2")


def test_other_processes_are_allowed_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    noted(tmp_path, processes=4, rows_a_step=32)
    with caplog.at_level("WARNING"):
        assert resumed(tmp_path, gradient_accumulation_steps=4) == str(tmp_path / "checkpoint-2")
    assert "rows a step" not in caplog.text
    with caplog.at_level("WARNING"):
        assert resumed(tmp_path) == str(tmp_path / "checkpoint-2")
    assert "trained with 32 rows a step on 4 processes, this run has 8 on 1" in caplog.text


def test_a_checkpoint_of_an_earlier_version_resumes_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = checkpoints(tmp_path, {2: WHOLE})
    signed(folder / "checkpoint-2")
    with caplog.at_level("WARNING"):
        assert resumed(folder, learning_rate=1e-3) == str(folder / "checkpoint-2")
    assert caplog.text.count("was saved by an earlier version") == 1


ROWS = [{"id": str(n), "video": "clip_short", "question": f"<video>{n}?", "answer": "A."} for n in range(9)]


def rewritten(file: Path, change: str) -> None:
    lines = file.read_text().splitlines(keepends=True)
    if change == "reversed":
        lines.reverse()
    elif change == "one letter":
        lines[4] = lines[4].replace("4?", "5?")
    elif change == "one more":
        lines.append(lines[0].replace('"0"', '"10"'))
    elif change == "columns":
        info = file.with_name("dataset_info.json")
        info.write_text(info.read_text().replace('"hound"', '"hound", "columns": {"response": "answer"}'))
    status = file.stat()
    file.write_text("".join(lines))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("reversed", "the rows of 'mine', SHA-256 [0-9a-f]{12} there, [0-9a-f]{12} now"),
        ("one letter", "the rows of 'mine', SHA-256"),
        ("one more", "the rows of 'mine', SHA-256"),
        ("columns", "the entry of 'mine' in dataset_info.json, .* there, .*answer.* now"),
    ],
)
def test_rows_that_changed_are_refused(
    tmp_path: Path, change: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    host, output = Host(tmp_path), tmp_path / "out"
    data = write_dataset(tmp_path / "data", "mine", ROWS)
    host.load("sft", "mine")
    output.mkdir(exist_ok=True)
    checkpoints(output, {2: WHOLE})
    (output / "checkpoint-2" / "hound_run.json").write_text(json.dumps(settings_state.run()))
    os.utime(data / "mine.jsonl")
    assert len(host.load("sft", "mine")) == 9  # written again, with the same content
    rewritten(data / "mine.jsonl", change)
    with pytest.raises(SettingsError, match=rf"checkpoint-2 was trained on other rows \({named}"):
        host.load("sft", "mine")
    assert host.load("sft", "mine", resume_from_checkpoint=str(output / "checkpoint-2"))
    assert settings_state.run()["rows"]["mine"]


def test_every_setting_that_is_noted_is_one_of_the_host() -> None:
    known = {field.name for kind in _TRAIN_ARGS for field in dataclasses.fields(kind)}
    named = {*run_identity.NAMED, *run_identity.DATA, *run_identity.OPTIMISER, *run_identity.LOSS}
    assert (named | set(run_identity.WEIGHTS)) - known <= {"warmup_ratio"}  # of other releases of transformers


# --- weights that a training begins with


def weights(folder: Path, name: str, value: float) -> str:
    """A folder with weights of the size of every other one's."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"first": torch.zeros(9), "second": torch.full((9,), value)}, folder / name)
    return str(folder)


@pytest.mark.parametrize("key", ["model_name_or_path", "ref_model", "adapter_name_or_path", "ref_model_adapters"])
def test_weights_that_were_replaced_under_their_path_are_refused(tmp_path: Path, key: str) -> None:
    """A LoRA training went on on other weights than its adapter, and DPO with another reference."""
    kind = "adapter_model.safetensors" if "adapter" in key else "model.safetensors"
    replaced = weights(tmp_path / "replaced", kind, 1.0)
    kept = [weights(tmp_path / f"kept-{number}", kind, 2.0) for number in range(2)]
    named: dict[str, Any] = {
        "adapter_name_or_path": [kept[0], replaced],
        "ref_model_adapters": f"{kept[1]}, {replaced}",
    }
    run = {"model_name_or_path": kept[0], "ref_model": None, key: named.get(key, replaced)}
    before = run_identity.models_of(run, str(tmp_path / "out"))
    note = {run_identity.MODELS: json.loads(json.dumps(before))}
    assert set(before) >= {replaced}
    assert run_identity.changed_models(note, run_identity.models_of(run, str(tmp_path / "out"))) == []
    assert run_identity.changed_models({}, before) == []  # noted by an earlier version
    weights(Path(replaced), kind, 1.5)
    now = run_identity.models_of(run, str(tmp_path / "out"))
    assert run_identity.changed_models(note, now) == [f"the weights in {replaced} were others"]
    assert replaced not in run_identity.models_of(run, replaced)  # the training itself saves there


def test_a_training_does_not_go_on_with_another_model_of_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    host, output = Host(tmp_path), tmp_path / "out"
    model = shutil.copytree(SFT, tmp_path / "model")
    write_dataset(tmp_path / "data", "mine", ROWS)
    begun = {"model_name_or_path": str(model)}
    host.load("sft", "mine", **begun)
    output.mkdir(exist_ok=True)
    checkpoints(output, {2: WHOLE})
    (output / "checkpoint-2" / "hound_run.json").write_text(json.dumps(settings_state.run()))
    assert len(host.load("sft", "mine", **begun)) == 9
    tensors = load_file(model / "model.safetensors")
    tensors["model.mm_projector.0.bias"] += 1e-3
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    with pytest.raises(SettingsError, match=rf"began with another model \(the weights in {model} were others then\)"):
        host.load("sft", "mine", **begun)
    assert host.load("sft", "mine", **begun, resume_from_checkpoint=str(output / "checkpoint-2"))


def edited(file: Path, **values: Any) -> None:
    """JSON with other values, in another layout; None takes a key out."""
    content = {**json.loads(file.read_text()), **values} if file.exists() else values
    gone = {key for key, value in values.items() if value is None}
    file.write_text(json.dumps({key: value for key, value in content.items() if key not in gone}, indent=4))


@pytest.mark.parametrize(
    ("name", "values", "named"),
    [
        ("config.json", {"rms_norm_eps": 0.1}, "config.json in {} was another one"),
        ("config.json", {"image_aspect_ratio": None}, "config.json in {} was another one"),
        ("tokenizer_config.json", {"add_bos_token": False}, "tokenizer_config.json in {} was another one"),
        ("processor_config.json", {"system": "Be short."}, "processor_config.json in {} was not there"),
        ("special_tokens_map.json", None, "special_tokens_map.json was in {}"),
        ("config.json", {"transformers_version": "9.9", "use_cache": False}, None),
        ("config.json", {"text_config": {"_name_or_path": "elsewhere"}}, "config.json in {} was another one"),
        ("generation_config.json", {"temperature": 0.5}, None),
    ],
)
def test_files_beside_the_weights_that_changed_are_refused(
    tmp_path: Path, name: str, values: dict[str, Any] | None, named: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    host, output = Host(tmp_path), tmp_path / "out"
    model = shutil.copytree(SFT, tmp_path / "model")
    write_dataset(tmp_path / "data", "mine", ROWS)
    host.load("sft", "mine", model_name_or_path=str(model))
    output.mkdir(exist_ok=True)
    checkpoints(output, {2: WHOLE})
    (output / "checkpoint-2" / "hound_run.json").write_text(json.dumps(settings_state.run()))
    if values is None:
        (model / name).unlink()
    else:
        edited(model / name, **values)
    if named is None:
        assert len(host.load("sft", "mine", model_name_or_path=str(model))) == 9
        return
    with pytest.raises(SettingsError, match=rf"began with another model \({named.format(model)} then\)"):
        host.load("sft", "mine", model_name_or_path=str(model))


def test_the_scale_of_an_adapter_is_compared(tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    weights(adapter, "adapter_model.safetensors", 1.0)
    edited(adapter / "adapter_config.json", lora_alpha=16, base_model_name_or_path="a")
    run = {"model_name_or_path": "hub/name", "adapter_name_or_path": [str(adapter)]}
    note = {run_identity.MODEL_FILES: run_identity.model_files_of(run, str(tmp_path / "out"))}
    edited(adapter / "adapter_config.json", base_model_name_or_path="b")
    assert run_identity.changed_model_files(note, run_identity.model_files_of(run, str(tmp_path / "out"))) == []
    edited(adapter / "adapter_config.json", lora_alpha=32)
    changed = run_identity.changed_model_files(note, run_identity.model_files_of(run, str(tmp_path / "out")))
    assert changed == [f"adapter_config.json in {adapter} was another one"]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"quantization_bit": 4, "quantization_type": "fp4"}, "quantization_type: 'nf4' there, 'fp4' now"),
        ({"model_revision": "v2"}, "model_revision: 'main' there, 'v2' now"),
        ({"train_from_scratch": True}, "train_from_scratch: False there, True now"),
        ({"average_tokens_across_devices": False}, "average_tokens_across_devices: True there, False now"),
        ({"dataloader_drop_last": True}, "dataloader_drop_last: False there, True now"),
        ({"upcast_layernorm": True}, "upcast_layernorm: False there, True now"),
    ],
)
def test_further_settings_that_change_the_run_are_refused(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    test_a_setting_that_changes_the_run_is_refused(tmp_path, changes, named)
