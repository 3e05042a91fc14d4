"""Training through the host's own command, in child processes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from hound_plugin.errors import CheckpointError
from hound_plugin.model.adapters import BASE_WEIGHTS, RUN
from hound_plugin.model.key_mapping import to_ours
from hound_plugin.model.weights_identity import weights_of
from tests.e2e.conftest import recipe_for
from tests.e2e.together import Outcome, train_together
from tests.goldens import DPO, SFT, assert_close, load_arrays, load_json
from tests.host.hosting import cli, history, write_dataset, write_yaml

WHOLE = load_arrays("h_training_params.npz")


RECORDED = {
    "sft": ("sft", {}),
    "dpo_gamma0": ("dpo", {"pref_beta": 0.1}),
    "dpo_from_policy_gamma0": ("dpo", {"pref_beta": 0.1, "model_name_or_path": str(DPO), "ref_model": str(SFT)}),
}
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "metrics": (
        "dpo",
        {
            "pref_beta": 0.1,
            "per_device_train_batch_size": 4,
            "max_steps": 1,
            "model_name_or_path": str(DPO),
            "ref_model": str(SFT),
        },
    ),
    "lora": ("dpo", {"finetuning_type": "lora", "lora_rank": 4, "lora_target": "all", "max_steps": 2}),
    "orpo": ("dpo", {"pref_loss": "orpo", "pref_beta": 0.1, "max_steps": 2}),
    "kto": ("kto", {"pref_beta": 0.1, "max_steps": 2}),
}


@pytest.fixture(scope="module")
def ran(work: Path) -> dict[str, Outcome]:
    """All trainings of this file, and the predictions, in one process."""
    recipe = recipe_for(work)
    runs = {name: recipe(stage, name, **changes) for name, (stage, changes) in {**RECORDED, **OTHERS}.items()}
    return train_together(work, {**runs, "predict": predicting(work)})


def trainable(output: str) -> int:
    match = re.search(r"trainable params: ([\d,]+)", output)
    assert match, output[-3000:]
    return int(match.group(1).replace(",", ""))


@pytest.mark.parametrize("name", RECORDED)
def test_six_steps_follow_the_original(name: str, ran: dict[str, Outcome]) -> None:
    """Losses, gradient norms and parameters, within the limits that the recordings themselves allow."""
    recorded = load_json("h_training.json")[name]
    assert trainable(ran[name].output) == recorded["n_trainable"]
    steps, expected = ran[name].steps, recorded["steps"]
    assert len(steps) == len(expected) == 6
    np.testing.assert_allclose([row["loss"] for row in steps], [row["loss"] for row in expected], atol=2e-5, rtol=0)
    np.testing.assert_allclose([row["grad_norm"] for row in steps], [row["grad_norm"] for row in expected], rtol=1e-4)


@pytest.mark.parametrize("name", RECORDED)
def test_six_steps_leave_the_parameters_of_the_original(name: str, ran: dict[str, Outcome]) -> None:
    """A step moves a parameter by about 2e-4, so that 2e-6 tells another optimiser, rate or number of steps."""
    assert ran[name].steps
    weights, before = (load_file(path / "model.safetensors") for path in (ran[name].folder, Path(start_of(name))))
    summaries = load_json("h_training.json")[name]["params_after"]
    assert len(summaries) == 10
    for key, recorded in summaries.items():
        after = weights[to_ours([key])[key]]
        assert_close(after.flatten()[:8], recorded["first8"], 2e-6, key)
        if key not in before:  # a frozen tower, which this checkpoint takes from the tower's own files
            assert not recorded["requires_grad"]
            continue
        moved = float((after.double() - before[key].double()).norm())
        if recorded["delta_l2"]:
            np.testing.assert_allclose(moved, recorded["delta_l2"], rtol=1e-3, err_msg=key)
        else:
            assert moved == 0.0, key
    prefix = f"{name}/after/"
    arrays = {key.removeprefix(prefix): value for key, value in WHOLE.items() if key.startswith(prefix)}
    assert len(arrays) == {"sft": 8, "dpo_gamma0": 4, "dpo_from_policy_gamma0": 0}[name]
    for key, value in arrays.items():
        assert_close(weights[to_ours([key])[key]], value, 2e-6, key)


def start_of(name: str) -> str:
    return RECORDED[name][1].get("model_name_or_path", str(SFT))


def test_the_stock_trainer_gives_the_recorded_preference_metrics(ran: dict[str, Outcome]) -> None:
    recorded = load_json("e_dpo.json")["results"]["alpha1.0_gamma0.0"]
    row = ran["metrics"].steps[0]
    assert abs(row["loss"] - recorded["loss"]) <= 2e-5
    for name in ("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins"):
        assert abs(row[name] - recorded[name]) <= 1e-4, name
    for name in ("logps/chosen", "logps/rejected"):
        np.testing.assert_allclose(row[name], recorded[name], rtol=1e-5)


def test_the_real_recipe_runs_on_other_data(work: Path) -> None:
    output = work / "runs" / "recipe"
    cli(
        work,
        "train",
        "examples/yaml/hound_dpo.yaml",
        f"model_name_or_path={SFT}",
        f"dataset_dir={work / 'data'}",
        f"media_dir={work / 'media'}",
        "dataset=dpo",
        "deepspeed=null",
        "bf16=false",
        "preprocessing_num_workers=1",
        "dataloader_num_workers=1",
        "per_device_train_batch_size=2",
        "gradient_accumulation_steps=1",
        "max_steps=2",
        "hound.decoder=pyav",
        f"output_dir={output}",
    )
    rows = [row for row in history(output) if "loss" in row]
    assert abs(rows[0]["loss"] - float(np.log(2))) < 1e-5
    assert (output / "training_loss.png").exists()
    saved = json.loads((output / "config.json").read_text())
    assert saved["model_type"] == "llava_hound"
    assert (output / "processor_config.json").exists()


def test_lora_dpo_needs_no_second_model_and_exports(work: Path, ran: dict[str, Outcome]) -> None:
    lora = ran["lora"]
    first = lora.steps[0]
    assert "Created reference model" not in lora.output
    adapter = load_file(lora.folder / "adapter_model.safetensors")
    assert adapter
    assert all("language_model" in name for name in adapter)
    assert json.loads((lora.folder / RUN).read_text())[BASE_WEIGHTS] == weights_of(SFT)
    assert first["rewards/chosen"] == first["rewards/rejected"] == 0.0, first
    assert abs(first["loss"] - float(np.log(2))) < 1e-5, first
    merged = work / "runs" / "merged"
    export = {
        "model_name_or_path": str(SFT),
        "adapter_name_or_path": str(lora.folder),
        "template": "llava_hound",
        "finetuning_type": "lora",
        "trust_remote_code": False,
        "export_dir": str(merged),
        "export_device": "cpu",
        "infer_dtype": "float32",
    }
    cli(work, "export", str(write_yaml(work / "export.yaml", export)))
    import hound_plugin

    (merged / "tokenizer.json").unlink()
    (merged / "tokenizer.json").mkdir()  # the host warns that it cannot be written, and goes on
    failed = cli(work, "export", str(work / "export.yaml"), check=False)
    assert failed.returncode != 0
    assert "its tokenizer or processor was not saved" in failed.stdout, failed.stdout[-3000:]
    with pytest.raises(CheckpointError, match="being saved there when its process ended"):
        hound_plugin.load(str(merged), device="cpu")
    (merged / "tokenizer.json").rmdir()
    cli(work, "export", str(work / "export.yaml"))
    assert hound_plugin.load(str(lora.folder), device="cpu").chat("Hello", temperature=0, max_new_tokens=3) is not None
    hound = hound_plugin.load(str(merged), device="cpu")
    original = hound_plugin.load(str(SFT), device="cpu")
    merged_weights, base = hound.model.state_dict(), original.model.state_dict()
    assert merged_weights.keys() == base.keys()
    changed = {name for name in base if not base[name].equal(merged_weights[name])}
    assert changed
    assert all("language_model.layers" in name for name in changed)
    assert hound.chat("Hello", temperature=0, max_new_tokens=3) is not None
    # and back to the layout of the original code: the recorded checkpoint's names, shapes and configuration
    from hound_plugin.model.checkpoint_conversion import convert

    convert(str(merged), work / "runs" / "merged-original", to="original", tokenizer=str(SFT), progress=False)
    back = load_file(work / "runs" / "merged-original" / "model.safetensors")
    expected = load_file(SFT / "model.safetensors")
    assert {name: value.shape for name, value in back.items()} == {name: v.shape for name, v in expected.items()}
    assert json.loads((work / "runs" / "merged-original" / "config.json").read_text())["model_type"] == "llava_llama"


@pytest.mark.parametrize("name", ["orpo", "kto"])
def test_other_preference_losses(name: str, ran: dict[str, Outcome]) -> None:
    assert len(ran[name].losses) == 2
    assert np.isfinite(ran[name].losses).all()


def cases() -> list[dict[str, Any]]:
    recorded = load_json("f_generation.json")
    return [case for case in recorded if case["model"] == "reference" and case["modal_type"] == "VIDEO"]


def predicting(work: Path) -> dict[str, Any]:
    """Arguments that have the recorded questions answered."""
    records = [
        {
            "id": str(number),
            "video": case["source"],
            "conversations": [
                {"from": "human", "value": "<video>\n" + case["question"].replace("<video>", "").strip()},
                {"from": "gpt", "value": "x"},
            ],
        }
        for number, case in enumerate(cases())
    ]
    write_dataset(work / "data", "ask", records)
    values = recipe_for(work)(
        "sft", "predict", eval_dataset="ask", do_predict=True, predict_with_generate=True, max_new_tokens=32
    )
    for name in ("dataset", "do_train", "max_steps"):
        del values[name]
    return {**values, "per_device_eval_batch_size": 2, "do_sample": False, "top_p": 1.0}


def test_predictions_of_the_host_are_the_recorded_answers(ran: dict[str, Outcome]) -> None:
    assert not ran["predict"].failed, ran["predict"].output[-5000:]
    lines = (ran["predict"].folder / "generated_predictions.jsonl").read_text().splitlines()
    answers = [json.loads(line)["predict"].strip() for line in lines]
    compared = 0
    for case, answer in zip(cases(), answers, strict=True):
        if case["question"].strip() == case["question"]:  # training strips a question's spaces, inference does not
            assert answer == case["text"]
            compared += 1
    assert compared >= 2


TRAINABLE = {
    "sft": ({}, {"language_model", "lm_head", "multi_modal_projector"}),
    "dpo": ({"freeze_multi_modal_projector": True}, {"language_model", "lm_head"}),
    "towers": (
        {"freeze_vision_tower": False},
        {"language_model", "lm_head", "multi_modal_projector", "image_tower", "video_tower"},
    ),
    "projector only": ({"freeze_language_model": True}, {"multi_modal_projector"}),
    "lora": ({"finetuning_type": "lora", "lora_target": "all"}, {"language_model", "multi_modal_projector"}),
    "lora towers": (
        {"finetuning_type": "lora", "lora_target": "all", "freeze_vision_tower": False},
        {"language_model", "multi_modal_projector", "image_tower", "video_tower"},
    ),
}


@pytest.mark.parametrize("name", TRAINABLE)
def test_what_is_trained(name: str, recipe: Any) -> None:
    from llamafactory.data import get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_model, load_tokenizer

    changes, expected = TRAINABLE[name]
    values = recipe("sft", "parts", freeze_multi_modal_projector=False)
    model_args, data_args, _, finetuning_args, _ = get_train_args({**values, **changes})
    tokens = load_tokenizer(model_args)
    get_template_and_fix_tokenizer(tokens["tokenizer"], data_args)
    model = load_model(tokens["tokenizer"], model_args, finetuning_args, is_trainable=True)
    names = [parameter for parameter, value in model.named_parameters() if value.requires_grad]
    parts = ("language_model", "lm_head", "multi_modal_projector", "image_tower", "video_tower")
    assert {part for parameter in names for part in parts if part in parameter} == expected
    last = model.config.video_tower_config.num_hidden_layers - 1
    if "video_tower" in expected:  # nor adapters on blocks that never run: distributed training would wait for them
        assert not [parameter for parameter in names if f"video_tower.encoder.layers.{last}." in parameter]


def test_disabled_the_host_knows_nothing_of_us(work: Path, recipe: Any) -> None:
    path = write_yaml(work / "disabled.yaml", recipe("sft", "disabled", max_steps=1))
    result = cli(work, "train", str(path), check=False, HOUND_PLUGIN_DISABLE="1")
    assert result.returncode != 0
    assert "llava_hound" in result.stdout or "llava_llama" in result.stdout


def test_a_checkpoint_of_another_architecture_is_named(work: Path, recipe: Any, tmp_path: Path) -> None:
    other = tmp_path / "llava"
    other.mkdir()
    config = json.loads((SFT / "config.json").read_text())
    for key in ("mm_image_tower", "mm_video_tower"):
        del config[key]
    (other / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.model", "tokenizer_config.json"):
        (other / name).write_bytes((SFT / name).read_bytes())
    path = write_yaml(work / "other.yaml", recipe("sft", "other", model_name_or_path=str(other)))
    result = cli(work, "train", str(path), check=False)
    assert result.returncode != 0
    assert "mm_image_tower and mm_video_tower are missing" in result.stdout
    assert "SettingsError: `template: llava_hound`" in result.stdout
    assert "Traceback" not in result.stdout
    path = write_yaml(work / "other-debug.yaml", recipe("sft", "other", video_fps=1.0))
    result = cli(work, "train", str(path), check=False, HOUND_DEBUG="1")
    assert "Traceback" in result.stdout
    assert "SettingsError: Expected `video_fps`" in result.stdout
