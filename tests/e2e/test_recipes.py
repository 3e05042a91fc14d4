"""Every training recipe runs on the tiny model, changed only where a machine without GPUs must."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.e2e.together import Outcome, run_together
from tests.goldens import SFT, rows
from tests.host.hosting import REPO, cli, environment, write_dataset

RECIPES = sorted(path for path in (REPO / "examples" / "yaml").glob("hound_*.yaml") if "do_train" in path.read_text())
PREFERENCE_START = float(np.log(2))


def overrides(path: Path, work: Path) -> list[str]:
    """The recipe on recorded data: two steps, fp32, one process, two rows; everything else as it ships."""
    values: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    changes: dict[str, Any] = {
        "model_name_or_path": SFT,
        "dataset": values["stage"] if values["stage"] != "sft" else "sft",
        "dataset_dir": work / "data",
        "media_dir": work / "media",
        "preprocessing_num_workers": 1,
        "dataloader_num_workers": 0,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 1,
        "max_steps": 2,
        "bf16": "false",
        "output_dir": work / "runs" / path.stem,
    }
    if "deepspeed" in values:
        changes["deepspeed"] = "null"  # test_distributed.py runs these
    if "lora_rank" in values:
        changes["lora_rank"] = 4
    return [f"{key}={value}" for key, value in changes.items()]


@pytest.fixture(scope="module")
def ran(work: Path) -> dict[str, Outcome]:
    """All recipes, one after the other in one process."""
    write_dataset(work / "data", "sft", rows("sft.jsonl"))
    return run_together(work, {path.stem: [str(path), *overrides(path, work)] for path in RECIPES})


def test_every_stage_has_a_recipe() -> None:
    names = {path.stem.removeprefix("hound_") for path in RECIPES}
    assert names >= {"pretrain", "sft", "sft_step1", "sft_step2", "dpo", "dpo_lora", "dpo_qlora", "dpo_zero3"}
    assert names >= {"dpo_zero3_offload", "dpo_fsdp2", "kto", "orpo", "simpo"}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_trains(path: Path, ran: dict[str, Outcome]) -> None:
    output, losses = ran[path.stem].folder, ran[path.stem].losses
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    assert (output / "training_loss.png").exists()
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    if values.get("pref_loss") == "sigmoid":
        assert abs(losses[0] - PREFERENCE_START) < 1e-5  # policy and reference begin as the same model
    if values["finetuning_type"] == "lora":
        adapter = json.loads((output / "adapter_config.json").read_text())
        assert "vision" not in json.dumps(adapter["target_modules"])
    else:
        assert json.loads((output / "config.json").read_text())["model_type"] == "llava_hound"


def test_the_recipe_for_4_bits_quantises_the_language_model_alone(work: Path, ran: dict[str, Outcome]) -> None:
    """After the host's own loading every linear layer of the blocks is in 4 bits, and no other."""
    recipe = REPO / "examples" / "yaml" / "hound_dpo_qlora.yaml"
    script = f"""
import sys
sys.argv = ["llamafactory-cli", *{[str(recipe), *overrides(recipe, work)]!r}]
from llamafactory.data import get_template_and_fix_tokenizer
from llamafactory.hparams import get_train_args
from llamafactory.model import load_model, load_tokenizer
model_args, data_args, _, finetuning_args, _ = get_train_args()
tokens = load_tokenizer(model_args)
get_template_and_fix_tokenizer(tokens["tokenizer"], data_args)
model = load_model(tokens["tokenizer"], model_args, finetuning_args, is_trainable=True)
for name, parameter in model.named_parameters():
    state = getattr(parameter, "quant_state", None)
    bits = 8 * parameter.numel() * parameter.itemsize / (parameter.numel() if state is None else state.shape.numel())
    print("PARAMETER", type(parameter).__name__, int(bits), parameter.requires_grad, name)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPO, env=environment(work), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    parameters = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("PARAMETER")]
    assert parameters
    for kind, bits, trained, name in parameters:
        linear = ".language_model.layers." in name and name.endswith("proj.base_layer.weight")
        assert (kind == "Params4bit") == linear, (kind, name)
        assert bits == ("4" if linear else "32"), (bits, name)
        assert (trained == "True") == ("lora_" in name), name


def test_a_missing_flash_attn_is_said(ran: dict[str, Outcome]) -> None:
    pytest.importorskip("torch")
    try:
        import flash_attn  # noqa: F401
    except ImportError:
        assert any("FlashAttention-2 is not installed" in outcome.output for outcome in ran.values())
    else:
        pytest.skip("flash-attn is installed here")


def test_predictions_and_export(work: Path, ran: dict[str, Outcome]) -> None:
    """The recipes that do not train, through the host's command, on what the LoRA recipe has left."""
    write_dataset(work / "data", "held_out", [row for row in rows("sft.jsonl") if "video" in row][:2])
    cli(
        work,
        "train",
        "examples/yaml/hound_predict.yaml",
        f"model_name_or_path={SFT}",
        f"dataset_dir={work / 'data'}",
        f"media_dir={work / 'media'}",
        "eval_dataset=held_out",
        "preprocessing_num_workers=1",
        "dataloader_num_workers=0",
        "max_new_tokens=4",
        f"output_dir={work / 'runs' / 'predict'}",
    )
    lines = (work / "runs" / "predict" / "generated_predictions.jsonl").read_text().splitlines()
    assert [set(json.loads(line)) for line in lines] == [{"prompt", "predict", "label"}] * 2
    merged = work / "runs" / "exported"
    cli(
        work,
        "export",
        "examples/yaml/hound_export.yaml",
        f"model_name_or_path={SFT}",
        f"adapter_name_or_path={work / 'runs' / 'hound_dpo_lora'}",
        f"export_dir={merged}",
    )
    assert json.loads((merged / "config.json").read_text())["model_type"] == "llava_hound"
    assert not (merged / "adapter_config.json").exists()
