"""``hound corpus prepare``: the caches of a training's media, filled ahead."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from hound_plugin import cli
from hound_plugin.errors import SettingsError
from hound_plugin.host import cache_filling, tower_cache
from hound_plugin.host.cache_filling import REPORT, fill
from hound_plugin.processing import video_processor
from tests.e2e.conftest import recipe_for
from tests.full_disk import longest_file
from tests.goldens import SFT, rows
from tests.host.hosting import media_folder, write_dataset, write_yaml
from tests.media.zoo import write


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def recipe(work: Path, name: str, **changes: Any) -> str:
    media_folder(work / "media")
    return str(write_yaml(work / f"{name}.yaml", recipe_for(work)("sft", name, **changes)))


def clips(work: Path, *names: str) -> None:
    conversation = [{"from": "human", "value": "<video>\nWhat?"}, {"from": "gpt", "value": "A clip."}]
    records = [{"id": str(number), "video": name, "conversations": conversation} for number, name in enumerate(names)]
    write_dataset(work / "data", "sft", records)


def test_frames_are_decoded_once_for_all_later_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips(tmp_path, "clip_long", "clip_short", "clip_long")
    file = recipe(tmp_path, "frames", hound={"frame_cache": str(tmp_path / "frames")})
    filled = fill(file, [], 2)
    assert (filled.media, filled.kept, filled.bad) == (2, 0, {})
    monkeypatch.setattr(video_processor, "read_clip", lambda *_, **__: pytest.fail("decoded again"))
    assert fill(file, [], 0).kept == 2
    parts = [fill(file, ["hound.check_media=off"], 0, (number, 2)) for number in (1, 2)]
    assert [part.kept for part in parts] == [1, 1]


@pytest.mark.parametrize("kind", ["full", "small"])
def test_what_did_not_fit_is_a_failure(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clips(tmp_path, "clip_long", "clip_short")
    small = {"frame_cache_limit": 1e-6} if kind == "small" else {}
    file = recipe(tmp_path, "frames", hound={"frame_cache": str(tmp_path / "frames"), **small})
    assert fill(file, ["hound.frame_cache_limit=1", f"hound.frame_cache={tmp_path / 'other'}"], 0).lost == 0
    with longest_file(20_000) if kind == "full" else contextlib.nullcontext():
        assert cli.main(["corpus", "prepare", file, "--processes", "0"]) == 1
    assert "2 of those that can be read are not in the cache: the disk is full" in capsys.readouterr().out


def test_bad_clips_are_listed_and_the_others_are_prepared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work = tmp_path / "work"
    media_folder(work / "media")
    write(work / "media" / "whole.mp4")
    whole = (work / "media" / "whole.mp4").read_bytes()
    (work / "media" / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (work / "media" / "text.mp4").write_text("no clip")
    clips(work, "whole.mp4", "cut.mp4", "text.mp4")
    file = recipe(work, "bad", hound={"frame_cache": str(tmp_path / "frames")})
    assert cli.main(["corpus", "prepare", file, "--processes", "0"]) == 1
    told = capsys.readouterr().out
    assert "3 clips and images: 0 were in the cache, 2 cannot be read" in told
    assert "cut.mp4" in told
    listed = tmp_path / "frames" / "prepare" / REPORT
    assert listed.read_text().count("\n") == 2
    assert len(list((tmp_path / "frames").rglob("*.npy"))) == 1
    (work / "media" / "cut.mp4").write_bytes(whole)
    (work / "media" / "text.mp4").write_bytes(whole)
    assert cli.main(["corpus", "prepare", file, "--processes", "0"]) == 0
    assert not listed.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"feature_cache: FOLDER.*it names neither"),
        (["hound.feature_cach=x"], "feature_cach"),
        (["hound.feature_cache=/nowhere", "freeze_vision_tower=false"], "expected off, because .* trains the towers"),
        (["hound.frame_cache=FOLDER", "template=vicuna"], "template: vicuna|template 'vicuna'"),
        (["hound.frame_cache=FOLDER", "stage=pt"], "a `dataset` and a stage"),
    ],
)
def test_what_cannot_be_prepared_is_refused(arguments: list[str], message: str, tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", "sft", rows("sft.jsonl"))
    file = recipe(tmp_path, "refused")
    with pytest.raises((SettingsError, ValueError), match=message):
        fill(file, [item.replace("FOLDER", str(tmp_path / "frames")) for item in arguments], 0)


def test_a_missing_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["corpus", "prepare", str(tmp_path / "none.yaml")]) == 2
    assert "Expected the YAML file of a training" in capsys.readouterr().err
    assert cli.main(["corpus", "prepare", "x.yaml", "--part", "5/4"]) == 2
    assert "expected I/N" in capsys.readouterr().err


def test_features_are_those_that_the_training_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips(tmp_path, "clip_long", "clip_short")
    file = recipe(tmp_path, "features", hound={"feature_cache": str(tmp_path / "features")})
    assert fill(file, [], 0).kept == 0
    active = tower_cache.active()
    assert active is not None
    processor = cache_filling.load_tokenizer(cache_filling.get_train_args(_values(tmp_path))[0])["processor"]
    monkeypatch.setattr(tower_cache, "_active", active)
    monkeypatch.setattr(video_processor, "read_clip", lambda *_, **__: pytest.fail("decoded again"))
    for name in ("clip_long", "clip_short"):
        features = tower_cache.read_media(processor, "video", str(tmp_path / "media" / name)).tensor
        assert tuple(features.shape) == (processor.tokens_per_video, active.channels["video"])
    assert fill(file, [], 0).kept == 2


def _values(work: Path) -> dict[str, Any]:
    return recipe_for(work)("sft", "again", model_name_or_path=str(SFT))
