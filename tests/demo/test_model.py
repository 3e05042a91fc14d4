"""The demo's model: the same seed gives the same weights, and neighbouring frames and places look alike."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hound_plugin.demo.model import EMBEDDING_STD, smooth_rows, write_model
from hound_plugin.demo.tokenizer import write_tokenizer
from hound_plugin.model.modeling import LlavaHoundForConditionalGeneration


@pytest.mark.parametrize("number", [4, 8, 16])
def test_rows_differ_the_more_the_further_they_are_apart(number: int) -> None:
    torch.manual_seed(0)
    rows = torch.stack([smooth_rows(number, 512) for _ in range(8)])
    assert rows.shape == (8, number, 512)
    assert rows.square().mean() == pytest.approx(1.0, abs=0.1)
    distances = torch.cdist(rows, rows).mean(0)[0]
    assert (distances.diff() > 0).all(), distances


def test_equal_seeds_give_equal_weights_and_time_is_smooth_in_every_block(tmp_path: Path) -> None:
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_model(tokenizer, tmp_path / name, seed)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert weights[0] == weights[1] != weights[2]
    model = LlavaHoundForConditionalGeneration.from_pretrained(tmp_path / "a")
    assert model.config.video_tower_config.add_time_attn
    for block in model.model.video_tower.encoder.layers:
        time = block.temporal_embedding[0]
        assert time.std() == pytest.approx(EMBEDDING_STD, rel=0.3)
        near, far = (time[1:] - time[:-1]).norm(dim=1).mean(), (time[-1] - time[0]).norm()
        assert far > 2 * near
