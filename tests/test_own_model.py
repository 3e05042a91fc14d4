"""Models that commands hand to an engine: they are sent before they are loaded, and know which weights they are."""

from __future__ import annotations

import inspect
import json
import pickle
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from hound_plugin.engines.work import ReadsAhead
from hound_plugin.errors import EnvironmentMismatchError, SettingsError
from hound_plugin.evaluation.settings import EvaluationSettings, PredictSettings
from hound_plugin.evaluation.shards import Shard
from hound_plugin.own_model import (
    OwnGenerator,
    OwnPredictor,
    VllmGenerator,
    VllmPredictor,
    make_generator,
    make_predictor,
)
from hound_plugin.reward.candidates import BatchGenerator
from hound_plugin.reward.settings import SampleSettings
from tests.goldens import DPO, SFT

Make = Callable[..., Any]
ALONE = Shard()


def generator(backend: str, model: Path | str = SFT, **settings: Any) -> Any:
    return make_generator(SampleSettings(backend=backend, model=str(model), **settings))


def predictor(backend: str, model: Path | str = SFT, shard: Shard = ALONE, **settings: Any) -> Any:
    predict = PredictSettings(backend=backend, model=str(model), **settings)
    return make_predictor(EvaluationSettings(model=str(model), predict=predict), shard)


@pytest.mark.parametrize(
    ("make", "backend", "kind"),
    [
        (generator, "model", OwnGenerator),
        (generator, "vllm", VllmGenerator),
        (predictor, "model", OwnPredictor),
        (predictor, "vllm", VllmPredictor),
    ],
)
def test_a_model_is_sent_without_what_it_has_loaded(make: Make, backend: str, kind: type) -> None:
    first = make(backend, vllm={"max_num_seqs": 8} if backend == "vllm" else {})
    assert type(first) is kind
    loaded = {name for name, value in inspect.getmembers_static(kind) if isinstance(value, cached_property)}
    assert loaded
    for name in loaded:  # as if it had been used
        first.__dict__[name] = lambda: "cannot be sent"
    there = pickle.loads(pickle.dumps(first))
    assert there.identity == first.identity
    assert there._sampler == first._sampler
    assert not there.__dict__.keys() & loaded


def test_vllm_gets_many_questions_and_reads_its_clips_itself() -> None:
    assert isinstance(generator("vllm"), BatchGenerator)
    assert generator("vllm").questions_at_a_time == 128
    assert generator("vllm", batch_size=300).questions_at_a_time == 300
    assert not isinstance(generator("vllm"), ReadsAhead)
    assert not isinstance(generator("model"), BatchGenerator)
    assert isinstance(generator("model"), ReadsAhead)


@pytest.mark.parametrize("make", [generator, predictor])
@pytest.mark.parametrize("backend", ["model", "vllm"])
def test_an_adapter_is_known_by_its_model_too(make: Make, backend: str, tmp_path: Path) -> None:
    """The same adapter on another model gives other answers, so it may not go on in the same folder."""
    identities = []
    for number, base in enumerate((SFT, SFT, DPO)):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
        (folder / "adapter_model.safetensors").write_bytes(b"weights")
        weights = {name: make(backend, folder).identity[name] for name in ("checkpoint", "merged_into")}
        identities.append(weights["merged_into"])
    assert identities[0] == identities[1] != identities[2]
    assert make(backend, DPO).identity["checkpoint"] == identities[2]


@pytest.mark.parametrize("make", [generator, predictor])
def test_only_what_changes_answers_makes_another_sampler(make: Make) -> None:
    plain = make("vllm").identity
    assert make("vllm", vllm={"tensor_parallel_size": 2, "gpu_memory_utilization": 0.5}).identity == plain
    for settings in ({"vllm": {"quantization": "fp8"}}, {"dtype": "float16"}, {"num_frames": 16}):
        assert make("vllm", **settings).identity != plain, settings
    assert make("model").identity != plain


def test_a_back_end_that_is_not_here_or_not_taken_is_refused() -> None:
    with pytest.raises(SettingsError, match="backend vllm: expected one process, got several of torchrun"):
        predictor("vllm", shard=Shard(0, 2))
    pytest.importorskip("llamafactory", reason="where the host is, vLLM is not")
    with pytest.raises(EnvironmentMismatchError, match="backend vllm: vLLM is not installed in this environment"):
        generator("vllm").sample("What?", None, [0])
