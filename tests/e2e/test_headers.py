"""The training and prediction commands in the headers of the recipes run as they stand, on the demo's files."""

from __future__ import annotations

import shlex

import pytest

from hound_plugin.cli import main
from tests.e2e.together import Outcome, run_together
from tests.test_commands import RECIPES, recipe_commands

pytestmark = pytest.mark.long


def demo_commands() -> dict[str, list[str]]:
    """Arguments behind ``llamafactory-cli train``, of the commands for the demo, by recipe."""
    found = {}
    for path in RECIPES:
        for command in recipe_commands(path):
            words = shlex.split(command)
            if "train" in words and "dataset_dir=demo/data" in words:
                found[path.stem] = words[words.index("train") + 1 :]
    return found


COMMANDS = demo_commands()


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    folder = tmp_path_factory.mktemp("headers")
    assert main(["demo", "--folder", str(folder / "demo")]) == 0
    (folder / "demo" / "runs").mkdir(exist_ok=True)
    if not (folder / "demo" / "runs" / "dpo").exists():  # a trained model is one of the same layout
        (folder / "demo" / "runs" / "dpo").symlink_to(folder / "demo" / "model")

    def here(word: str) -> str:
        key, equals, value = word.partition("=")
        moved = equals and value.split("/")[0] in ("demo", "saves")
        return f"{key}={folder / value}" if moved else word

    return run_together(folder, {name: [here(word) for word in words] for name, words in COMMANDS.items()}, timeout=900)


def test_every_recipe_of_a_training_has_a_command_for_the_demo() -> None:
    trained = {path.stem for path in RECIPES if path.stem.startswith("hound_") and "\nstage:" in path.read_text()}
    assert trained - {"hound_reward"} <= COMMANDS.keys() | {"hound_export", "hound_kto"}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_header_runs(name: str, ran: dict[str, Outcome]) -> None:
    outcome = ran[name]
    assert not outcome.failed, outcome.output[-4000:]
    if name == "hound_predict":
        assert len((outcome.folder / "generated_predictions.jsonl").read_text().splitlines()) == 4
    else:
        assert len(outcome.losses) >= 1
