"""The line of a training's log that says which settings save work in it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoModelForImageTextToText

import hound_plugin  # noqa: F401  (activates)
from hound_plugin.host import settings_state, step_report
from hound_plugin.host.reference.state import STATE
from hound_plugin.settings import HoundSettings
from tests.goldens import SFT


def trainer(model: Any = None, **values: Any) -> Any:
    given = {"label_smoother": None, "loss_type": "sigmoid", **values}
    use_reference = given["loss_type"] not in ("orpo", "simpo")
    return SimpleNamespace(model=model, finetuning_args=SimpleNamespace(use_ref_model=use_reference), **given)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Any:
    def reasons(stage: str, block: dict[str, Any], own: Any, arguments: Any = None) -> dict[str, str | None]:
        monkeypatch.setattr(settings_state, "_stage", stage)
        monkeypatch.setattr(settings_state, "_settings", HoundSettings(**block))
        monkeypatch.setattr(STATE, "arguments", arguments)
        return step_report.reasons_against(own)

    return reasons


def test_pairs(said: Any) -> None:
    model = AutoModelForImageTextToText.from_pretrained(SFT)
    pairs = trainer(model)
    assert said("dpo", {}, pairs) == {
        "prefix_sharing": None,
        "answers_only": None,
        "reference_log_probs": "no file is set",
        "feature_cache": "no folder is set",
    }
    off = said("dpo", {"answers_only": "off"}, pairs)
    assert (off["prefix_sharing"], off["answers_only"]) == ("answers_only: off", "answers_only: off")
    assert said("dpo", {}, pairs, arguments=object())["reference_log_probs"] is None
    assert said("kto", {}, pairs) == said("dpo", {}, pairs)
    lossless = said("dpo", {}, trainer(model, loss_type="orpo"))
    assert lossless["reference_log_probs"] == "pref_loss: orpo has no reference"


def test_other_stages(said: Any) -> None:
    assert said("sft", {}, trainer()) == {
        "answers_only": None,
        "group_questions": "no number is set",
        "feature_cache": "no folder is set",
    }
    assert said("sft", {"group_questions": 3}, trainer())["group_questions"] is None
    assert said("sft", {}, trainer(label_smoother=object()))["answers_only"] == "the loss reads all logits"
    assert said("rm", {}, trainer()) == {"feature_cache": "no folder is set"}
    assert said("pt", {}, trainer()) == {}
