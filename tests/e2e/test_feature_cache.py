"""Training with features of the towers on disk: the same losses, and no clip is decoded or encoded twice."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from llamafactory.train.tuner import run_exp
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, TrainerCallback

from hound_plugin.errors import SettingsError
from hound_plugin.host import tower_cache
from hound_plugin.model.vision import LlavaHoundTower
from hound_plugin.processing import image_processor, video_processor
from tests.e2e import test_distributed as distributed
from tests.e2e.conftest import recipe_for
from tests.e2e.together import Outcome, train_together
from tests.goldens import DPO
from tests.host.hosting import history, write_dataset

LORA = {"finetuning_type": "lora", "lora_rank": 4, "lora_target": "all"}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "sft, projector trained": ("sft", {"freeze_multi_modal_projector": False, "per_device_train_batch_size": 1}),
    "dpo, evaluated": ("dpo", {**LORA, "eval_dataset": "dpo", "eval_strategy": "epoch"}),
    "dpo, full": ("dpo", {"pref_beta": 0.1}),
    "kto": ("kto", LORA),
    "kto, full": ("kto", {}),
}
LONG = ("dpo, full", "kto", "kto, full")


class Counts(TrainerCallback):
    """What was read and encoded in each epoch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now: Counter[str] = Counter()
        self.epochs: list[Counter[str]] = []
        for owner, name in (
            (video_processor, "read_clip"), (image_processor, "open_image"), (LlavaHoundTower, "features"),
        ):  # fmt: skip
            self._count(monkeypatch, owner, name)

    def _count(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.now[name] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)

    def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        self.epochs.append(self.now.copy())
        self.now.clear()


def train(work: Path, kind: str, name: str, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> tuple[Any, Counts]:
    """Two epochs of the host's own training in this process."""
    stage, values = KINDS[kind]
    changes = {"num_train_epochs": 2, "max_samples": 4, **values, **changes}
    arguments = recipe_for(work)(stage, f"{kind}-{name}".replace(", ", "-").replace(" ", "-"), **changes)
    arguments.pop("max_steps", None)
    with monkeypatch.context() as patch:
        counts = Counts(patch)
        run_exp(arguments, callbacks=[counts])
    tower_cache.reset()
    rows = history(Path(arguments["output_dir"]))
    return [{key: value for key, value in row.items() if "loss" in key or "reward" in key} for row in rows], counts


def check(kind: str, work: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = {"hound": {"feature_cache": str(folder)}}
    plain, without = train(work, kind, "plain", monkeypatch)
    cold, first = train(work, kind, "cold", monkeypatch, **cached)
    warm, second = train(work, kind, "warm", monkeypatch, **cached)
    assert cold == warm, "to the bit"
    for expected, got in zip(plain, cold, strict=True):
        np.testing.assert_allclose(list(got.values()), list(expected.values()), rtol=2e-5, atol=2e-6)
    assert all(count["features"] for count in without.epochs)
    assert first.epochs[0]["features"] == len(list(folder.rglob("*.npy"))) > 0
    assert [*first.epochs[1:], *second.epochs] == [Counter()] * 3


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in LONG])
def test_losses_are_equal_and_nothing_is_encoded_twice(
    kind: str, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(kind, work, tmp_path, monkeypatch)


@pytest.mark.long
@pytest.mark.parametrize("kind", LONG)
def test_more_losses_are_equal(kind: str, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(kind, work, tmp_path, monkeypatch)


def with_file(folder: Path, file: str) -> dict[str, Any]:
    return {"hound": {"feature_cache": str(folder / "features"), "reference_log_probs": str(folder / file)}}


def check_with_reference(kind: str, work: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pass of the reference fills the cache, or reads it; the policy finds everything there."""
    plain, _ = train(work, kind, "reference-plain", monkeypatch)
    cold, first = train(work, kind, "reference-cold", monkeypatch, **with_file(folder, "first.jsonl"))
    again, second = train(work, kind, "reference-again", monkeypatch, **with_file(folder, "second.jsonl"))
    warm, third = train(work, kind, "reference-warm", monkeypatch, **with_file(folder, "second.jsonl"))
    assert cold == again == warm, "to the bit"
    assert (folder / "first.jsonl").read_bytes() == (folder / "second.jsonl").read_bytes()
    for expected, got in zip(plain, cold, strict=True):
        np.testing.assert_allclose(list(got.values()), list(expected.values()), rtol=2e-5, atol=2e-6)
    entries = len(list((folder / "features").rglob("*.npy")))
    assert first.epochs[0]["features"] == entries > 0, "each clip once, for the reference, and not for the policy"
    assert [first.epochs[1], *second.epochs, *third.epochs] == [Counter()] * 5, "decoded or encoded again"


def test_the_reference_file_is_computed_from_cached_features(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_with_reference("dpo, full", work, tmp_path, monkeypatch)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["dpo, evaluated", "kto", "kto, full"])
def test_more_reference_files_are_computed_from_cached_features(
    kind: str, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_with_reference(kind, work, tmp_path, monkeypatch)


@pytest.mark.long
def test_a_reference_with_other_towers_reads_features_of_its_own(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key covers the towers' weights: neither model is given the other's features."""
    other = tmp_path / "other"
    model = AutoModelForImageTextToText.from_pretrained(DPO)
    with torch.no_grad():
        for tower in (model.model.image_tower, model.model.video_tower):
            for parameter in tower.parameters():
                parameter.mul_(1.05)
    model.save_pretrained(other)
    for name in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        if (DPO / name).exists():
            shutil.copy(DPO / name, other)
    file = {"reference_log_probs": str(tmp_path / "pixels.jsonl")}
    pixels, _ = train(work, "dpo, full", "other-pixels", monkeypatch, hound=file, ref_model=str(other))
    cached, counts = train(
        work, "dpo, full", "other-cached", monkeypatch, **with_file(tmp_path, "cached.jsonl"), ref_model=str(other)
    )
    for expected, got in zip(pixels, cached, strict=True):
        np.testing.assert_allclose(list(got.values()), list(expected.values()), rtol=2e-5, atol=2e-6)
    assert counts.epochs[0]["features"] == len(list((tmp_path / "features").rglob("*.npy")))
    assert counts.epochs[1] == Counter()


@pytest.mark.long
@pytest.mark.parametrize("stage", ["sft", "dpo", "kto"])
def test_a_resumed_run_ends_as_an_uninterrupted_one_with_caches_cold_and_warm(
    stage: str, work: Path, tmp_path: Path
) -> None:
    def run(name: str, caches: str) -> dict[str, Any]:
        block = {"feature_cache": str(tmp_path / caches), "frame_cache": str(tmp_path / f"{caches}-frames")}
        values = {"hound": block, "max_steps": 4, "save_strategy": "steps", "save_steps": 2}
        return recipe_for(work)(stage, f"{stage}-caches-{name}", **values)

    whole = train_together(work, {"whole": run("whole", "one")})["whole"]
    again = {"warm": run("warm", "one"), "cold": run("cold", "two")}
    for values in again.values():
        shutil.copytree(whole.folder / "checkpoint-2", Path(values["output_dir"]) / "checkpoint-2")
    for name, outcome in train_together(work, again).items():
        assert len(outcome.steps) == len(whole.steps) == 4
        np.testing.assert_allclose(outcome.losses, whole.losses, atol=1e-6, err_msg=name)
        left, right = (load_file(ended.folder / "model.safetensors") for ended in (whole, outcome))
        for key in left:
            assert (left[key] - right[key]).abs().max() <= 1e-6, (name, key)


def test_a_reference_with_other_towers_is_refused_before_the_first_step(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hound_plugin.host import tower_step

    monkeypatch.setattr(tower_step, "same_towers", lambda *_: False)
    with pytest.raises(SettingsError, match=r"feature_cache: expected a reference model with the policy's towers"):
        train(work, "dpo, full", "refused", monkeypatch, hound={"feature_cache": str(tmp_path)}, ref_model=str(DPO))
    tower_cache.reset()


def test_a_damaged_entry_is_made_again(work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = {"hound": {"feature_cache": str(tmp_path)}, "num_train_epochs": 1}
    kind = "sft, projector trained"
    cold, _ = train(work, kind, "whole", monkeypatch, **cached)
    entries = sorted(tmp_path.rglob("*.npy"))
    kept = [entry.read_bytes() for entry in entries]
    entries[0].write_bytes(kept[0][:500])
    again, counts = train(work, kind, "damaged", monkeypatch, **cached)
    assert again == cold
    assert counts.epochs[0]["features"] == 1
    assert [entry.read_bytes() for entry in entries] == kept


ON_TWO = ("mixed-full", "dpo-full")


@pytest.fixture(scope="module")
def single(work: Path) -> dict[str, Outcome]:
    """The trainings of ``ON_TWO`` in one process, without a cache."""
    write_dataset(work / "data", "mixed", distributed.mixed_rows())
    return train_together(work, distributed.trainings(work, "one", ON_TWO, {"gradient_accumulation_steps": 2}))


@pytest.mark.long
@pytest.mark.parametrize("engine", ["ddp", "zero3", "fsdp2"])
def test_two_processes_share_the_cache_and_give_the_losses_of_one(
    engine: str, work: Path, single: dict[str, Outcome], tmp_path: Path
) -> None:
    """At some step one rank has an image, the other a clip or text alone; one has features, the other pixels."""
    changes = {**distributed.ENGINES[engine], "hound": {"feature_cache": str(tmp_path)}}
    for turn in ("cold", "warm"):
        double = train_together(
            work,
            distributed.trainings(work, f"{engine}-{turn}", ON_TWO, changes),
            command=distributed.launcher(work, engine),
            threads="1",
        )
        for name, outcome in double.items():
            assert "world size: 2" in outcome.output
            expected = single[name].steps
            for key, limits in (("loss", {"atol": 2e-5, "rtol": 0}), ("grad_norm", {"rtol": 1e-4})):
                left, right = ([row[key] for row in run] for run in (outcome.steps, expected))
                np.testing.assert_allclose(left, right, err_msg=f"{engine} {turn} {name} {key}", **limits)
