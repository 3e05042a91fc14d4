"""LoRA adapters in vLLM: applied as a whole, or refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hound_plugin.errors import CheckpointError
from hound_plugin.model.adapters import chain_of
from hound_plugin.model.checkpoint_conversion import convert
from hound_plugin.model.weights_identity import weights_of
from hound_plugin.processing.processor import LlavaHoundProcessor
from hound_plugin.processing.prompt import SYSTEM
from hound_plugin.vllm.adapters import check_adapter
from tests.vllm.conftest import Demo
from tests.vllm.recording import ADAPTER

PREFIX = "base_model.model.model."
QUERY = f"{PREFIX}language_model.layers.0.self_attn.q_proj.lora_"


def adapter_on(base: Path, folder: Path, **tensors: torch.Tensor) -> Path:
    """The recorded adapter for a model in ``base``, with further tensors by their names."""
    shutil.copytree(ADAPTER, folder)
    (folder / "answers.json").unlink()
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(base)
    (folder / "adapter_config.json").write_text(json.dumps(config))
    weights = folder / "adapter_model.safetensors"
    save_file({**load_file(weights), **tensors}, weights, metadata={"format": "pt"})
    return folder


def with_tower(base: Path, folder: Path) -> Path:
    """One that adapts a tower too, in a layer whose last name the language model has as well."""
    name = f"{PREFIX}video_tower.encoder.layers.0.self_attn.q_proj.lora_"
    return adapter_on(base, folder, **{f"{name}A.weight": torch.ones(2, 96), f"{name}B.weight": torch.ones(96, 2)})


def test_an_adapter_of_the_recipe_passes(demo: Demo, tmp_path: Path) -> None:
    folder = adapter_on(demo.model, tmp_path / "adapter")
    check_adapter(str(folder), None)
    check_adapter(str(folder), SYSTEM)
    other = folder / "adapter_model.safetensors"  # as trained on the language model under its original names
    renamed = {name.replace("language_model.", ""): value for name, value in load_file(other).items()}
    save_file(renamed, other, metadata={"format": "pt"})
    check_adapter(str(folder), SYSTEM)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        (f"{PREFIX}image_tower.encoder.layers.0.self_attn.v_proj.lora_A.weight", r"1 of its 29 .*\(image_tower\)"),
        (f"{PREFIX}video_tower.encoder.layers.1.mlp.fc1.lora_B.weight", "video_tower"),
        (f"{PREFIX}multi_modal_projector.0.weight", "multi_modal_projector"),
        (f"{PREFIX}mm_projector.2.lora_A.weight", "mm_projector"),
        ("base_model.model.lm_head.lora_A.weight", "lm_head"),
        (f"{PREFIX}language_model.embed_tokens.weight", "embed_tokens"),
        (f"{PREFIX}something.else.lora_A.weight", "something.else"),
    ],
)
def test_what_is_outside_the_language_models_layers(name: str, part: str, demo: Demo, tmp_path: Path) -> None:
    folder = adapter_on(demo.model, tmp_path / "adapter", **{name: torch.ones(2, 2)})
    with pytest.raises(CheckpointError, match=f"Expected an adapter of the language model's layers .*{part}"):
        check_adapter(str(folder), None)


def _below(folder: Path) -> None:
    (folder / "hound_run.json").write_text(json.dumps({"adapters_below": ["runs/sft-lora"]}))


def _next_to_it(folder: Path) -> None:
    (folder / "non_lora_trainables.bin").write_bytes(b"projector")


def _system(folder: Path) -> None:
    values = json.loads((folder / "processor_config.json").read_text())
    (folder / "processor_config.json").write_text(json.dumps({**values, "system": "Be brief."}))


def _damage(folder: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes(b"damaged")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_below, "trained on top of runs/sft-lora, and vLLM applies one adapter"),
        (_next_to_it, "found non_lora_trainables.bin next to it"),
        (_system, "trained with the system prompt 'Be brief.', and the model that is served has .A chat"),
        (_damage, "damaged; download it again"),
    ],
)
def test_what_else_vllm_would_leave_out(
    change: Callable[[Path], None], reason: str, demo: Demo, tmp_path: Path
) -> None:
    folder = adapter_on(demo.model, tmp_path / "adapter")
    change(folder)
    with pytest.raises(CheckpointError, match=reason):
        check_adapter(str(folder), SYSTEM)


def test_frames_that_an_adapter_was_not_trained_with(demo: Demo, tmp_path: Path) -> None:
    folder = adapter_on(demo.model, tmp_path / "adapter")
    processor = LlavaHoundProcessor.from_pretrained(str(demo.model))
    served = {"num_frames": processor.num_frames, "frame_sampling": "uniform"}
    check_adapter(str(folder), SYSTEM, None, served)
    processor.num_frames, processor.frame_sampling = 16, "fps"
    processor.save_pretrained(folder)
    check_adapter(str(folder), SYSTEM, None, {"num_frames": 16, "frame_sampling": "fps"})
    with pytest.raises(
        CheckpointError, match=r"`num_frames: 16`, .* has 8 .*--mm-processor-kwargs '\{\"num_frames\": 16"
    ):
        check_adapter(str(folder), SYSTEM, None, served)
    with pytest.raises(CheckpointError, match=r"`frame_sampling: fps`, .* has 'uniform'"):
        check_adapter(str(folder), SYSTEM, None, {**served, "num_frames": 16})


def _elsewhere(demo: Demo, folder: Path, name: str | None = None) -> Path:
    """A copy of the model; other in the tensor of that name."""
    shutil.copytree(demo.model, folder)
    if name is not None:
        weights = load_file(folder / "model.safetensors")
        weights[name] = weights[name] + 0.01
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize(
    "name",
    [
        "lm_head.weight",
        "model.language_model.layers.0.mlp.up_proj.weight",
        "model.multi_modal_projector.0.bias",
        "model.video_tower.encoder.layers.0.mlp.fc1.bias",
    ],
)
def test_an_adapter_of_another_model(name: str, demo: Demo, tmp_path: Path) -> None:
    folder = adapter_on(demo.model, tmp_path / "adapter")
    for same in (demo.model, _elsewhere(demo, tmp_path / "same")):
        check_adapter(str(folder), SYSTEM, str(same))
    other = _elsewhere(demo, tmp_path / "other", name)
    with pytest.raises(CheckpointError, match=f"was trained on {demo.model}, and the model that is served is {other}"):
        check_adapter(str(folder), SYSTEM, str(other))
    convert(str(demo.model), tmp_path / "old", to="original", tokenizer=str(demo.folder / "tokenizer"), progress=False)
    check_adapter(str(folder), SYSTEM, str(tmp_path / "old"))  # the same weights in other files
    gone = adapter_on(tmp_path / "gone", tmp_path / "moved")  # only the note of the training tells
    check_adapter(str(gone), SYSTEM, str(other))
    (gone / "hound_run.json").write_text(json.dumps({"base_weights": weights_of(demo.model)}))
    check_adapter(str(gone), SYSTEM, str(tmp_path / "same"))
    with pytest.raises(CheckpointError, match=f"the weights in {other} are others now"):
        check_adapter(str(gone), SYSTEM, str(other))


def test_our_own_path_takes_no_part_of_a_training_either(demo: Demo, tmp_path: Path) -> None:
    folder = adapter_on(demo.model, tmp_path / "adapter")
    assert chain_of(str(folder)) == (str(demo.model), [str(folder)])
    _next_to_it(folder)
    with pytest.raises(CheckpointError, match=r"merge_lora_weights\.py"):
        chain_of(str(folder))


def test_the_engine_refuses_before_it_starts(demo: Demo, tmp_path: Path) -> None:
    from hound_plugin.vllm.engine import VllmModel

    with pytest.raises(CheckpointError, match=r"2 of its 30 tensors are elsewhere \(video_tower\)"):
        VllmModel(str(with_tower(demo.model, tmp_path / "adapter")), "float32")
