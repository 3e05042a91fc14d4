"""Trainings whose loss is not finite stop in every stage; ``tests/options`` has the options of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.e2e.conftest import data_sets, recipe_for
from tests.e2e.together import train_together

pytestmark = pytest.mark.e2e


def test_a_reward_model_stops_too(tmp_path: Path) -> None:
    work = data_sets(tmp_path)
    values = recipe_for(work)("rm", "rm", dataset="dpo", learning_rate=1e10, max_steps=3)
    outcome = train_together(work, {"rm": values})["rm"]
    assert outcome.failed
    assert re.search(r"Training stops at step [23]: the loss is nan\. Rows of the batch: .*USER", outcome.output)
    assert not (outcome.folder / "model.safetensors").exists()
