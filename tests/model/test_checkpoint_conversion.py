"""Checkpoints of the original layout: read, converted there and back, assembled, refused."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoTokenizer

from hound_plugin.cli import main
from hound_plugin.demo.model import write_model
from hound_plugin.demo.tokenizer import write_tokenizer
from hound_plugin.errors import CheckpointError, SettingsError
from hound_plugin.model import checkpoint_files
from hound_plugin.model.assemble import assemble
from hound_plugin.model.checkpoint import find_tower, merge_lora, read_tensors, read_tower
from hound_plugin.model.checkpoint_conversion import convert
from hound_plugin.model.checkpoint_files import key_names, weight_files
from hound_plugin.model.checkpoint_writer import parse_size
from hound_plugin.model.key_mapping import to_original, to_ours
from hound_plugin.processing.processor import LlavaHoundProcessor
from tests.goldens import DPO, NO_TOWER, SFT, load_arrays, load_json
from tests.model.batches import sft_batch

CHECKPOINTS = [SFT, NO_TOWER, DPO]


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in weight_files(folder):
        held = load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)
        found.update(held)
    return found


def copy_of(source: Path, folder: Path) -> Path:
    shutil.copytree(source, folder)
    return folder


@pytest.mark.parametrize("source", CHECKPOINTS, ids=lambda path: path.name)
@pytest.mark.parametrize("shard_size", ["5GB", "300KB"])
def test_there_and_back_gives_the_same_bits(source: Path, shard_size: str, tmp_path: Path) -> None:
    convert(str(source), tmp_path / "hf", shard_size=shard_size, progress=False)
    convert(str(tmp_path / "hf"), tmp_path / "back", to="original", shard_size=shard_size, progress=False)
    before, after = tensors(source), tensors(tmp_path / "back")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype
        assert torch.equal(after[name], tensor), name
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert config == json.loads((source / "config.json").read_text())
    assert (tmp_path / "back" / "tokenizer.model").read_bytes() == (source / "tokenizer.model").read_bytes()
    assert (len(weight_files(tmp_path / "hf")) > 1) == (shard_size != "5GB")


def test_a_scaled_rotary_embedding_comes_back_as_it_was(tmp_path: Path) -> None:
    source = copy_of(SFT, tmp_path / "source")
    scaled = {"rope_scaling": {"type": "linear", "factor": 4.0}}
    config = {**json.loads((SFT / "config.json").read_text()), **scaled}
    (source / "config.json").write_text(json.dumps(config))
    convert(str(source), tmp_path / "hf", progress=False)
    convert(str(tmp_path / "hf"), tmp_path / "back", to="original", progress=False)
    assert json.loads((tmp_path / "back" / "config.json").read_text()) == config


def test_video_llava_is_of_the_same_layout(tmp_path: Path) -> None:
    """LanguageBind/Video-LLaVA-7B calls itself "llava", as llava-hf's models do."""
    source = copy_of(SFT, tmp_path / "video-llava")
    config = {**json.loads((SFT / "config.json").read_text()), "model_type": "llava"}
    (source / "config.json").write_text(json.dumps(config))
    convert(str(source), tmp_path / "hf", progress=False)
    assert AutoModelForImageTextToText.from_pretrained(tmp_path / "hf").config.model_type == "llava_hound"
    convert(str(tmp_path / "hf"), tmp_path / "back", to="original", progress=False)
    assert json.loads((tmp_path / "back" / "config.json").read_text()) == config


def test_the_converted_copy_is_the_recorded_model(tmp_path: Path) -> None:
    convert(str(SFT), tmp_path / "hf", progress=False)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "hf", attn_implementation="eager")
    processor = LlavaHoundProcessor.from_pretrained(tmp_path / "hf")
    batch = sft_batch(processor, load_json("d_batches.json")["mixed_image_video_batch"])
    assert abs(model(**batch).loss.item() - float(load_arrays("d_mixed_image_video_batch.npz")["loss"])) <= 2e-5
    assert (
        AutoTokenizer.from_pretrained(tmp_path / "hf").convert_tokens_to_ids("<video>") == model.config.video_token_id
    )


def test_a_bfloat16_checkpoint_takes_whole_towers_and_rounds_them_on_the_way_back(tmp_path: Path) -> None:
    source = copy_of(SFT, tmp_path / "bf16")
    save_file(
        {k: v.to(torch.bfloat16) for k, v in tensors(SFT).items()}, source / "model.safetensors", {"format": "pt"}
    )
    report = convert(str(source), tmp_path / "hf", progress=False)
    assert all("LanguageBind/" in place for place in report.towers.values())
    ours = tensors(tmp_path / "hf")
    assert ours["model.video_tower.pre_layrnorm.weight"].dtype == torch.float32
    assert ours["lm_head.weight"].dtype == torch.bfloat16
    convert(str(tmp_path / "hf"), tmp_path / "back", to="original", progress=False)
    before, after = tensors(source), tensors(tmp_path / "back")
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_towers_that_were_trained_are_kept(tmp_path: Path) -> None:
    source = copy_of(SFT, tmp_path / "trained")
    held = tensors(SFT)
    held["model.video_tower.video_tower.pre_layrnorm.weight"] += 1.0
    save_file(held, source / "model.safetensors", {"format": "pt"})
    report = convert(str(source), tmp_path / "hf", progress=False)
    assert report.towers["video_tower"] == "the checkpoint's own copy"
    assert "LanguageBind_Image" in report.towers["image_tower"]
    convert(str(tmp_path / "hf"), tmp_path / "back", to="original", progress=False)
    assert all(torch.equal(tensors(tmp_path / "back")[name], tensor) for name, tensor in held.items())


def test_loading_reads_shards_and_ignores_old_buffers(tmp_path: Path) -> None:
    source = copy_of(SFT, tmp_path / "sharded")
    (source / "model.safetensors").unlink()
    held = {**tensors(SFT), "model.image_tower.image_tower.embeddings.position_ids": torch.arange(50)[None]}
    names = sorted(held)
    index: dict[str, Any] = {"metadata": {}, "weight_map": {}}
    for number, part in enumerate((names[:100], names[100:])):
        file = f"pytorch_model-0000{number + 1}-of-00002.bin"
        torch.save({name: held[name] for name in part}, source / file)
        index["weight_map"].update(dict.fromkeys(part, file))
    (source / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    loaded = AutoModelForImageTextToText.from_pretrained(source).state_dict()
    expected = AutoModelForImageTextToText.from_pretrained(SFT).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())


def test_a_bin_file_of_the_old_format_is_read(tmp_path: Path) -> None:
    source = copy_of(NO_TOWER, tmp_path / "old")
    held = tensors(NO_TOWER)
    torch.save(held, source / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    convert(str(source), tmp_path / "hf", progress=False)
    made = tensors(tmp_path / "hf")
    assert all(torch.equal(made[ours], held[name]) for name, ours in to_ours(list(held)).items())


def test_towers_in_local_folders(tmp_path: Path) -> None:
    source = copy_of(NO_TOWER, tmp_path / "local")
    config = json.loads((source / "config.json").read_text())
    for kind in ("image", "video"):
        place = Path(str(find_tower(config[f"mm_{kind}_tower"], None, {}))).parent
        shutil.copytree(place, source / f"{kind}_files")
        config[f"mm_{kind}_tower"] = f"./{kind}_files"
    (source / "config.json").write_text(json.dumps(config))
    loaded = AutoModelForImageTextToText.from_pretrained(source).state_dict()
    expected = AutoModelForImageTextToText.from_pretrained(NO_TOWER).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in expected.items())


def test_a_tower_wrapped_in_lora_is_merged(tmp_path: Path) -> None:
    file = Path(str(find_tower("LanguageBind/LanguageBind_Image", None, {})))
    plain = torch.load(file, weights_only=True)
    wrapped, delta = {}, {}
    for name, tensor in plain.items():
        match = re.fullmatch(r"vision_model\.encoder\.(layers\.\d+\.self_attn\.[qkv]_proj)\.weight", name)
        inner = name.replace("vision_model.encoder.", "vision_model.encoder.base_model.model.")
        if match is None:
            wrapped[inner if "vision_model.encoder." in name else name] = tensor
            continue
        base = inner.removesuffix(".weight")
        wrapped[f"{base}.base_layer.weight"] = tensor
        wrapped[f"{base}.lora_A.default.weight"] = torch.randn(2, tensor.shape[1]) * 0.1
        wrapped[f"{base}.lora_B.default.weight"] = torch.randn(tensor.shape[0], 2) * 0.1
        delta[f"encoder.{match.group(1)}.weight"] = (
            wrapped[f"{base}.lora_B.default.weight"] @ wrapped[f"{base}.lora_A.default.weight"] * (16 / 2)
        )
    torch.save(wrapped, tmp_path / "pytorch_model.bin")
    config = json.loads((file.parent / "config.json").read_text())
    config["vision_config"].update(lora_r=2, lora_alpha=16)
    (tmp_path / "config.json").write_text(json.dumps(config))
    import contextlib

    with contextlib.ExitStack() as stack:
        merged = read_tower(str(tmp_path / "pytorch_model.bin"), None, stack)
        expected = read_tower(str(file), None, stack)
    assert merged.keys() == expected.keys()
    assert len(delta) == 12
    for name, tensor in expected.items():
        torch.testing.assert_close(merged[name], tensor + delta.get(name, torch.zeros(())), atol=1e-6, rtol=1e-6)
    with pytest.raises(CheckpointError, match="base weight and a LoRA pair"):
        merge_lora({"x.lora_A.default.weight": torch.zeros(1, 1)}, 1.0, 1)


# --- what is refused


def test_unknown_and_missing_keys_are_listed(tmp_path: Path) -> None:
    source = copy_of(SFT, tmp_path / "odd")
    held = tensors(SFT)
    save_file({**held, "model.resampler.weight": torch.zeros(1)}, source / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 of 221 are unknown: model\.resampler\.weight"):
        AutoModelForImageTextToText.from_pretrained(source)
    del held["model.norm.weight"]
    save_file(held, source / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 keys are missing \(model\.language_model\.norm\.weight\)"):
        AutoModelForImageTextToText.from_pretrained(source)


def test_a_checkpoint_that_holds_objects_is_not_unpickled(tmp_path: Path) -> None:
    source = copy_of(NO_TOWER, tmp_path / "evil")
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (marker,))

    torch.save({"model.norm.weight": Evil()}, source / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="other Python objects, which are never loaded"):
        convert(str(source), tmp_path / "hf", progress=False)
    with pytest.raises(Exception, match=r"weights_only|Weights only|never loaded"):
        AutoModelForImageTextToText.from_pretrained(source)
    assert not marker.exists()


def test_wrong_directions_and_targets(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="already in the original layout"):
        convert(str(SFT), tmp_path / "a", to="original", progress=False)
    convert(str(SFT), tmp_path / "hf", progress=False)
    with pytest.raises(CheckpointError, match="already in the Hugging Face layout"):
        convert(str(tmp_path / "hf"), tmp_path / "b", progress=False)
    with pytest.raises(SettingsError, match="Expected a new or an empty folder"):
        convert(str(SFT), tmp_path / "hf", progress=False)
    with pytest.raises(CheckpointError, match=r"found neither"):
        weight_files(tmp_path)
    assert parse_size("1.5 GiB") == 3 * 2**29
    with pytest.raises(SettingsError, match="5GB or 500MB, got 'big'"):
        parse_size("big")


def test_another_architecture_is_refused(vicuna: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"llava_llama or llava .*, found 'llama'"):
        convert(str(vicuna), tmp_path / "a", progress=False)
    with pytest.raises(CheckpointError, match=r"Expected a LLaMA or Vicuna .* found model_type 'llava_hound'"):
        assemble(str(SFT), tmp_path / "b", progress=False)
    (tmp_path / "cut").mkdir()
    for file in SFT.iterdir():
        shutil.copyfile(file, tmp_path / "cut" / file.name)
    (tmp_path / "cut" / "model.safetensors").write_bytes((SFT / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="It is damaged; download it again"):
        convert(str(tmp_path / "cut"), tmp_path / "c", progress=False)
    convert(str(SFT), tmp_path / "d", progress=False)
    assert (tmp_path / "d" / "model.safetensors").stat().st_mode & 0o044 == 0o044


def test_interrupted_it_leaves_no_half_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hound_plugin.model.checkpoint_writer import CheckpointWriter

    written: list[str] = []
    add = CheckpointWriter.add

    def stop(self: CheckpointWriter, name: str, tensor: torch.Tensor) -> None:
        written.append(name)
        if len(written) > 50:
            raise KeyboardInterrupt
        add(self, name, tensor)

    monkeypatch.setattr(CheckpointWriter, "add", stop)
    with pytest.raises(KeyboardInterrupt):
        convert(str(SFT), tmp_path / "hf", shard_size="100KB", progress=False)
    assert list(tmp_path.iterdir()) == []


def test_the_key_table_has_two_directions() -> None:
    names = key_names(weight_files(SFT))
    ours = to_ours(names)
    back = to_original(list(ours.values()))
    assert [back[ours[name]] for name in names] == names
    with pytest.raises(CheckpointError, match=r"1 of 1 are unknown: visual\.weight"):
        to_original(["visual.weight"])


@pytest.mark.parametrize("source", [SFT, DPO], ids=lambda path: path.name)
def test_a_conversion_reads_the_language_model_once_and_towers_twice(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tower's copy is compared with its repository's; everything else is read when it is written."""

    def check() -> None:
        assert reads
        assert max(reads.values()) <= 2
        assert {name for name, count in reads.items() if count > 1 and "tower" not in name} == set()

    reads: Counter[str] = Counter()

    class Counted:
        def __init__(self, name: str, slice_: Any) -> None:
            self.name, self.slice = name, slice_

        def __getattr__(self, name: str) -> Any:
            return getattr(self.slice, name)

        def __getitem__(self, index: Any) -> torch.Tensor:
            reads[self.name] += 1
            return self.slice[index]

    def counted(files: list[str], stack: Any) -> dict[str, Any]:
        return {name: Counted(name, value) for name, value in read_tensors(files, stack).items()}

    monkeypatch.setattr(checkpoint_files, "read_tensors", counted)
    convert(str(source), tmp_path / "hf", progress=False)
    check()
    reads.clear()
    convert(str(tmp_path / "hf"), tmp_path / "back", to="original", progress=False)
    check()


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(SFT), str(tmp_path / "dry"), "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "model.mm_projector.0.weight -> model.multi_modal_projector.0.weight" in text
    assert "nothing written" in text
    assert not (tmp_path / "dry").exists()
    assert main(["convert", str(tmp_path / "nowhere"), str(tmp_path / "x")]) != 0


def test_memory_stays_near_one_shard(tmp_path: Path) -> None:
    """A checkpoint of 10 shards of 48 or 64 MiB; peak memory of the child grows by less than three shards."""
    source, layers, wide = copy_of(SFT, tmp_path / "big"), 8, 2**16
    small = tensors(SFT)
    (source / "model.safetensors").unlink()
    config = json.loads((source / "config.json").read_text())
    config.update(vocab_size=2**18, num_hidden_layers=layers, intermediate_size=wide)
    (source / "config.json").write_text(json.dumps(config))
    shards = [{name: torch.ones(2**18, 64)} for name in ("model.embed_tokens.weight", "lm_head.weight")]
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        block = {name.replace("model.layers.0.", prefix): t for name, t in small.items() if ".layers.0." in name}
        block = {name: t for name, t in block.items() if name.startswith(prefix)}
        block.update({f"{prefix}mlp.{name}.weight": torch.ones(wide, 64) for name in ("gate_proj", "up_proj")})
        shards.append({**block, f"{prefix}mlp.down_proj.weight": torch.ones(64, wide)})
    rest = {name: t for name, t in small.items() if not re.match(r"model\.(layers|embed_tokens)\.|lm_head", name)}
    index: dict[str, Any] = {"metadata": {}, "weight_map": {}}
    for number, held in enumerate([*shards, rest]):
        save_file(
            {name: t.contiguous() for name, t in held.items()}, source / f"{number}.safetensors", {"format": "pt"}
        )
        index["weight_map"].update(dict.fromkeys(held, f"{number}.safetensors"))
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    total = sum(t.numel() * 4 for held in shards for t in held.values())
    script = (
        "import resource, sys\n"
        "from hound_plugin.model.checkpoint_conversion import convert\n"
        "import transformers.models.auto.modeling_auto\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "convert(sys.argv[1], sys.argv[2], shard_size='64MiB', towers='repository', progress=False)\n"
        "print('GREW', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(source), str(tmp_path / "hf")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    grew = int(re.search(r"GREW (\d+)", done.stdout).group(1)) * 1024  # type: ignore[union-attr]
    assert total > 8 * 64 * 2**20
    assert grew < 3 * 64 * 2**20, f"peak memory grew by {grew / 2**20:.0f} MiB for {total / 2**20:.0f} MiB of weights"


# --- assemble


@pytest.fixture
def vicuna(tmp_path: Path) -> Path:
    """The recorded checkpoint's language model as a LLaMA of its own."""
    folder = tmp_path / "vicuna"
    folder.mkdir()
    save_file(
        {k: v for k, v in tensors(NO_TOWER).items() if "mm_projector" not in k},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    config = {k: v for k, v in json.loads((NO_TOWER / "config.json").read_text()).items() if not k.startswith("mm_")}
    config.update(model_type="llama", architectures=["LlamaForCausalLM"])
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(NO_TOWER / name, folder / name)
    return folder


def test_parts_make_the_recorded_checkpoint(vicuna: Path, tmp_path: Path) -> None:
    projector = tmp_path / "mm_projector.bin"
    torch.save({k: v for k, v in tensors(NO_TOWER).items() if "mm_projector" in k}, projector)
    assert main(["assemble", str(vicuna), str(tmp_path / "start"), "--projector", str(projector)]) == 0
    made = AutoModelForImageTextToText.from_pretrained(tmp_path / "start").state_dict()
    expected = AutoModelForImageTextToText.from_pretrained(NO_TOWER).state_dict()
    assert made.keys() == expected.keys()
    assert all(torch.equal(made[name], tensor) for name, tensor in expected.items())
    assert LlavaHoundProcessor.from_pretrained(tmp_path / "start").tokens_per_video == 392


def test_a_fresh_projector_and_bad_parts(vicuna: Path, tmp_path: Path) -> None:
    assemble(str(vicuna), tmp_path / "fresh", progress=False)
    again = assemble(str(vicuna), tmp_path / "again", progress=False)
    left, right = tensors(tmp_path / "fresh"), tensors(again)
    assert all(torch.equal(left[name], right[name]) for name in left)
    torch.save({"mm_projector.0.weight": torch.zeros(3, 3)}, tmp_path / "bad.bin")
    with pytest.raises(CheckpointError, match="Expected a projector mlp2x_gelu"):
        assemble(str(vicuna), tmp_path / "x", projector=str(tmp_path / "bad.bin"), progress=False)
    with pytest.raises(CheckpointError, match="Expected the tower 'no/where'"):
        assemble(str(vicuna), tmp_path / "y", image_tower="no/where", progress=False)
    assert not (tmp_path / "x").exists()


def _rewrite(folder: Path, **changes: torch.Tensor | None) -> None:
    held = {**tensors(folder), **{name.replace("__", "."): value for name, value in changes.items()}}
    save_file({k: v for k, v in held.items() if v is not None}, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model__layers__0__mlp__up_proj__weight": None},
            r"1 keys are missing \(model\.language_model\.layers\.0\.mlp",
        ),
        ({"model__norm__weight": torch.ones(3)}, r"1 have another shape \(model\.language_model\.norm\.weight \[3\]"),
        ({"model__layers__9__mlp__up_proj__weight": torch.ones(3)}, "1 are unexpected"),
        ({"lm_head__weight": None}, r"1 keys are missing \(lm_head\.weight\)"),
    ],
)
def test_a_language_model_that_lacks_tensors_is_refused_before_writing(
    changes: dict[str, Any], message: str, vicuna: Path, tmp_path: Path
) -> None:
    _rewrite(vicuna, **changes)
    with pytest.raises(CheckpointError, match=message):
        assemble(str(vicuna), tmp_path / "start", progress=False)
    assert not (tmp_path / "start").exists()


@pytest.mark.parametrize("other", ["model.embed_tokens.weight", "model.vision_resampler.0.weight", "embed_in.weight"])
def test_a_projector_file_with_more_than_the_projector_is_refused(other: str, vicuna: Path, tmp_path: Path) -> None:
    file = tmp_path / "mm_projector.bin"
    projector = {k: v for k, v in tensors(NO_TOWER).items() if "mm_projector" in k}
    torch.save({**projector, other: torch.zeros(2, 2)}, file)
    with pytest.raises(CheckpointError, match=rf"Expected a projector alone in .*found {re.escape(other)} too"):
        assemble(str(vicuna), tmp_path / "start", projector=str(file), progress=False)


def test_towers_that_cannot_be_compared_are_refused_unless_it_is_said_what_they_are(tmp_path: Path) -> None:
    convert(str(SFT), tmp_path / "ours", progress=False)
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    (tmp_path / "ours" / "config.json").write_text(
        json.dumps({**config, "mm_video_tower": "no/LanguageBind_Video_merge"})
    )

    def back(**options: Any) -> Any:
        return convert(str(tmp_path / "ours"), tmp_path / str(options), to="original", progress=False, **options)

    with pytest.raises(CheckpointError, match=r"Cannot compare the video tower .*`--towers repository` if .* never"):
        back()
    named = back(towers="repository")
    assert any("The original code needs them" in warning for warning in named.warnings)
    assert json.loads((named.written / "config.json").read_text())["mm_video_tower"].endswith(
        "/LanguageBind_Video_merge"
    )
    kept = back(towers="checkpoint")
    assert any("video_tower is kept as it is" in w and "the original code does not" in w for w in kept.warnings)
    assert json.loads((kept.written / "config.json").read_text())["mm_video_tower"] == "video_tower"
    read, expected = (
        AutoModelForImageTextToText.from_pretrained(f).state_dict() for f in (kept.written, tmp_path / "ours")
    )
    assert all(torch.equal(read[name], value) for name, value in expected.items())


@pytest.mark.parametrize("kind", ["made", "assembled"])
def test_a_model_of_no_repository_goes_to_the_original_layout_and_back(kind: str, vicuna: Path, tmp_path: Path) -> None:
    """The demo's model names no towers and has no tokenizer.model."""
    source = tmp_path / "source"
    if kind == "made":
        write_model(write_tokenizer(tmp_path / "tokenizer"), source)
        (source / "tokenizer.model").unlink(missing_ok=True)
    else:
        assemble(str(vicuna), source, progress=False)
    report = convert(str(source), tmp_path / "original", to="original", progress=False)
    assert any("names no repository" in warning for warning in report.warnings) == (kind == "made")
    assert any("has no tokenizer.model" in warning for warning in report.warnings) == (kind == "made")
    convert(str(tmp_path / "original"), tmp_path / "back", progress=False)
    before, after = tensors(source), tensors(tmp_path / "back")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    texts = ["What moves? <video>", "</s> [INST] \u00e9\u4e2d"]
    folders = (source, tmp_path / "original")
    tokens = [LlavaHoundProcessor.from_pretrained(folder).tokenizer(texts).input_ids for folder in folders]
    assert tokens[0] == tokens[1]


@pytest.mark.parametrize("changes", [{"system": "Watch closely."}, {"num_frames": 16, "frame_sampling": "first_10s"}])
def test_what_a_model_was_trained_with_survives_the_original_layout(changes: dict[str, Any], tmp_path: Path) -> None:
    convert(str(SFT), tmp_path / "ours", progress=False)
    processor = LlavaHoundProcessor.from_pretrained(tmp_path / "ours")
    for name, value in changes.items():
        processor.set_system(value) if name == "system" else setattr(processor, name, value)
    processor.save_pretrained(tmp_path / "ours")
    report = convert(str(tmp_path / "ours"), tmp_path / "original", to="original", progress=False)
    assert any(all(name in warning for name in changes) for warning in report.warnings)
    convert(str(tmp_path / "original"), tmp_path / "back", progress=False)
    for folder in ("original", "back"):
        read = LlavaHoundProcessor.from_pretrained(tmp_path / folder)
        assert {name: getattr(read, name) for name in changes} == changes


def text_logits(folder: Path) -> torch.Tensor:
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(input_ids=torch.tensor([[1, 5, 9, 40, 77, 100, 31, 200]])).logits


def edited(source: Path, folder: Path, section: str | None, values: dict[str, Any]) -> Path:
    copy_of(source, folder)
    config = json.loads((folder / "config.json").read_text())
    (config if section is None else config[section]).update(values)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


CHANGES: dict[str, dict[str, Any]] = {
    "longer positions": {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}},
    "other positions": {"rope_parameters": {"rope_type": "default", "rope_theta": 3e5}},
    "narrower heads": {"num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": None},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_configuration_survives_the_original_layout(name: str, tmp_path: Path) -> None:
    convert(str(DPO), tmp_path / "hf", progress=False)
    ours = edited(tmp_path / "hf", tmp_path / "ours", "text_config", CHANGES[name])
    convert(str(ours), tmp_path / "original", to="original", progress=False)
    convert(str(tmp_path / "original"), tmp_path / "back", progress=False)
    expected = text_logits(ours)
    assert not torch.equal(expected, text_logits(tmp_path / "hf"))
    assert torch.equal(text_logits(tmp_path / "original"), expected)
    assert torch.equal(text_logits(tmp_path / "back"), expected)
    if name == "longer positions":  # as the original's transformers writes it
        values = json.loads((tmp_path / "original" / "config.json").read_text())
        assert values["rope_scaling"] == {"type": "linear", "factor": 2.0}


def test_changes_of_the_composite_survive_the_original_layout(tmp_path: Path) -> None:
    values = {"mm_vision_select_layer": -1, "image_aspect_ratio": None, "dtype": "bfloat16"}
    convert(str(SFT), tmp_path / "hf", progress=False)
    ours = edited(tmp_path / "hf", tmp_path / "ours", None, values)
    convert(str(ours), tmp_path / "original", to="original", progress=False)
    kept = json.loads((tmp_path / "original" / "config.json").read_text())
    assert {name: kept["torch_dtype" if name == "dtype" else name] for name in values} == values


@pytest.mark.parametrize(("source", "tower"), [(SFT, "image_tower"), (NO_TOWER, "video_tower")])
def test_a_trained_tower_survives_the_original_layout(source: Path, tower: str, tmp_path: Path) -> None:
    """Whoever reads the original layout takes the tower of the repository that config.json names."""
    convert(str(source), tmp_path / "hf", progress=False)
    weights = load_file(tmp_path / "hf" / "model.safetensors")
    name = f"model.{tower}.encoder.layers.1.mlp.fc1.weight"
    weights[name] = weights[name] * 1.5
    save_file(weights, tmp_path / "hf" / "model.safetensors", metadata={"format": "pt"})
    report = convert(str(tmp_path / "hf"), tmp_path / "original", to="original", progress=False)
    assert [warning for warning in report.warnings if f"{tower} is no longer the one of LanguageBind" in warning]
    read = AutoModelForImageTextToText.from_pretrained(tmp_path / "original", dtype=torch.float32).state_dict()
    assert all(torch.equal(read[key], weights[key]) for key in weights if key.startswith("model."))


def test_a_tower_that_cannot_be_compared_is_not_left_out(tmp_path: Path) -> None:
    convert(str(NO_TOWER), tmp_path / "hf", progress=False)
    ours = edited(tmp_path / "hf", tmp_path / "ours", None, {"mm_image_tower": "no/where"})
    with pytest.raises(CheckpointError, match=r"Cannot compare the image tower .*'no/where'.*hf download no/where"):
        convert(str(ours), tmp_path / "original", to="original", progress=False)


def test_new_tokens_survive_the_original_layout(tmp_path: Path) -> None:
    convert(str(SFT), tmp_path / "hf", progress=False)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    tokenizer.add_tokens(["<begin>", "<end>"])
    tokenizer.save_pretrained(tmp_path / "hf")
    report = convert(str(tmp_path / "hf"), tmp_path / "original", to="original", progress=False)
    assert [warning for warning in report.warnings if "other tokens than the original tokenizer.model" in warning]
    text = "a <begin> b <end>"
    assert AutoTokenizer.from_pretrained(tmp_path / "original")(text).input_ids == tokenizer(text).input_ids
    with pytest.raises(SettingsError, match=r"Expected the tokens of .* in the tokenizer"):
        convert(str(tmp_path / "hf"), tmp_path / "other", to="original", tokenizer=str(SFT), progress=False)
