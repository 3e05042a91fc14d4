"""Trainings whose loss is not finite stop in every stage; ``tests/options`` has the options of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.e2e.conftest import data_sets, recipe_for
from tests.e2e.together import train_together
from tests.goldens import SFT
from tests.model.test_checkpoint_conversion import copy_of, tensors

pytestmark = pytest.mark.e2e


def test_a_reward_model_of_weights_that_are_not_finite(tmp_path: Path) -> None:
    broken = copy_of(SFT, tmp_path / "broken")
    held = tensors(broken)
    name = next(name for name in held if name.endswith("layers.0.self_attn.q_proj.weight") and "tower" not in name)
    held[name] = torch.full_like(held[name], float("inf"))
    save_file(held, broken / "model.safetensors", {"format": "pt"})
    work = data_sets(tmp_path)
    values = recipe_for(work)("rm", "rm", dataset="dpo", model_name_or_path=str(broken), max_steps=2)
    outcome = train_together(work, {"rm": values})["rm"]
    assert outcome.failed
    assert "Training stops at step 1: the loss is nan. Rows of the batch: " in outcome.output
    assert not (outcome.folder / "model.safetensors").exists()
