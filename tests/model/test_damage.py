"""Checkpoints with something missing, of another shape or out of all reason are refused at every entry."""

from __future__ import annotations

import json
import shutil
import time
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
import torch
from llamafactory.hparams import get_train_args
from safetensors.torch import load_file, save_file
from transformers import BitsAndBytesConfig

import hound_plugin
from hound_plugin.errors import CheckpointError
from hound_plugin.model import checkpoint, pretrained
from hound_plugin.model.checkpoint_conversion import convert
from hound_plugin.model.checkpoint_files import UNFINISHED
from hound_plugin.model.completeness import is_finite
from hound_plugin.model.modeling import LlavaHoundForConditionalGeneration, LlavaHoundModel
from tests.goldens import SFT
from tests.model.test_checkpoint_conversion import copy_of, tensors

DAMAGE: dict[str, tuple[Any, str]] = {
    "a list as config": (lambda f: (f / "config.json").write_text("[1, 2]"), "JSON object|cannot be read"),
    "half a config": (lambda f: (f / "config.json").write_text('{"model_type": '), "JSON|cannot be read"),
    "negative layers": (lambda f: edit(f, num_hidden_layers=-3), "num_hidden_layers of the text_config.*-3"),
    "ten million layers": (lambda f: edit(f, num_hidden_layers=10**7), "from 1 to 1024, found 10000000"),
    "layers as text": (lambda f: edit(f, num_hidden_layers="2"), "num_hidden_layers"),
    "no patch": (lambda f: edit(f, "video_tower_config", patch_size=0), "patch_size of the video_tower_config.* 0"),
    "an odd patch": (lambda f: edit(f, "image_tower_config", patch_size=13), "multiple of patch_size"),
    "more heads": (lambda f: edit(f, num_attention_heads=5), "multiple of.*num.* heads|num_attention_heads"),
    "a wider model": (lambda f: edit(f, intermediate_size=96), "have another shape .*mlp"),
    "another layer": (
        lambda f: edit(f, num_hidden_layers=4),
        r"9 keys are missing \(model\.language_model\.layers\.3\.",
    ),
    "a layer less": (lambda f: edit(f, num_hidden_layers=1), "are unexpected"),
    "temporal attention gone": (lambda f: without(f, "temporal"), "keys are missing .*temporal"),
    "the projector gone": (
        lambda f: without(f, "multi_modal_projector"),
        r"4 keys are missing .*multi_modal_projector",
    ),
    "one bias gone": (lambda f: without(f, "image_tower.encoder.layers.0.mlp.fc1.bias"), "1 keys are missing"),
    "no head, and only the text model says that it is tied": (
        lambda f: (without(f, "lm_head"), edit(f, tie_word_embeddings=True)),
        r"1 keys are missing \(lm_head\.weight\)",
    ),
    "a stale copy of a tensor": (lambda f: twice(f), r"Expected each tensor in one file; .*b\.safetensors has 2 "),
    "an index that leaves": (lambda f: outside(f), r"index names \.\."),
    "a projector without end": (lambda f: edit(f, None, mm_projector_type="mlp99999999x_gelu"), "N from 1 to 99"),
    "a projector as number": (lambda f: edit(f, None, mm_projector_type=3), "mm_projector_type"),
    "no layer selected": (lambda f: edit(f, None, mm_vision_select_layer=None), "mm_vision_select_layer"),
    "one id for both": (lambda f: edit(f, None, image_token_id=258, video_token_id=258), "two different numbers"),
    "a text as tower": (lambda f: edit(f, None, video_tower_config="large"), "video_tower_config as an object"),
    "heads without width": (lambda f: edit(f, head_dim=0), "head_dim of the text_config"),
    "heads of negative width": (lambda f: edit(f, head_dim=-16), "head_dim of the text_config"),
    "an unknown function": (lambda f: edit(f, "video_tower_config", hidden_act="nope"), "hidden_act of the video"),
    "a norm without a number": (lambda f: edit(f, "image_tower_config", layer_norm_eps=float("nan")), "layer_norm_eps"),
    "a negative norm": (lambda f: edit(f, "video_tower_config", layer_norm_eps=-1), "layer_norm_eps"),
    "unknown positions": (lambda f: edit(f, rope_parameters={"rope_type": "bogus"}), "rope_type of the text_config"),
    "negative positions": (
        lambda f: edit(f, rope_parameters={"rope_type": "default", "rope_theta": -5}),
        "rope_theta of the text_config",
    ),
    "padding outside": (lambda f: edit(f, pad_token_id=9999), "pad_token_id of the text_config"),
    "whole numbers as weights": (lambda f: cast(f, torch.int8), "floating-point numbers .*int8|floating-point .*I8"),
    "truth values as weights": (lambda f: cast(f, torch.bool), "floating-point numbers"),
    "a weight that is no number": (lambda f: put(f, nan, "lm_head.weight"), r"NaN or infinity in lm_head\.weight\."),
    "infinity in a tower": (
        lambda f: put(f, inf, "video_tower.encoder.layers.1.temporal_attn.q_proj.bias"),
        r"NaN or infinity in model\.video_tower.*\.encoder\.layers\.1\.temporal_attn\.q_proj\.bias\.",
    ),
    "minus infinity in half": (
        lambda f: put(f, -inf, "norm.weight", "fc1.weight", "projector.2.bias", dtype=torch.bfloat16),
        r"finite weights in .*found NaN or infinity in .*fc1\.weight, .* more\.",
    ),
    "a hole in an embedding": (lambda f: fill(f, "embed_tokens.weight"), r"but zeros in .*embed_tokens.* has a hole"),
    "a hole over layers": (
        lambda f: fill(f, "language_model.layers.1."),
        r"nothing but zeros in .*layers\.1\.mlp\.gate_proj\.weight, .*k_proj\.weight, .*q_proj\.weight",
    ),
    "a hole in a tower": (lambda f: fill(f, "video_tower.encoder.layers.0.mlp"), r"but zeros in .*video.*fc1\.weight"),
    "an index that is a list": (lambda f: index(f, []), "weight_map"),
    "an index of nothing": (lambda f: index(f, {}), "weight_map"),
    "an index of numbers": (lambda f: index(f, {"lm_head.weight": 3}), "weight_map"),
    "a list as generation": (lambda f: (f / "generation_config.json").write_text("[]"), "JSON object"),
    "half a generation": (lambda f: (f / "generation_config.json").write_text('{"a'), "Expected JSON"),
    "a negative temperature": (lambda f: generation(f, temperature=-1), "at least 0 for temperature in .*found -1"),
    "a temperature in words": (lambda f: generation(f, temperature="hot"), "temperature in .*found 'hot'"),
    "no temperature to sample by": (lambda f: generation(f, temperature=0), "above 0 beside do_sample"),
    "more than all of the mass": (lambda f: generation(f, top_p=2), "from 0 to 1 for top_p"),
    "a penalty of nothing": (lambda f: generation(f, repetition_penalty=0), "above 0 for repetition_penalty"),
    "no beams": (lambda f: generation(f, num_beams=0), "at least 1 for num_beams"),
    "answers of no length": (lambda f: generation(f, max_new_tokens=-3), "at least 1 for max_new_tokens"),
    "an end that is a text": (lambda f: generation(f, eos_token_id="x"), "ids of tokens for eos_token_id"),
    "perhaps sampling": (lambda f: generation(f, do_sample="maybe"), "true or false for do_sample"),
    "a save that was killed": (lambda f: (f / UNFINISHED).touch(), "being saved there when its process ended"),
    "an older index": (lambda f: shards_beside(f), r"has model\.safetensors, and .*index\.json names other files"),
    "other weights in the other format": (
        lambda f: bin_beside(f, lambda tensor: tensor + 0.01),
        r"\d+ tensors differ between its safetensors and its \.bin files, such as ",
    ),
    "one tensor of another model in the other format": (
        lambda f: bin_beside(f, lambda tensor: -tensor, "layers.1.self_attn.q_proj.weight"),
        r"3 tensors differ between .*layers\.1\.self_attn\.q_proj",
    ),
    "a shard gone": (lambda f: shard_gone(f), r"1 missing file\(s\)|all files of the checkpoint are there"),
}


def edit(folder: Path, part: str | None = "text_config", **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (config if part is None else config[part]).update(values)
    (folder / "config.json").write_text(json.dumps(config))


def generation(folder: Path, **values: Any) -> None:
    (folder / "generation_config.json").write_text(json.dumps({"do_sample": True, **values}))


def without(folder: Path, piece: str) -> None:
    held = tensors(folder)
    kept = {name: tensor for name, tensor in held.items() if piece not in name}
    assert kept.keys() != held.keys()
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


def cast(folder: Path, dtype: torch.dtype) -> None:
    held = tensors(folder)
    held["lm_head.weight"] = held["lm_head.weight"].to(dtype)
    save_file(held, folder / "model.safetensors", {"format": "pt"})


def put(folder: Path, value: float, *pieces: str, dtype: torch.dtype | None = None) -> None:
    """One such number into every tensor that has one of the pieces in its name."""
    held = {name: tensor.to(dtype) if dtype else tensor for name, tensor in tensors(folder).items()}
    chosen = [name for name in held if any(piece in name for piece in pieces)]
    assert chosen
    for name in chosen:
        held[name].view(-1)[-1] = value
    save_file(held, folder / "model.safetensors", {"format": "pt"})


def fill(folder: Path, piece: str) -> None:
    """Zeros over neighbouring tensors, as a hole of a download leaves them."""
    held = tensors(folder)
    chosen = [name for name in held if piece in name]
    assert chosen
    save_file(held | {name: torch.zeros_like(held[name]) for name in chosen}, folder / "model.safetensors")


def index(folder: Path, weights: Any) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weights}))


def shard_gone(folder: Path) -> None:
    names = list(tensors(folder))
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    weights = {name: f"model-0000{1 + (name == names[-1])}-of-00002.safetensors" for name in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weights}))


def shards_beside(folder: Path) -> None:
    shutil.copy(folder / "model.safetensors", folder / "model-00001-of-00001.safetensors")
    weights = dict.fromkeys(tensors(folder), "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weights}))


def twice(folder: Path) -> None:
    """Two shards, of which the second also has tensors that the index says are in the first."""
    weights = tensors(folder)
    names = sorted(weights)
    first, second = ({name: weights[name] for name in part} for part in (names[::2], names[1::2]))
    index = {
        "metadata": {},
        "weight_map": dict.fromkeys(first, "a.safetensors") | dict.fromkeys(second, "b.safetensors"),
    }
    stale = {name: tensor + 1 for name, tensor in list(first.items())[3:5]}
    save_file(first, folder / "a.safetensors", {"format": "pt"})
    save_file(second | stale, folder / "b.safetensors", {"format": "pt"})
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def bin_beside(folder: Path, change: Any, piece: str = "") -> None:
    """The same weights in the older format too, with other numbers in some."""
    weights = {name: change(tensor) if piece in name else tensor for name, tensor in tensors(folder).items()}
    torch.save(weights, folder / "pytorch_model.bin")


def outside(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "elsewhere.safetensors")
    names = load_file(folder.parent / "elsewhere.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "../elsewhere.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.fixture(scope="module")
def in_our_layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ours") / "model"
    convert(str(SFT), folder, progress=False)
    return folder


ENTRIES: dict[str, Any] = {
    "from_pretrained": LlavaHoundForConditionalGeneration.from_pretrained,
    "load": lambda folder: hound_plugin.load(str(folder)),
    "convert": lambda folder: convert(str(folder), folder.parent / "back", to="original", progress=False),
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_is_refused_at_every_entry(
    name: str, entry: str, in_our_layout: Path, tmp_path: Path
) -> None:
    damage, message = DAMAGE[name]
    folder = copy_of(in_our_layout, tmp_path / "model")
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        ENTRIES[entry](folder)
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("layout", ["safetensors", "bin"])
def test_an_original_checkpoint_that_is_not_finite(layout: str, tmp_path: Path) -> None:
    """It is read through the table of keys, and refused by our names."""
    folder = copy_of(SFT, tmp_path / "model")
    put(folder, nan, "embed_tokens", "mm_projector.0.weight")
    if layout == "bin":
        torch.save(tensors(folder), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    message = r"in model\.language_model\.embed_tokens\.weight, model\.multi_modal_projector\.0\.weight\."
    for enter in (LlavaHoundForConditionalGeneration.from_pretrained, lambda path: hound_plugin.load(str(path))):
        with pytest.raises(CheckpointError, match=message):
            enter(folder)
    with pytest.raises(CheckpointError, match=message):
        convert(str(folder), tmp_path / "ours", progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"], "nothing is left behind"
    without_head = r"in language_model\.embed_tokens\.weight, multi_modal_projector\.0\.weight"
    with pytest.raises(CheckpointError, match=without_head):
        LlavaHoundModel.from_pretrained(folder)


def test_weights_are_looked_at_before_they_lose_bits(in_our_layout: Path, tmp_path: Path) -> None:
    """Numbers of 4 bits are never NaN."""
    folder = copy_of(in_our_layout, tmp_path / "model")
    put(folder, nan, "layers.0.mlp.up_proj")
    few = BitsAndBytesConfig(load_in_4bit=True)
    with pytest.raises(CheckpointError, match=r"NaN or infinity in model\.language_model\.layers\.0\.mlp\.up_proj"):
        LlavaHoundForConditionalGeneration.from_pretrained(folder, quantization_config=few)


def test_weights_are_looked_at_before_zero_splits_them(
    in_our_layout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_of(in_our_layout, tmp_path / "model")
    put(folder, inf, "layers.1.mlp.up_proj")
    monkeypatch.setattr(checkpoint, "is_deepspeed_zero3_enabled", lambda: True)
    monkeypatch.setattr(pretrained, "check_finite", lambda *_: None)
    with pytest.raises(CheckpointError, match=r"NaN or infinity in model\.language_model\.layers\.1\.mlp\.up_proj"):
        LlavaHoundForConditionalGeneration.from_pretrained(folder)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn])
@pytest.mark.parametrize("size", [1, 7, 4096, 100_003])
def test_a_number_that_is_not_finite_is_found_anywhere(size: int, dtype: torch.dtype) -> None:
    tensor = torch.linspace(-400, 400, size).to(dtype)
    assert is_finite(tensor)
    values = [nan] if dtype == torch.float8_e4m3fn else [nan, inf, -inf]
    for place in {0, size // 2, size - 1}:
        for value in values:
            bad = tensor.clone()
            bad[place] = value
            assert not is_finite(bad), (place, value)


def test_tensors_without_numbers_to_look_at_pass() -> None:
    for tensor in (torch.empty(0), torch.tensor([3]), torch.empty(3, device="meta"), torch.tensor([True])):
        assert is_finite(tensor)


def test_looking_costs_less_than_reading() -> None:
    """0.06 s a GB on an idle core, where reading takes 0.3 s and more; the limit is for a loaded one."""
    tensor = torch.ones(50_000_000, dtype=torch.bfloat16)  # 0.1 GB
    began = time.process_time()
    assert is_finite(tensor)
    assert time.process_time() - began < 0.1


def test_a_broken_tokenizer_is_named(in_our_layout: Path, tmp_path: Path) -> None:
    folder = copy_of(in_our_layout, tmp_path / "model")
    (folder / "tokenizer.json").write_text('{"version": "1.0", "model": {}}')
    with pytest.raises(CheckpointError, match=r"The tokenizer of the checkpoint .* cannot be read"):
        hound_plugin.load(str(folder))


TOKENIZERS: dict[str, tuple[Any, str]] = {
    "gone": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json or tokenizer.model .* found neither"),
    "a list": (lambda f: (f / "tokenizer.json").write_text("[]"), "JSON object"),
    "empty": (lambda f: (f / "tokenizer.json").write_text("{}"), "with its `model`"),
    "cut": (lambda f: (f / "tokenizer.json").write_text('{"model": {"voc'), "Expected JSON"),
    "without its names": (lambda f: (f / "tokenizer_config.json").unlink(), "where a text begins and ends"),
    "a list of names": (lambda f: (f / "tokenizer_config.json").write_text("[]"), "JSON object"),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_that_would_write_other_tokens_is_refused(name: str, in_our_layout: Path, tmp_path: Path) -> None:
    damage, message = TOKENIZERS[name]
    folder = copy_of(in_our_layout, tmp_path / "model")
    shutil.rmtree(folder / "original_tokenizer", ignore_errors=True)
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        hound_plugin.load(str(folder))
    if name != "without its names":  # which training learns when it loads the processor
        with pytest.raises(CheckpointError, match=message):
            get_train_args({
                "model_name_or_path": str(folder), "template": "llava_hound", "stage": "sft", "do_train": True,
                "dataset": "sft", "report_to": "none", "output_dir": str(tmp_path / "saves"),
            })  # fmt: skip


def test_a_whole_checkpoint_without_its_head_and_the_other_way_round(in_our_layout: Path, tmp_path: Path) -> None:
    base = LlavaHoundModel.from_pretrained(in_our_layout)
    base.save_pretrained(tmp_path / "base")
    LlavaHoundModel.from_pretrained(tmp_path / "base")
    with pytest.raises(CheckpointError, match=r"1 keys are missing \(lm_head\.weight\)"):
        LlavaHoundForConditionalGeneration.from_pretrained(tmp_path / "base")


def test_zeros_that_models_begin_with(in_our_layout: Path, tmp_path: Path) -> None:
    """LLaMA-Pro adds layers whose projections into the residual stream are zeros."""
    folder = copy_of(in_our_layout, tmp_path / "model")
    for piece in ("layers.1.self_attn.o_proj.weight", "layers.1.mlp.down_proj.weight"):
        fill(folder, piece)
    assert hound_plugin.load(str(folder))


@pytest.mark.parametrize("token", ["\u2581a", "e"])
def test_a_tokenizer_with_one_id_for_two_tokens(token: str, in_our_layout: Path, tmp_path: Path) -> None:
    folder = copy_of(in_our_layout, tmp_path / "model")
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    token = token if token in vocabulary else list(vocabulary)[-5]
    vocabulary[token] = vocabulary[list(vocabulary)[-1]]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="Expected an id for each token"):
        hound_plugin.load(str(folder))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_same_weights_in_both_formats_are_one_model(
    dtype: torch.dtype, in_our_layout: Path, tmp_path: Path
) -> None:
    """As on the hub, where the older files are often rounded."""
    folder = copy_of(in_our_layout, tmp_path / "model")
    bin_beside(folder, lambda tensor: tensor.to(dtype))
    assert hound_plugin.load(str(folder)).model is not None
    (folder / "pytorch_model.bin").write_text("version https://git-lfs.github.com/spec/v1")
    assert hound_plugin.load(str(folder)).model is not None, "a file that is not read"
