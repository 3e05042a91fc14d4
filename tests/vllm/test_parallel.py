"""The model shared out between two processes, each with one half of its layers' widths."""

from __future__ import annotations

from pathlib import Path

import pytest

from hound_plugin.errors import SettingsError
from tests.vllm.conftest import Demo
from tests.vllm.conversations import Ids, Messages, OtherEngine, about_each, conversations, ids_of_ours
from tests.vllm.variants import widened

ANSWER = 24  # tokens


@pytest.fixture(scope="module")
def wide(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return widened(demo.model, tmp_path_factory.mktemp("wide") / "model")


@pytest.fixture(scope="module")
def asked(demo: Demo) -> list[Messages]:
    return [*conversations(demo).values(), *about_each(demo)]


@pytest.fixture(scope="module")
def expected(wide: Path, asked: list[Messages]) -> list[Ids]:
    """By our own path."""
    import hound_plugin

    hound = hound_plugin.load(str(wide), "cpu", "float32")
    return [ids_of_ours(hound, messages, ANSWER) for messages in asked]


@pytest.mark.long
@pytest.mark.parametrize("processes", [1, 2])
def test_the_same_tokens(
    processes: int, demo: Demo, wide: Path, asked: list[Messages], expected: list[Ids], tmp_path: Path
) -> None:
    made, _ = OtherEngine(wide, demo.folder, tmp_path).answers(asked, ANSWER, tensor_parallel_size=processes)
    assert [prompt for prompt, _ in made] == [prompt for prompt, _ in expected]
    different = [number for number, (_, ids) in enumerate(made) if ids != expected[number][1]]
    assert not different, f"{len(different)} of {len(asked)}: {different[:10]}"
    assert len({tuple(ids) for _, ids in made}) > 5


def test_a_width_that_cannot_be_halved_is_refused_before_anything_starts(demo: Demo) -> None:
    from hound_plugin.vllm.engine import VllmModel

    with pytest.raises(SettingsError, match="expected a divisor of 341, the model's intermediate_size, got 2"):
        VllmModel(str(demo.model), "float32", engine={"tensor_parallel_size": 2})


def test_layers_that_are_shared_out_are_refused_on_a_cpu(demo: Demo) -> None:
    """A plain LLaMA ends vLLM's engine there as well, with a KeyError at the first step."""
    from hound_plugin.vllm.engine import VllmModel

    with pytest.raises(SettingsError, match="pipeline_parallel_size: expected 1"):
        VllmModel(str(demo.model), "float32", engine={"pipeline_parallel_size": 2})
