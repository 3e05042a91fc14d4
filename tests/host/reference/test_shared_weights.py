"""Frozen weights that policy and reference have in common are in memory once, and nothing else is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForImageTextToText

import hound_plugin  # noqa: F401  (activates)
from hound_plugin.host.reference.shared_weights import share
from tests.goldens import SFT


def load(dtype: torch.dtype = torch.float32) -> Any:
    return AutoModelForImageTextToText.from_pretrained(SFT, dtype=dtype)


@pytest.fixture
def policy() -> Any:
    model = load()
    model.requires_grad_(False)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("language_model" in name or "lm_head" in name)
    return model


def frozen_bytes(model: Any) -> int:
    return sum(parameter.nbytes for parameter in model.parameters() if not parameter.requires_grad)


def shared_names(policy: Any, reference: Any) -> set[str]:
    own = {parameter.data_ptr() for parameter in policy.parameters()}
    return {name for name, parameter in reference.named_parameters() if parameter.data_ptr() in own}


def test_frozen_towers_and_projector_are_shared(policy: Any) -> None:
    reference = load()
    before = {name: parameter.clone() for name, parameter in reference.named_parameters()}
    assert share(policy, reference) == frozen_bytes(policy) > 0
    names = shared_names(policy, reference)
    assert names == {name for name, parameter in policy.named_parameters() if not parameter.requires_grad}
    assert any("multi_modal_projector" in name for name in names)
    with torch.no_grad():  # a step of the policy
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)
    assert all(torch.equal(parameter, before[name]) for name, parameter in reference.named_parameters())
    assert share(policy, reference) == 0


def test_what_differs_stays_apart(policy: Any) -> None:
    reference = load()
    changed = "model.video_tower.encoder.layers.0.layer_norm1.weight"
    with torch.no_grad():
        reference.get_parameter(changed)[3] += 1e-3
    share(policy, reference)
    assert changed not in shared_names(policy, reference)
    assert share(policy, load(torch.bfloat16)) == 0
    assert share(policy, policy) == 0


def test_a_base_under_adapters_is_shared(policy: Any) -> None:
    adapted = get_peft_model(policy, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    reference = load()
    share(adapted, reference)
    assert any(name.endswith("q_proj.weight") and "language_model" in name for name in shared_names(adapted, reference))
    assert len(shared_names(adapted, reference)) == len(list(reference.parameters()))
