"""Features of the towers on disk: kept to the bit, and known again only for the same tower, pixels and type."""

from __future__ import annotations

import copy
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText

import hound_plugin  # noqa: F401  (activates)
from hound_plugin.model.feature_folder import FeatureFolder, tower_digest
from tests.goldens import SFT


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForImageTextToText.from_pretrained(SFT, dtype=torch.float32)


@pytest.mark.parametrize(("dtype", "itemsize"), [(torch.bfloat16, 2), (torch.float16, 2), (torch.float32, 4)], ids=str)
def test_features_come_back_to_the_bit_and_take_no_more_room_than_they_need(
    dtype: torch.dtype, itemsize: int, tmp_path: Path
) -> None:
    folder = FeatureFolder(tmp_path, None, "tower")
    features = torch.randn(64, 32, generator=torch.Generator().manual_seed(0)).to(dtype)
    key = folder.key_for("clip")
    folder.store(key, features.float())  # as a tower gives them: in the type of the pixels
    loaded = folder.load(key, (64, 32))
    assert loaded is not None
    assert loaded.dtype == torch.float32
    assert torch.equal(loaded, features.float())
    (entry,) = tmp_path.rglob("*.npy")
    assert 0 <= entry.stat().st_size - features.numel() * itemsize < 512
    assert folder.load(key, (32, 64)) is None
    assert not entry.exists(), "an entry of another shape is no use"


def test_the_key_follows_tower_and_content(tmp_path: Path) -> None:
    first, second = (FeatureFolder(tmp_path, None, tower) for tower in ("a", "b"))
    keys = {folder.key_for(content) for folder in (first, second) for content in ("x", "y")}
    assert len(keys) == 4
    assert first.key_for("x") == FeatureFolder(tmp_path, None, "a").key_for("x")


CHANGES: dict[str, Any] = {
    "a weight": lambda tower: tower.get_parameter("encoder.layers.0.layer_norm1.bias").data.add_(1e-3),
    "the last weight that is used": lambda tower: (
        tower.get_parameter(f"encoder.layers.{len(tower.encoder.layers) - 2}.mlp.fc2.bias").data[-1:].add_(1e-3)
    ),
    "the embedding": lambda tower: tower.embeddings.class_embedding.data.mul_(1.01),
    "the type": lambda tower: tower.to(torch.bfloat16),
    "the number of heads": lambda tower: setattr(tower.config, "num_attention_heads", 2),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_digest_follows_what_features_depend_on(change: str, model: Any) -> None:
    tower = copy.deepcopy(model.model.video_tower)
    before = tower_digest(tower, -2, "")
    assert before == tower_digest(model.model.video_tower, -2, "")
    CHANGES[change](tower)
    assert tower_digest(tower, -2, "") != before


def test_the_digest_follows_layer_and_precision_and_nothing_unused(model: Any) -> None:
    tower = copy.deepcopy(model.model.video_tower)
    digests = {tower_digest(tower, layer, kind) for layer in (-2, -3) for kind in ("", "torch.bfloat16")}
    assert len(digests) == 4
    before = tower_digest(tower, -2, "")
    tower.get_parameter(f"encoder.layers.{len(tower.encoder.layers) - 1}.mlp.fc2.bias").data.add_(1)
    tower.post_layernorm.weight.data.add_(1)
    assert tower_digest(tower, -2, "") == before
    assert tower_digest(model.model.image_tower, -2, "") != before


def test_encoded_media_give_the_logits_of_pixels(model: Any) -> None:
    config = model.config
    draw = torch.Generator().manual_seed(1)
    side = config.video_tower_config.image_size
    pixels = torch.randn(2, 8, 3, side, side, generator=draw)
    image = torch.randn(1, 3, side, side, generator=draw)
    text = torch.randint(3, config.text_config.vocab_size, (6,), generator=draw).tolist()
    ids = [config.image_token_id] * config.tokens_per_image + [config.video_token_id] * config.tokens_per_video(8) * 2
    batch = {"input_ids": torch.tensor([text + ids + text]), "video_index": torch.tensor([1, 0])}
    expected = model(**batch, pixel_values_videos=pixels, pixel_values_images=image).logits
    features = model(pixel_values_videos=pixels, pixel_values_images=image, encode_only=True).tower_features
    got = model(**batch, pixel_values_videos=features["video"], pixel_values_images=features["image"]).logits
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    one = model.model.encode(None, pixels[1:])["video"]
    assert torch.equal(one[0], features["video"][1]), "features do not depend on the batch"
    options = {"max_new_tokens": 3, "do_sample": False, "num_beams": 2}
    by_pixels, by_features = (
        model.generate(**batch, pixel_values_videos=video, pixel_values_images=picture, **options)
        for video, picture in ((pixels, image), (features["video"], features["image"]))
    )
    assert torch.equal(by_pixels, by_features)


def features_of(number: int) -> torch.Tensor:
    """Features ``[300, 200]`` that need float32: 240 kB."""
    return torch.randn(300, 200, generator=torch.Generator().manual_seed(number))


def store_for_ever(folder: FeatureFolder) -> None:
    """In a child: the same ten entries, over and over, until it is killed."""
    for number in range(10**6):
        folder.store(folder.key_for(str(number % 10)), features_of(number % 10))
    os._exit(1)


def test_writers_that_are_killed_leave_whole_entries_or_none(tmp_path: Path) -> None:
    folder = FeatureFolder(tmp_path, None, "tower")
    draw = random.Random(0)
    for _ in range(10):
        child = os.fork()
        if child == 0:
            torch.set_num_threads(1)
            store_for_ever(folder)
        time.sleep(draw.uniform(0.02, 0.15))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        for number in range(10):
            loaded = folder.load(folder.key_for(str(number)), (300, 200))
            assert loaded is None or torch.equal(loaded, features_of(number))
    assert list(folder.entries()), "no writer came as far as an entry: the kills come too early"
    assert {Path(path).suffix for _, _, path in folder.entries()} == {".npy"}


@pytest.mark.parametrize("kept", [0, 1, 500, -1, -32, -33])
def test_a_torn_entry_is_not_read_and_is_made_again(kept: int, tmp_path: Path) -> None:
    """As a disk leaves it that lost power: the name is there, the end of the content is not."""
    folder = FeatureFolder(tmp_path, None, "tower")
    key = folder.key_for("clip")
    folder.store(key, features_of(0))
    (entry,) = tmp_path.rglob("*.npy")
    entry.write_bytes(entry.read_bytes()[:kept])
    assert folder.load(key, (300, 200)) is None
    assert not entry.exists()
    folder.store(key, features_of(0))
    loaded = folder.load(key)
    assert loaded is not None
    assert torch.equal(loaded, features_of(0))
