"""Folders of LoRA adapters are loaded with the models that they were trained on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from llamafactory.hparams import get_infer_args
from llamafactory.model import load_model, load_tokenizer
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

import hound_plugin
from hound_plugin.errors import CheckpointError
from hound_plugin.model.adapters import BASE_WEIGHTS, BELOW, RUN, check_base, same_weights
from hound_plugin.model.checkpoint_conversion import convert
from hound_plugin.model.seen_frames import seen_frames
from hound_plugin.model.weights_identity import checkpoint_fingerprint, weights_of
from tests.goldens import SFT
from tests.model.batches import sft_batch


def write_adapter(folder: Path, seed: int, *below: Path, **config: Any) -> Path:
    """An adapter with weights that change the answer, trained above others."""
    torch.manual_seed(seed)
    model = base = AutoModelForImageTextToText.from_pretrained(SFT, dtype=torch.float32)
    for other in below:
        model = PeftModel.from_pretrained(model, other).merge_and_unload()
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "up_proj"], **config))
    with torch.no_grad():
        for name, value in adapted.named_parameters():
            if value.requires_grad:
                value.normal_(std=0.2) if "lora_" in name else value.add_(0.1)
    adapted.save_pretrained(folder)
    if below:
        (folder / RUN).write_text(json.dumps({BELOW: [str(other) for other in below]}))
    assert base is not None
    return folder


def logits(model: Any, processor: Any) -> torch.Tensor:
    batch = sft_batch(processor, [0])
    batch.pop("labels")
    with torch.no_grad():
        return model(**batch).logits


@pytest.mark.parametrize("config", [{}, {"modules_to_save": ["multi_modal_projector"]}], ids=["lora", "projector too"])
def test_an_adapter_is_merged_into_its_model(config: dict[str, Any], tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "adapter", 0, **config)
    (folder / "processor_config.json").write_text(json.dumps({"system": "Trained so."}))
    hound = hound_plugin.load(str(folder), device="cpu", dtype="float32")
    plain = AutoModelForImageTextToText.from_pretrained(SFT, dtype=torch.float32)
    bare = logits(plain, hound.processor)
    expected = logits(PeftModel.from_pretrained(plain, folder), hound.processor)
    torch.testing.assert_close(logits(hound.model, hound.processor), expected, rtol=1e-4, atol=1e-4)
    assert (expected - bare).abs().max() > 0.01
    assert hound.processor.system == "Trained so."
    assert hound.chat("What is it?", max_new_tokens=2, temperature=0) is not None


@pytest.mark.parametrize("saved", [{"num_frames": 16, "frame_sampling": "first_10s"}, {"frame_sampling": "fps"}])
def test_an_adapter_sees_the_frames_that_it_was_trained_with(saved: dict[str, Any], tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "adapter", 0)
    settings = {"video_processor": {"video_processor_type": "LlavaHoundVideoProcessor", **saved}}
    (folder / "processor_config.json").write_text(json.dumps(settings))
    hound = hound_plugin.load(str(folder), device="cpu", dtype="float32")
    expected = (saved.get("num_frames", 8), saved["frame_sampling"])
    assert (hound.processor.num_frames, hound.processor.frame_sampling) == expected
    seen = seen_frames(str(folder))
    assert (seen.num_frames, seen.sampling) == expected


def test_adapters_below_it_are_merged_first(tmp_path: Path) -> None:
    first = write_adapter(tmp_path / "first", 1)
    second = write_adapter(tmp_path / "second", 2, first)
    hound = hound_plugin.load(str(second), device="cpu", dtype="float32")
    model = AutoModelForImageTextToText.from_pretrained(SFT, dtype=torch.float32)
    for folder in (first, second):
        model = PeftModel.from_pretrained(model, folder).merge_and_unload()
    torch.testing.assert_close(
        logits(hound.model, hound.processor), logits(model, hound.processor), rtol=1e-4, atol=1e-4
    )
    shutil.rmtree(first)
    with pytest.raises(CheckpointError, match="first had been merged, which is not there"):
        hound_plugin.load(str(second))


@pytest.mark.parametrize("content", ["{}", "[1]", "not JSON"])
def test_an_adapter_that_names_no_model_is_refused(content: str, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "adapter", 3)
    (folder / "adapter_config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"Expected `base_model_name_or_path` in .*adapter_config\.json"):
        hound_plugin.load(str(folder))


def test_one_part_of_a_training_is_refused(tmp_path: Path) -> None:
    """LLaVA's own trainings put what they trained in full into a file beside the adapter."""
    adapter = write_adapter(tmp_path / "adapter", 1)
    (adapter / "non_lora_trainables.bin").write_bytes(b"the projector")
    with pytest.raises(CheckpointError, match=r"found non_lora_trainables\.bin next to it.*merge_lora_weights\.py"):
        hound_plugin.load(str(adapter), "cpu", "float32")


ENTRIES: dict[str, Any] = {
    "from_pretrained": AutoModelForImageTextToText.from_pretrained,
    "hound_plugin.load": hound_plugin.load,
    "convert": lambda folder: convert(folder, folder.with_name("converted")),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_a_folder_with_an_adapter_and_a_model_is_refused(entry: str, tmp_path: Path) -> None:
    folder = shutil.copytree(SFT, tmp_path / "both")
    model = AutoModelForImageTextToText.from_pretrained(SFT)
    get_peft_model(model, LoraConfig(target_modules=["q_proj"])).save_pretrained(folder)
    with pytest.raises(
        CheckpointError, match=r"found both: adapter_config\.json and config\.json.*Move adapter_config"
    ):
        ENTRIES[entry](folder)
    (folder / "non_lora_trainables.bin").touch()  # LLaVA's own, with the model's configuration beside it
    with pytest.raises(CheckpointError, match="merge_lora_weights"):
        ENTRIES[entry](folder)


def test_a_model_is_not_saved_beside_an_adapter(tmp_path: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(SFT)
    model.add_adapter(LoraConfig(target_modules=["q_proj"]))
    model.save_pretrained(tmp_path / "adapter")
    model.save_pretrained(tmp_path / "adapter")  # the adapter alone, again
    other = AutoModelForImageTextToText.from_pretrained(SFT)
    with pytest.raises(CheckpointError, match=r"adapter has adapter_config\.json\. Choose another folder"):
        other.save_pretrained(tmp_path / "adapter")
    assert not (tmp_path / "adapter" / "config.json").exists()


def test_a_damaged_adapter_is_named(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "adapter", 4)
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(CheckpointError, match=r"Cannot read .*adapter_model\.safetensors .*damaged"):
        hound_plugin.load(str(folder))


@pytest.mark.parametrize(("value", "piece"), [(float("nan"), "lora_B"), (float("inf"), "lora_A")])
def test_an_adapter_that_is_not_finite_is_refused(value: float, piece: str, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "adapter", 5)
    weights = load_file(folder / "adapter_model.safetensors")
    name = next(name for name in weights if piece in name and "layers.1" in name and "q_proj" in name)
    weights[name][0, 0] = value
    save_file(weights, folder / "adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r"in the adapter .*adapter, found NaN or infinity in .*layers\.1.*q_proj"
    ):
        hound_plugin.load(str(folder))


def test_a_base_that_was_trained_again(tmp_path: Path) -> None:
    """At the same path, with other weights of the same sizes."""
    base = tmp_path / "base"
    shutil.copytree(SFT, base)
    folder = write_adapter(tmp_path / "adapter", 0)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(base)}))
    (folder / RUN).write_text(json.dumps({BASE_WEIGHTS: weights_of(base)}))
    assert hound_plugin.load(str(folder), device="cpu", dtype="float32").chat("What is it?", max_new_tokens=2)
    file = base / "model.safetensors"
    save_file({name: value + 0.01 for name, value in load_file(file).items()}, file, {"format": "pt"})
    assert file.stat().st_size == (SFT / "model.safetensors").stat().st_size
    with pytest.raises(CheckpointError, match=r"the weights in .*base are others now"):
        hound_plugin.load(str(folder), device="cpu", dtype="float32")


@pytest.mark.parametrize("piece", ["multi_modal_projector", "layers.1.mlp.up_proj", "video_tower", "lm_head"])
@pytest.mark.parametrize("size", [400_000, 40_000_000])
def test_a_model_that_differs_in_a_part_is_another(piece: str, size: int, tmp_path: Path) -> None:
    """A training may change the projector alone, somewhere in a large file."""
    names = [f"layers.{n}.mlp.{kind}_proj" for n in range(4) for kind in ("up", "down")]
    names += ["lm_head", "multi_modal_projector.0", "multi_modal_projector.2", "video_tower.q", "embed"]
    weights = {name: torch.randn(size // 52, generator=torch.Generator().manual_seed(len(name))) for name in names}
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        save_file(weights, tmp_path / folder / "model.safetensors", {"format": "pt"})
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    assert same_weights(one, two)
    assert checkpoint_fingerprint(one) == checkpoint_fingerprint(two)
    changed = {name: value + 0.01 if piece in name else value for name, value in weights.items()}
    save_file(changed, tmp_path / "two" / "model.safetensors", {"format": "pt"})
    assert not same_weights(one, two)
    assert checkpoint_fingerprint(one) != checkpoint_fingerprint(two)


def test_what_earlier_versions_noted_is_still_compared(tmp_path: Path) -> None:
    base, folder = tmp_path / "base", write_adapter(tmp_path / "adapter", 0)
    shutil.copytree(SFT, base)
    note = {BASE_WEIGHTS: weights_of(base, every_tensor=False)}
    assert all(len(identity) == 2 for identity in note[BASE_WEIGHTS].values())
    (folder / RUN).write_text(json.dumps(note))
    check_base(folder, str(base))
    file = base / "model.safetensors"
    save_file({name: value + 0.01 for name, value in load_file(file).items()}, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match="are others now"):
        check_base(folder, str(base))


@pytest.mark.parametrize("content", [b"", b"x" * 9, b"\x05\0\0\0\0\0\0\0[[1]]", b"\x02\0\0\0\0\0\0\0{}", b"\xff" * 40])
def test_a_damaged_file_has_an_identity_too(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    assert weights_of(tmp_path)["model.safetensors"][0] == len(content)


def rename(folder: Path, change: Any) -> None:
    weights = load_file(folder / "adapter_model.safetensors")
    save_file({change(name): value for name, value in weights.items()}, folder / "adapter_model.safetensors")


def in_llava(name: str) -> str:
    return name.replace("model.language_model.layers", "model.layers")


def in_a_wrapper(name: str) -> str:
    return name.replace("base_model.model.", "module.base_model.model.")


def of_a_deeper_model(name: str) -> str:
    return name.replace("layers.2.", "layers.20.")


def through_the_host(folder: Path) -> None:
    arguments = {
        "model_name_or_path": str(SFT), "adapter_name_or_path": str(folder), "template": "llava_hound",
        "infer_backend": "huggingface",
    }  # fmt: skip
    model_args, _, finetuning_args, _ = get_infer_args(arguments)
    load_model(load_tokenizer(model_args)["tokenizer"], model_args, finetuning_args, is_trainable=False)


LOADED: dict[str, Any] = {"load": lambda folder: hound_plugin.load(str(folder)), "host": through_the_host}


@pytest.mark.parametrize("entry", LOADED)
@pytest.mark.parametrize("change", [in_llava, in_a_wrapper, of_a_deeper_model])
def test_tensors_for_parts_that_the_model_lacks(change: Any, entry: str, tmp_path: Path) -> None:
    """PEFT leaves them out, and the model answers as if it had not been trained."""
    folder = write_adapter(tmp_path / "adapter", 6)
    LOADED[entry](folder)
    rename(folder, change)
    with pytest.raises(CheckpointError, match=r"an adapter of this model in .*adapter; \d+ of its \d+ tensors.*layers"):
        LOADED[entry](folder)


@pytest.mark.parametrize("entry", LOADED)
@pytest.mark.parametrize("piece", ["layers.1.mlp.up_proj", "layers.0.self_attn.q_proj.lora_B"])
def test_a_layer_without_its_weights(piece: str, entry: str, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "adapter", 7)
    weights = load_file(folder / "adapter_model.safetensors")
    kept = {name: value for name, value in weights.items() if piece not in name}
    assert len(kept) < len(weights)
    save_file(kept, folder / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=rf"every layer that the adapter .*tensors are missing \(.*{piece}"):
        LOADED[entry](folder)


def test_adapters_that_change_more_than_layers_fit(tmp_path: Path) -> None:
    """Biases, words and parts in full have a place in the model too."""
    configs: list[dict[str, Any]] = [
        {"bias": "all"},
        {"use_dora": True},
        {"trainable_token_indices": [5, 6]},
        {"init_lora_weights": "pissa"},
        {"modules_to_save": ["multi_modal_projector", "embed_tokens"]},
    ]
    for number, config in enumerate(configs):
        folder = write_adapter(tmp_path / str(number), 8, **config)
        assert hound_plugin.load(str(folder)).model is not None


@pytest.mark.parametrize("entry", LOADED)
def test_a_remainder_that_was_not_saved(entry: str, tmp_path: Path) -> None:
    """Loading such an adapter gave another model each time."""
    folder = write_adapter(tmp_path / "adapter", 9, init_lora_weights="pissa_niter_4")
    with pytest.raises(CheckpointError, match=r"pissa_niter_4.*pissa_converted.*pissa_iter: -1"):
        LOADED[entry](folder)
