"""The model shared out between two processes: by halves of its layers' widths, or by layers."""

from __future__ import annotations

from pathlib import Path

import pytest

from hound_plugin.errors import SettingsError
from tests.vllm.conftest import Demo
from tests.vllm.conversations import Ids, Messages, OtherEngine, about_each, conversations, ids_of_ours
from tests.vllm.variants import widened

ANSWER = 24  # tokens
HALVES = ("tensor_parallel_size", "pipeline_parallel_size")


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
@pytest.mark.parametrize("sizes", [{}, *({name: 2} for name in HALVES)], ids=["one process", *HALVES])
def test_the_same_tokens(
    sizes: dict[str, int], demo: Demo, wide: Path, asked: list[Messages], expected: list[Ids], tmp_path: Path
) -> None:
    made, _ = OtherEngine(wide, demo.folder, tmp_path).answers(asked, ANSWER, **sizes)
    assert [prompt for prompt, _ in made] == [prompt for prompt, _ in expected]
    different = [number for number, (_, ids) in enumerate(made) if ids != expected[number][1]]
    assert not different, f"{len(different)} of {len(asked)}: {different[:10]}"
    assert len({tuple(ids) for _, ids in made}) > 5


def test_a_width_that_cannot_be_halved_is_refused_before_anything_starts(demo: Demo) -> None:
    from hound_plugin.vllm.engine import VllmModel

    with pytest.raises(SettingsError, match="expected a divisor of 341, the model's intermediate_size, got 2"):
        VllmModel(str(demo.model), "float32", engine={"tensor_parallel_size": 2})
