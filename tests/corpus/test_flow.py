"""The commands one after the other, as a new user types them."""

from __future__ import annotations

import json
from pathlib import Path

from tests.corpus.conftest import Run
from tests.corpus.hub import Hub

DPO = "data/video_instruction/train/dpo/sft_dpo_17k.jsonl"
IMAGES = "data/video_instruction/train/sft/image_instruction_100k.jsonl"
MSVD = "data/video_instruction/test/msvd.qa.jsonl"


def test_from_nothing_to_training_data(run: Run, hub: Hub, tmp_path: Path) -> None:
    wanted = ["dpo_17k", "image_instruction_100k", "test_msvd"]
    assert run("download", "--only", *wanted, "--with-media", hub=hub).returncode == 0
    broken = run("validate", DPO, "--media-dir", "data")  # before extraction there is nothing to see
    assert broken.returncode == 1
    assert broken.stdout.split()[:3] == ["media", "missing", "32"]
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
