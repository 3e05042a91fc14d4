"""Adapters and folders of models, as a recipe names them; the other options are in ``tests/options``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from llamafactory.hparams import get_infer_args, get_train_args

from hound_plugin.errors import CheckpointError, SettingsError
from hound_plugin.host.trainable_parts import settle_targets
from hound_plugin.model.configuration import LlavaHoundConfig
from hound_plugin.model.modeling import LlavaHoundForConditionalGeneration
from tests.goldens import DPO, SFT


def parse(model: Path | str, adapter: Path | None = None, **changes: Any) -> None:
    values = {"model_name_or_path": str(model), "template": "llava_hound", **changes}
    get_infer_args({**values, "adapter_name_or_path": str(adapter)} if adapter else values)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(SFT), "peft_type": "LORA"}))
    return folder


def test_an_adapter_on_its_base(adapter: Path) -> None:
    parse(SFT, adapter)


def test_an_adapter_on_a_copy_of_its_base(adapter: Path, tmp_path: Path) -> None:
    parse(shutil.copytree(SFT, tmp_path / "moved"), adapter)


def test_an_adapter_on_another_model(adapter: Path) -> None:
    with pytest.raises(SettingsError, match=f"was trained on {SFT}, .*whose weights differ"):
        parse(DPO, adapter)


def test_an_adapter_whose_base_is_not_here(adapter: Path, caplog: pytest.LogCaptureFixture) -> None:
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/other"}))
    with caplog.at_level("WARNING"):
        parse(SFT, adapter)
    assert "was trained on owner/other" in caplog.text


def test_an_adapter_as_the_model(adapter: Path) -> None:
    with pytest.raises(SettingsError, match=f"has only an adapter. Set `adapter_name_or_path: {adapter}`.*{SFT}"):
        parse(adapter)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no model")
    with pytest.raises(SettingsError, match=r"has no config\.json: notes\.txt"):
        parse(tmp_path)


@pytest.mark.parametrize("name", ["./model", "~/model", "saves/a/b", "/no/model", "runs/absent"])
def test_a_path_that_is_not_there(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(SFT, tmp_path / "runs" / "sft")
    with pytest.raises(SettingsError, match="is not a folder on this machine"):
        parse(name)


@pytest.mark.parametrize("name", ["ShareGPTVideo/LLaVA-Hound-DPO", "somebody/llava-hound"])
def test_a_hub_id_beside_a_folder_of_its_owner(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(SFT, tmp_path / "ShareGPTVideo" / "LLaVA-Hound-SFT")
    (tmp_path / "somebody" / "clips").mkdir(parents=True)
    parse(name)


def test_other_models_are_the_hosts_business(adapter: Path) -> None:
    parse(DPO, adapter, template="vicuna", video_maxlen=16)


def test_packages_that_scores_need(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import util

    real = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name in ("jieba", "nltk") else real(name))
    values = {"model_name_or_path": str(SFT), "template": "llava_hound", "stage": "sft", "output_dir": "unused"}
    with pytest.raises(SettingsError, match="pip install jieba nltk"):
        get_train_args({**values, "predict_with_generate": True, "do_predict": True, "eval_dataset": "sft"})


def train(**values: Any) -> None:
    recipe = {"model_name_or_path": str(SFT), "template": "llava_hound", "do_train": True, "report_to": "none"}
    get_train_args({**recipe, "dataset": "sft", "output_dir": "unused", **values})


@pytest.mark.parametrize("below", ["", "checkpoint-40"])
@pytest.mark.parametrize(
    ("kind", "there", "saves"),
    [
        ("full", "adapter_config.json", "config.json"),
        ("freeze", "adapter_config.json", "config.json"),
        ("lora", "config.json", "adapter_config.json"),
    ],
)
def test_a_training_over_another_kind_of_training(
    kind: str, there: str, saves: str, below: str, tmp_path: Path
) -> None:
    """It would end with a model and an adapter in one folder."""
    folder = tmp_path / "out" / below
    folder.mkdir(parents=True)
    given = {"finetuning_type": kind, "output_dir": str(tmp_path / "out"), "overwrite_output_dir": True}
    (folder / there).write_text("{}")
    with pytest.raises(SettingsError, match=f"`output_dir` without {there}.*saves {saves}; found it in {folder}"):
        train(**given)
    (folder / there).rename(folder / saves)  # of an earlier training of this kind
    train(**given)


@pytest.mark.parametrize("key", ["model_name_or_path", "ref_model"])
def test_a_model_with_an_adapter_beside_it(key: str, adapter: Path) -> None:
    shutil.copytree(SFT, adapter, dirs_exist_ok=True)
    with pytest.raises(
        CheckpointError, match=rf"model or an adapter in {adapter}, found both: adapter_config.json and"
    ):
        train(**{"stage": "dpo", key: str(adapter)})


@pytest.mark.parametrize(
    ("stage", "loss", "beta"), [("dpo", "ipo", 0), ("dpo", "hinge", -0.1), ("kto", "sigmoid", 0.0)]
)
def test_a_beta_that_tells_no_answers_apart(stage: str, loss: str, beta: float) -> None:
    with pytest.raises(SettingsError, match="Expected `pref_beta` above 0"):
        train(stage=stage, pref_loss=loss, pref_beta=beta)


def test_a_beta_that_is_only_a_weight() -> None:
    train(stage="dpo", pref_loss="orpo", pref_beta=0)
    train(stage="sft", pref_beta=0)


@pytest.mark.parametrize(
    ("key", "names", "message"),
    [
        ("lora_target", ["all", "q_proj"], "`all` alone"),
        ("lora_target", ["embed_tokens"], "linear layers of the model; got 'embed_tokens'"),
        ("additional_target", ["bogus"], "modules of the model.* got 'bogus'"),
        ("additional_target", ["lm_head", "embed_token"], "got 'embed_token'"),
    ],
)
def test_targets_that_the_model_does_not_have(key: str, names: list[str], message: str) -> None:
    frozen = {"freeze_vision_tower": True, "freeze_multi_modal_projector": True, "freeze_language_model": False}
    chosen = SimpleNamespace(**{"lora_target": ["all"], "additional_target": None, **frozen, key: names})
    with torch.device("meta"):
        model = LlavaHoundForConditionalGeneration(LlavaHoundConfig.from_pretrained(SFT))
    with pytest.raises(SettingsError, match=message):
        settle_targets(model, chosen)
    setattr(chosen, key, ["lm_head"])
    settle_targets(model, chosen)


@pytest.mark.parametrize("with_under", [False, True])
def test_an_adapter_that_was_trained_over_another_one(adapter: Path, tmp_path: Path, with_under: bool) -> None:
    """`create_new_adapter` merges the adapter below, without which the new one means something else."""
    above = tmp_path / "above"
    shutil.copytree(adapter, above)
    (above / "hound_run.json").write_text(json.dumps({"adapters_below": [str(adapter)]}))
    values = {"model_name_or_path": str(SFT), "template": "llava_hound"}
    if with_under:
        get_infer_args({**values, "adapter_name_or_path": f"{adapter},{above}"})
        return
    for wrong in (str(above), f"{above},{adapter}"):
        with pytest.raises(SettingsError, match=f"adapter_name_or_path: {adapter},{above}"):
            get_infer_args({**values, "adapter_name_or_path": wrong})


def test_an_adapter_beside_what_was_trained_in_full_is_refused(adapter: Path, tmp_path: Path) -> None:
    """LLaVA's own trainings write the projector there."""
    part = tmp_path / "part"
    shutil.copytree(adapter, part)
    (part / "non_lora_trainables.bin").write_bytes(b"the projector")
    values = {"model_name_or_path": str(SFT), "template": "llava_hound", "adapter_name_or_path": str(part)}
    with pytest.raises(CheckpointError, match=r"found non_lora_trainables\.bin next to it"):
        get_infer_args(values)
