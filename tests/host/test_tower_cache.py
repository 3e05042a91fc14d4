"""Batches with a feature cache: what is known comes as features, the rest as pixels, and each row has its own clip."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from hound_plugin.errors import SettingsError
from hound_plugin.host import bad_media, tower_cache
from hound_plugin.host.mm_plugin import get_plugin
from hound_plugin.host.tower_step import with_features
from hound_plugin.model.media_features import is_encoded
from hound_plugin.processing import image_processor, video_processor
from hound_plugin.settings import HoundSettings
from tests.goldens import SFT
from tests.model.batches import media_path

CLIPS = [media_path("clip_short"), media_path("clip_long"), media_path("clip_portrait")]
IMAGE = media_path("img_wide.jpg")


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForImageTextToText.from_pretrained(SFT, dtype=torch.float32)


@pytest.fixture(scope="module")
def processor() -> Any:
    return AutoProcessor.from_pretrained(SFT)


@pytest.fixture
def begun(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A trainer of the model, as far as this is concerned."""
    monkeypatch.setattr(tower_cache, "settings", lambda: HoundSettings(feature_cache=str(tmp_path / "features")))
    model.model.set_towers_trainable(False)
    tower_cache.begin(model, "sft", None)
    yield SimpleNamespace(model=model, accelerator=SimpleNamespace(autocast=contextlib.nullcontext))
    tower_cache.reset()
    model.model.takes_features = False


def batch(processor: Any, videos: list[Any], images: list[Any] = []) -> dict[str, torch.Tensor]:  # noqa: B006
    return get_plugin().get_mm_inputs(images, videos, [], [], [], [], [], processor)


def shown(inputs: dict[str, torch.Tensor], kind: str) -> torch.Tensor:
    return inputs[f"pixel_values_{kind}s"][inputs[f"{kind}_index"]]


def test_each_row_has_its_own_clip_whatever_is_known(begun: Any, model: Any, processor: Any) -> None:
    encode = model.model.encode
    expected = {clip: encode(None, processor.read_video(clip)[None])["video"][0] for clip in CLIPS}
    picture = encode(processor.read_image(IMAGE)[None], None)["image"][0]
    for clips in ([CLIPS[1]], [CLIPS[0], CLIPS[1], CLIPS[0]], [CLIPS[1], CLIPS[2], CLIPS[0], CLIPS[2]], CLIPS[::-1]):
        raw = batch(processor, clips, [IMAGE, IMAGE])
        inputs = with_features(begun, raw)
        assert set(inputs) == {"pixel_values_videos", "video_index", "pixel_values_images", "image_index"}
        for item, clip in zip(shown(inputs, "video"), clips, strict=True):
            assert torch.equal(item, expected[clip])
        assert torch.equal(shown(inputs, "image"), torch.stack([picture, picture]))
    assert is_encoded(raw["pixel_values_videos"]), "all of them were known"


def test_known_media_are_not_opened(begun: Any, processor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with_features(begun, batch(processor, CLIPS[:2], [IMAGE]))
    for owner, name in ((video_processor, "read_clip"), (image_processor, "open_image")):
        monkeypatch.setattr(owner, name, lambda *_, **__: pytest.fail("decoded again"))
    assert is_encoded(batch(processor, CLIPS[:2], [IMAGE])["pixel_values_videos"])
    rows = [{"videos": [CLIPS[0]], "images": [IMAGE], "labels": [1]} for _ in range(2)]
    bad_media.mask_bad_rows(rows, processor)
    assert [row["labels"] for row in rows] == [[1], [1]]
    kept = bad_media.drop_bad_rows(rows, processor)
    inputs = batch(processor, [row["videos"][0] for row in kept])
    assert len(inputs["pixel_values_videos"]) == 1


def test_a_batch_that_was_read_before_its_clip_was_stored_runs_no_tower(
    begun: Any, model: Any, processor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    early, late = (batch(processor, CLIPS[:1]) for _ in range(2))
    first = with_features(begun, early)
    monkeypatch.setattr(model.model.video_tower, "features", lambda *_: pytest.fail("encoded again"))
    assert torch.equal(with_features(begun, late)["pixel_values_videos"], first["pixel_values_videos"])


def test_media_without_identity_are_encoded_and_not_stored(begun: Any, processor: Any, tmp_path: Path) -> None:
    frames = torch.zeros(8, 32, 48, 3, dtype=torch.uint8).numpy()
    inputs = with_features(begun, batch(processor, [frames, CLIPS[0]]))
    assert shown(inputs, "video").shape[0] == 2
    assert len(list(tmp_path.rglob("*.npy"))) == 1
    black = bad_media.ReadMedia(processor.black_video())  # of a row that is masked
    assert shown(with_features(begun, batch(processor, [black])), "video").shape[0] == 1
    assert len(list(tmp_path.rglob("*.npy"))) == 1


def test_without_the_setting_batches_are_pixels(model: Any, processor: Any) -> None:
    tower_cache.begin(model, "sft", None)
    assert tower_cache.active() is None
    assert set(batch(processor, CLIPS[:1])) == {"pixel_values_videos", "video_index"}
    assert not model.model.takes_features


def test_towers_that_change_are_refused(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tower_cache, "settings", lambda: HoundSettings(feature_cache=str(tmp_path)))
    model.model.set_towers_trainable(True)
    with pytest.raises(SettingsError, match=r"feature_cache: expected off, because the towers are trained.*Remove it"):
        tower_cache.begin(model, "sft", None)
    model.model.set_towers_trainable(False)
    monkeypatch.setattr(model.model.video_tower.config, "attention_dropout", 0.1)
    with pytest.raises(SettingsError, match="attention_dropout"):
        tower_cache.begin(model, "sft", None)
    with pytest.raises(SettingsError, match="freeze_vision_tower: false"):
        tower_cache.check_frozen(SimpleNamespace(freeze_vision_tower=False))
    tower_cache.check_frozen(SimpleNamespace(freeze_vision_tower=True))
    assert not list(tmp_path.rglob("*.npy"))
