"""Training through the host's own command, in child processes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from tests.goldens import DPO, SFT, load_arrays, load_json
from tests.host.hosting import cli, history, write_yaml


def train(work: Path, values: dict[str, Any], **extra: str) -> str:
    """Run ``llamafactory-cli train`` on these values; return its output."""
    path = write_yaml(work / f"{Path(values['output_dir']).name}.yaml", values)
    return cli(work, "train", str(path), **extra).stdout


def losses(values: dict[str, Any]) -> list[float]:
    return [row["loss"] for row in history(Path(values["output_dir"])) if "loss" in row]


def trainable(output: str) -> int:
    match = re.search(r"trainable params: ([\d,]+)", output)
    assert match, output[-3000:]
    return int(match.group(1).replace(",", ""))


RECORDED = {
    "sft": ("sft", {}),
    "dpo_gamma0": ("dpo", {"pref_beta": 0.1}),
    "dpo_from_policy_gamma0": ("dpo", {"pref_beta": 0.1, "model_name_or_path": str(DPO), "ref_model": str(SFT)}),
}


@pytest.mark.parametrize("name", RECORDED)
def test_six_steps_follow_the_original(name: str, work: Path, recipe: Any) -> None:
    recorded = load_json("h_training.json")[name]
    stage, changes = RECORDED[name]
    values = recipe(stage, name, **changes)
    output = train(work, values)
    assert trainable(output) == recorded["n_trainable"]
    steps = [row for row in history(Path(values["output_dir"])) if "loss" in row]
    expected = recorded["steps"]
    np.testing.assert_allclose([row["loss"] for row in steps], [row["loss"] for row in expected], atol=1e-4)
    np.testing.assert_allclose([row["grad_norm"] for row in steps], [row["grad_norm"] for row in expected], rtol=1e-3)
    weights = load_file(Path(values["output_dir"]) / "model.safetensors")
    prefix = f"{name}/after/"
    compared = 0
    for key, value in load_arrays("h_training_params.npz").items():
        if key.startswith(prefix):
            from hound_plugin.model.convert import to_ours

            original = key.removeprefix(prefix)
            assert np.abs(weights[to_ours([original])[original]].numpy() - value).max() <= 2e-6, key
            compared += 1
    assert compared or not any(key.startswith(prefix) for key in load_arrays("h_training_params.npz"))


def test_the_stock_trainer_gives_the_recorded_preference_metrics(work: Path, recipe: Any) -> None:
    recorded = load_json("e_dpo.json")["results"]["alpha1.0_gamma0.0"]
    changes = {"per_device_train_batch_size": 4, "max_steps": 1, "model_name_or_path": str(DPO), "ref_model": str(SFT)}
    values = recipe("dpo", "metrics", pref_beta=0.1, **changes)
    train(work, values)
    row = next(row for row in history(Path(values["output_dir"])) if "loss" in row)
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


def test_lora_dpo_needs_no_second_model_and_exports(work: Path, recipe: Any) -> None:
    values = recipe("dpo", "lora", finetuning_type="lora", lora_rank=4, lora_target="all", max_steps=2)
    output = train(work, values)
    assert "Created reference model" not in output
    adapter = load_file(Path(values["output_dir"]) / "adapter_model.safetensors")
    assert adapter
    assert all("language_model" in name for name in adapter)
    first = history(Path(values["output_dir"]))[0]
    assert first["rewards/chosen"] == first["rewards/rejected"] == 0.0, first
    assert abs(first["loss"] - float(np.log(2))) < 1e-5, first
    merged = work / "runs" / "merged"
    export = {
        "model_name_or_path": str(SFT),
        "adapter_name_or_path": values["output_dir"],
        "template": "llava_hound",
        "finetuning_type": "lora",
        "trust_remote_code": False,
        "export_dir": str(merged),
        "export_device": "cpu",
        "infer_dtype": "float32",
    }
    cli(work, "export", str(write_yaml(work / "export.yaml", export)))
    import hound_plugin

    hound = hound_plugin.load(str(merged), device="cpu")
    original = hound_plugin.load(str(SFT), device="cpu")
    merged_weights, base = hound.model.state_dict(), original.model.state_dict()
    assert merged_weights.keys() == base.keys()
    changed = {name for name in base if not base[name].equal(merged_weights[name])}
    assert changed
    assert all("language_model.layers" in name for name in changed)
    assert hound.chat("Hello", temperature=0, max_new_tokens=3) is not None
    # and back to the layout of the original code: the recorded checkpoint's names, shapes and configuration
    from hound_plugin.model.conversion import convert

    convert(str(merged), work / "runs" / "merged-original", to="original", tokenizer=str(SFT), progress=False)
    back = load_file(work / "runs" / "merged-original" / "model.safetensors")
    expected = load_file(SFT / "model.safetensors")
    assert {name: value.shape for name, value in back.items()} == {name: v.shape for name, v in expected.items()}
    assert json.loads((work / "runs" / "merged-original" / "config.json").read_text())["model_type"] == "llava_llama"


@pytest.mark.parametrize(
    ("name", "stage", "changes"),
    [
        ("orpo", "dpo", {"pref_loss": "orpo", "pref_beta": 0.1}),
        ("kto", "kto", {"pref_beta": 0.1}),
    ],
)
def test_other_preference_losses(name: str, stage: str, changes: dict[str, Any], work: Path, recipe: Any) -> None:
    values = recipe(stage, name, max_steps=2, **changes)
    train(work, values)
    assert len(losses(values)) == 2
    assert np.isfinite(losses(values)).all()


def test_predictions_of_the_host_are_the_recorded_answers(work: Path, recipe: Any) -> None:
    from tests.host.hosting import write_dataset

    cases = [c for c in load_json("f_generation.json") if c["model"] == "reference" and c["modal_type"] == "VIDEO"]
    records = [
        {
            "id": str(number),
            "video": case["source"],
            "conversations": [
                {"from": "human", "value": "<video>\n" + case["question"].replace("<video>", "").strip()},
                {"from": "gpt", "value": "x"},
            ],
        }
        for number, case in enumerate(cases)
    ]
    write_dataset(work / "data", "ask", records)
    values = recipe(
        "sft", "predict", eval_dataset="ask", do_predict=True, predict_with_generate=True, max_new_tokens=32
    )
    for name in ("dataset", "do_train", "max_steps"):
        del values[name]
    values.update(per_device_eval_batch_size=2, temperature=None, do_sample=False, top_p=1.0)
    train(work, {key: value for key, value in values.items() if value is not None})
    lines = (Path(values["output_dir"]) / "generated_predictions.jsonl").read_text().splitlines()
    answers = [json.loads(line)["predict"].strip() for line in lines]
    compared = 0
    for case, answer in zip(cases, answers, strict=True):
        if case["question"].strip() == case["question"]:  # training strips a question's spaces, inference does not
            assert answer == case["text"]
            compared += 1
    assert compared >= 2


def test_two_processes_give_the_single_process_losses(work: Path, recipe: Any) -> None:
    # the host takes the mean of the ranks' means, as the original does; accumulation makes the same micro-batches
    single = recipe("sft", "single", max_steps=3, per_device_train_batch_size=2, gradient_accumulation_steps=2)
    double = recipe("sft", "double", max_steps=3, per_device_train_batch_size=2, ddp_find_unused_parameters=False)
    train(work, single)
    train(work, double, FORCE_TORCHRUN="1", NPROC_PER_NODE="2", OMP_NUM_THREADS="1")
    np.testing.assert_allclose(losses(double), losses(single), atol=1e-4)


def test_a_resumed_run_ends_as_an_uninterrupted_one(work: Path, recipe: Any) -> None:
    whole = recipe("dpo", "whole", max_steps=4, pref_beta=0.1, save_strategy="steps", save_steps=2)
    train(work, whole)
    half = Path(whole["output_dir"]) / "checkpoint-2"
    resumed = recipe("dpo", "resumed", max_steps=4, pref_beta=0.1, resume_from_checkpoint=str(half))
    train(work, resumed)
    np.testing.assert_allclose(losses(resumed), losses(whole), atol=1e-6)
    left, right = (load_file(Path(run["output_dir"]) / "model.safetensors") for run in (whole, resumed))
    for name in left:
        assert (left[name] - right[name]).abs().max() <= 1e-6, name


TRAINABLE = {
    "sft": ({}, {"language_model", "lm_head", "multi_modal_projector"}),
    "dpo": ({"freeze_multi_modal_projector": True}, {"language_model", "lm_head"}),
    "towers": (
        {"freeze_vision_tower": False},
        {"language_model", "lm_head", "multi_modal_projector", "image_tower", "video_tower"},
    ),
    "projector only": ({"freeze_language_model": True}, {"multi_modal_projector"}),
    "lora": ({"finetuning_type": "lora", "lora_target": "all"}, {"language_model"}),
    "lora towers": (
        {"finetuning_type": "lora", "lora_target": "all", "freeze_vision_tower": False},
        {"language_model", "image_tower", "video_tower"},
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
