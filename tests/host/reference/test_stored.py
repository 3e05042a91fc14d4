"""The reference's log-probabilities, computed by the host's own loader and collator in this process."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from llamafactory.hparams import get_train_args

from hound_plugin.errors import CheckpointError, DataError, InUseError, SettingsError
from hound_plugin.host.reference import forward
from hound_plugin.host.reference.command import write_reference
from hound_plugin.host.reference.identity import row_keys
from hound_plugin.model.checkpoint_identity import checkpoint_digests
from hound_plugin.records.files import hold
from tests.goldens import HUB, SFT, rows
from tests.host.hosting import media_folder, write_dataset, write_yaml

HUB_ARGUMENTS: dict[str, Any] = {"cache_dir": None, "revision": "main", "token": None}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def arguments(folder: Path, **changes: Any) -> dict[str, Any]:
    values = {
        "model_name_or_path": str(SFT),
        "stage": "dpo",
        "do_train": True,
        "finetuning_type": "full",
        "dataset": "dpo",
        "dataset_dir": str(folder / "data"),
        "media_dir": str(folder / "media"),
        "template": "llava_hound",
        "cutoff_len": 4096,
        "output_dir": str(folder / "out"),
        "report_to": "none",
        "per_device_train_batch_size": 2,
        "hound": {"reference_log_probs": str(folder / "reference.jsonl")},
    }
    return {**values, **changes}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    write_dataset(tmp_path / "data", "dpo", rows("dpo.jsonl")[:5], ranking=True)
    media_folder(tmp_path / "media")
    return write_yaml(tmp_path / "train.yaml", arguments(tmp_path))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "supervised": ({"stage": "sft"}, "`stage: sft` has no reference"),
    "reward model": ({"stage": "rm"}, "`stage: rm` has no reference"),
    "orpo": ({"pref_loss": "orpo"}, "`pref_loss: orpo` compares with no reference"),
    "simpo": ({"pref_loss": "simpo"}, "`pref_loss: simpo` compares with no reference"),
    "evaluation": ({"do_train": False, "do_eval": True, "eval_dataset": "dpo", "dataset": None}, "is for trainings"),
    "stream": ({"streaming": True, "max_steps": 2}, "set `streaming: false`"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_runs_without_a_fixed_reference_are_refused(name: str, tmp_path: Path) -> None:
    changes, message = REFUSED[name]
    with pytest.raises(SettingsError, match=message):
        get_train_args(arguments(tmp_path, **changes))


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"reference_log_probs": "."}, "expected a file; . is a folder"),
        ({"reference_log_probs": f"{__file__}/file.jsonl"}, "is not there, and cannot be written in .*test_stored.py"),
        ({"reference_log_probs": "r.jsonl", "on_bad_media": "skip"}, "needs `check_media: all`"),
    ],
)
def test_settings_that_cannot_be_followed_are_refused(block: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        get_train_args(arguments(tmp_path, hound=block))


def body(path: Path) -> str:
    return path.read_text().partition("\n")[2]


def test_a_stopped_computation_goes_on_and_ends_as_an_uninterrupted_one(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "reference.jsonl"
    assert write_reference(str(recipe), []) == str(path)
    whole = path.read_bytes()
    assert sorted(item.name for item in tmp_path.glob("reference*")) == ["reference.jsonl"]
    path.unlink()

    batches: list[int] = []
    sums_of = forward.RowSums.__call__

    def stopped(self: Any, batch: dict[str, Any]) -> Any:
        if len(batches) == 2:
            raise KeyboardInterrupt
        batches.append(len(batch["input_ids"]) // 2)
        return sums_of(self, batch)

    monkeypatch.setattr(forward.RowSums, "__call__", stopped)
    with pytest.raises(KeyboardInterrupt):
        write_reference(str(recipe), [])
    assert not path.exists()
    assert batches == [2, 2]
    batches.clear()
    write_reference(str(recipe), [])
    assert batches == [1]  # 5 rows, two at a time
    assert path.read_bytes() == whole
    assert sorted(item.name for item in tmp_path.glob("reference*")) == ["reference.jsonl"]
    batches.clear()
    write_reference(str(recipe), [])
    assert batches == []


def test_rows_are_added_by_the_command_alone(recipe: Path, tmp_path: Path) -> None:
    path = tmp_path / "reference.jsonl"
    write_reference(str(recipe), [])
    before = body(path)
    write_dataset(tmp_path / "data", "dpo", rows("dpo.jsonl")[2:8], ranking=True)
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.model import load_tokenizer

    model, data, training, _, _ = get_train_args(arguments(tmp_path, overwrite_output_dir=True))
    tokens = load_tokenizer(model)
    template = get_template_and_fix_tokenizer(tokens["tokenizer"], data)
    with pytest.raises(DataError, match=r"lacks 3 of the 6 rows of this run, the first of them row 4 \(media"):
        get_dataset(template, model, data, training, stage="rm", **tokens)
    write_reference(str(recipe), [])
    assert body(path).startswith(before)
    assert body(path).count("\n") == 8
    module = get_dataset(template, model, data, training, stage="rm", **tokens)
    assert list(module["train_dataset"]["hound_reference_row"]) == list(range(6))


def test_another_run_that_computes_it_is_waited_for(recipe: Path, tmp_path: Path) -> None:
    with (
        hold(tmp_path / "reference.jsonl.lock"),
        pytest.raises(InUseError, match=r"another run computes .*reference\.jsonl"),
    ):
        write_reference(str(recipe), [])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hound": {}}, "expected the file to write in"),
        ({"template": "vicuna"}, "expected `template: llava_hound`"),
        ({"lora_rnak": 3}, "lora_rnak"),
    ],
)
def test_a_recipe_that_the_command_cannot_use(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        write_reference(str(write_yaml(tmp_path / "bad.yaml", arguments(tmp_path, **changes))), [])


def test_a_missing_recipe(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is not a file"):
        write_reference(str(tmp_path / "none.yaml"), [])


def test_a_forward_pass_alone_is_not_sharded(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.integrations import HfDeepSpeedConfig, is_deepspeed_zero3_enabled
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    config = HfDeepSpeedConfig({"zero_optimization": {"stage": 3}})
    try:
        assert is_deepspeed_zero3_enabled()
        with forward._without_sharding():
            assert not is_deepspeed_zero3_enabled()
            assert "ACCELERATE_USE_FSDP" not in os.environ
        assert is_deepspeed_zero3_enabled()
        assert os.environ["ACCELERATE_USE_FSDP"] == "true"
        assert config.is_zero3()
    finally:
        unset_hf_deepspeed_config()


def test_random_numbers_go_on_as_if_nothing_had_been_computed() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with forward._same_random_numbers():
        torch.rand(5)
    assert torch.equal(torch.rand(2), expected)


# --- content


def dataset(**changes: Any) -> Any:
    from datasets import Dataset

    columns: dict[str, Any] = {
        "chosen_input_ids": [[1, 2, 3, 4]],
        "chosen_labels": [[-100, -100, 3, 4]],
        "rejected_input_ids": [[1, 2, 5]],
        "rejected_labels": [[-100, -100, 5]],
        "videos": [[]],
        "images": [[]],
    }
    return Dataset.from_dict({**columns, **changes})


def key(**changes: Any) -> str:
    return next(row_keys(dataset(**changes), "dpo", {}))


def test_a_key_tells_tokens_labels_and_media(tmp_path: Path) -> None:
    first, second = tmp_path / "first.mp4", tmp_path / "second.mp4"
    first.write_bytes(b"one clip")
    second.write_bytes(b"two clip")
    kinds = [
        key(),
        key(chosen_input_ids=[[1, 2, 3, 5]]),
        key(chosen_labels=[[-100, 2, 3, 4]]),
        key(rejected_input_ids=[[1, 2, 5, 2]], rejected_labels=[[-100, -100, 5, 2]]),
        key(chosen_input_ids=[[1, 2, 5]], chosen_labels=[[-100, -100, 5]],
            rejected_input_ids=[[1, 2, 3, 4]], rejected_labels=[[-100, -100, 3, 4]]),
        key(videos=[[str(first)]]),
        key(videos=[[str(second)]]),
        key(images=[[str(first)]]),
        key(videos=[[str(first), str(second)]]),
        key(videos=[[f"{first}#t=0,1"]]),
    ]  # fmt: skip
    assert len(set(kinds)) == len(kinds)
    moved = tmp_path / "moved.mp4"
    shutil.copy2(first, moved)
    assert key(videos=[[str(moved)]]) == key(videos=[[str(first)]])
    first.write_bytes(b"new clip")
    assert key(videos=[[str(first)]]) not in kinds
    assert key() == key()


def test_media_that_cannot_be_told_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"to tell its rows; got '.*absent.mp4'"):
        key(videos=[[str(tmp_path / "absent.mp4")]])


def test_a_changed_byte_of_any_weight_is_another_checkpoint(tmp_path: Path) -> None:
    model = Path(shutil.copytree(SFT, tmp_path / "model"))
    before = checkpoint_digests(str(model), HUB_ARGUMENTS)
    assert before == checkpoint_digests(str(SFT), HUB_ARGUMENTS)
    assert {"mm_image_tower", "mm_video_tower", "config.json"} < before.keys()
    weights = model / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 3] ^= 1
    weights.write_bytes(content)
    after = checkpoint_digests(str(model), HUB_ARGUMENTS)
    assert [name for name in before if before[name] != after[name]] == ["model.safetensors"]


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    shutil.copy(SFT / "config.json", tmp_path)
    with pytest.raises(CheckpointError, match="found neither"):
        checkpoint_digests(str(tmp_path), HUB_ARGUMENTS)


def test_a_hub_id_is_told_by_its_commit() -> None:
    (name,) = (folder.name for folder in HUB.glob("models--*Image"))
    repository = name.removeprefix("models--").replace("--", "/")
    digest = checkpoint_identity_of(repository)
    assert digest.startswith(f"{repository}@")
    assert len(digest.partition("@")[2]) == 40


def checkpoint_identity_of(repository: str) -> str:
    from hound_plugin.model.checkpoint_identity import _commit

    return _commit(repository, "config.json", {})


def test_values_that_are_not_finite_are_named() -> None:
    values = torch.tensor([[1.0, float("nan")], [2.0, 3.0]]), torch.ones(2, 2, dtype=torch.long)
    places: dict[str, forward.Place] = {"one": (None, 4), "two": (None, 7)}
    with pytest.raises(DataError, match=r"row 7 the log-probabilities \[nan, 3\.0\]"):
        forward._checked(["one", "two"], values, places)
    with pytest.raises(DataError, match="1 of the rows 4, 7 cannot be used"):
        forward._checked(["one", "two"], (values[0][:, :1], values[1][:, :1]), places)
