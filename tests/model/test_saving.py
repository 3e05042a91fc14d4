"""A model that is saved where another one is: afterwards, or after a kill, nobody loads a mixture or the older one."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import modeling_utils

import hound_plugin
from hound_plugin.errors import CheckpointError
from hound_plugin.model.checkpoint_files import weight_files
from hound_plugin.model.modeling import LlavaHoundForConditionalGeneration
from tests.goldens import SFT

SIZES = {"one file": "1GB", "shards": "300KB", "larger shards": "600KB"}


@pytest.fixture(scope="module")
def models() -> list[Any]:
    first, second = (LlavaHoundForConditionalGeneration.from_pretrained(str(SFT)) for _ in range(2))
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.add_(0.25)
    return [first, second]


def is_loaded(folder: Path, model: Any) -> bool:
    weights = LlavaHoundForConditionalGeneration.from_pretrained(str(folder)).state_dict()
    return all(torch.equal(weights[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("then", SIZES)
@pytest.mark.parametrize("before", SIZES)
def test_the_model_that_was_saved_last_is_loaded(before: str, then: str, models: list[Any], tmp_path: Path) -> None:
    for size, model in zip((before, then), models, strict=True):
        model.save_pretrained(tmp_path, max_shard_size=SIZES[size])
        assert is_loaded(tmp_path, model)
    assert (len(weight_files(tmp_path)) == 1) is (then == "one file")
    assert not list(tmp_path.glob("*.unfinished"))


@pytest.mark.parametrize("saved", [1, 2])
@pytest.mark.parametrize("before", ["one file", "shards"])
def test_a_killed_save_is_refused_until_it_is_repeated(
    before: str, saved: int, models: list[Any], tmp_path: Path
) -> None:
    models[0].save_pretrained(tmp_path, max_shard_size=SIZES[before])
    child = os.fork()
    if child == 0:
        save, count = modeling_utils.safe_save_file, 0

        def dying(*args: Any, **kwargs: Any) -> None:
            nonlocal count
            save(*args, **kwargs)
            count += 1
            if count == saved:
                os.kill(os.getpid(), signal.SIGKILL)

        modeling_utils.safe_save_file = dying
        models[1].save_pretrained(tmp_path, max_shard_size=SIZES["shards"])
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    for load in (LlavaHoundForConditionalGeneration.from_pretrained, hound_plugin.load):
        with pytest.raises(CheckpointError, match=r"being saved there when its process ended.* export it again"):
            load(str(tmp_path))
    models[1].save_pretrained(tmp_path, max_shard_size=SIZES["shards"])
    assert is_loaded(tmp_path, models[1])


def test_a_save_that_fails_is_refused_too(models: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models[0].save_pretrained(tmp_path, max_shard_size=SIZES["shards"])

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(modeling_utils, "safe_save_file", full)
    with pytest.raises(OSError, match="No space"):
        models[1].save_pretrained(tmp_path, max_shard_size=SIZES["shards"])
    with pytest.raises(CheckpointError, match="being saved there"):
        LlavaHoundForConditionalGeneration.from_pretrained(str(tmp_path))
