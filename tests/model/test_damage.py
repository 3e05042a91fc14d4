"""Checkpoints with something missing, of another shape or out of all reason are refused at every entry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

import hound_plugin
from hound_plugin.errors import CheckpointError
from hound_plugin.model.checkpoint_conversion import convert
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
    "an index that leaves": (lambda f: outside(f), r"index names \.\."),
    "a shard gone": (lambda f: shard_gone(f), r"1 missing file\(s\)|all files of the checkpoint are there"),
}


def edit(folder: Path, part: str = "text_config", **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config[part].update(values)
    (folder / "config.json").write_text(json.dumps(config))


def without(folder: Path, piece: str) -> None:
    held = tensors(folder)
    kept = {name: tensor for name, tensor in held.items() if piece not in name}
    assert kept.keys() != held.keys()
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


def shard_gone(folder: Path) -> None:
    names = list(tensors(folder))
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    weights = {name: f"model-0000{1 + (name == names[-1])}-of-00002.safetensors" for name in names}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weights}))


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


def test_a_broken_tokenizer_is_named(in_our_layout: Path, tmp_path: Path) -> None:
    folder = copy_of(in_our_layout, tmp_path / "model")
    (folder / "tokenizer.json").write_text('{"version": "1.0", "model": {}}')
    with pytest.raises(CheckpointError, match=r"The tokenizer of the checkpoint .* cannot be read"):
        hound_plugin.load(str(folder))


def test_a_whole_checkpoint_without_its_head_and_the_other_way_round(in_our_layout: Path, tmp_path: Path) -> None:
    base = LlavaHoundModel.from_pretrained(in_our_layout)
    base.save_pretrained(tmp_path / "base")
    LlavaHoundModel.from_pretrained(tmp_path / "base")
    with pytest.raises(CheckpointError, match=r"1 keys are missing \(lm_head\.weight\)"):
        LlavaHoundForConditionalGeneration.from_pretrained(tmp_path / "base")
