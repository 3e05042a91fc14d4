"""The commands one after the other, as a new user types them."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

from tests.corpus.conftest import REPO, Run
from tests.corpus.hub import Hub
from tests.goldens import SFT
from tests.host.hosting import cli, history

DPO = "data/video_instruction/train/dpo/sft_dpo_17k.jsonl"
IMAGES = "data/video_instruction/train/sft/image_instruction_100k.jsonl"
MSVD = "data/video_instruction/test/msvd.qa.jsonl"


def test_from_nothing_to_training_data(run: Run, hub: Hub, tmp_path: Path) -> None:
    wanted = ["dpo_17k", "image_instruction_100k", "test_msvd"]
    assert run("download", "--only", *wanted, "--with-media", hub=hub).returncode == 0
    broken = run("validate", DPO, "--media-dir", "data")  # before extraction there is nothing to see
    assert broken.returncode == 1
    assert broken.stdout.split()[:5] == ["32", "media", "missing", "row", "1,"]
    assert run("extract").returncode == 0
    for path in (DPO, IMAGES, MSVD):
        done = run("validate", path, "--media-dir", "data/frames", "--media", "open")
        assert done.returncode == 0, done.stdout
        assert done.stdout.endswith("rows, 0 with problems\n")
    listed = {entry["id"]: entry for entry in json.loads(run("list", "--json").stdout)}
    assert listed["frames_300k"]["extracted"] == 16
    assert listed["images_allava"]["extracted"] == 10
    assert run("convert", DPO, "pairs.jsonl", "--split", 0.25).returncode == 0
    sides = [(tmp_path / f"pairs.{side}.jsonl").read_text().splitlines() for side in ("train", "heldout")]
    assert len(sides[0]) + len(sides[1]) == 32
    assert sides[0]
    assert sides[1]
    assert run("validate", "pairs.train.jsonl", "--media-dir", "data/frames").returncode == 0


def test_from_a_download_to_an_aligned_model(run: Run, hub: Hub, tmp_path: Path) -> None:
    """Download, extract, then the shipped recipes for SFT and DPO on what is there, changed only for a CPU."""
    wanted = ["dpo_17k", "image_instruction_100k", "video_240k_caption_15k"]
    assert run("download", "--only", *wanted, "--with-media", hub=hub).returncode == 0
    assert run("extract").returncode == 0
    shutil.copy(REPO / "data" / "dataset_info.json", tmp_path / "data")
    small = [
        f"dataset_dir={tmp_path / 'data'}",
        f"media_dir={tmp_path / 'data' / 'frames'}",
        "deepspeed=null",
        "bf16=false",
        "preprocessing_num_workers=1",
        "dataloader_num_workers=0",
        "per_device_train_batch_size=2",
        "gradient_accumulation_steps=1",
        "max_steps=2",
    ]
    sft, dpo = tmp_path / "sft", tmp_path / "dpo"
    cli(
        tmp_path,
        "train",
        "examples/yaml/hound_sft_step2.yaml",
        f"model_name_or_path={SFT}",
        f"output_dir={sft}",
        *small,
    )
    pairs = "dataset=hound_dpo_17k_local"
    cli(
        tmp_path,
        "train",
        "examples/yaml/hound_dpo.yaml",
        f"model_name_or_path={sft}",
        f"output_dir={dpo}",
        pairs,
        *small,
    )
    losses = [row["loss"] for row in history(dpo) if "loss" in row]
    assert len(losses) == 2
    assert abs(losses[0] - math.log(2)) < 1e-5
    assert (dpo / "model.safetensors").exists()
