"""Values of a recipe are of their argument's type, or refused by name before the host's own code meets them."""

from __future__ import annotations

from typing import Any

import pytest
from llamafactory.hparams import get_train_args

from hound_plugin.errors import SettingsError
from tests.goldens import SFT

RECIPE = {
    "model_name_or_path": str(SFT),
    "template": "llava_hound",
    "stage": "sft",
    "do_train": True,
    "dataset": "sft",
    "report_to": "none",
    "output_dir": "saves",
}


def parsed(**values: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in get_train_args({**RECIPE, **values}):
        found |= {name: getattr(part, name) for name in values if hasattr(part, name)}
    return found


@pytest.mark.parametrize(
    ("name", "written", "meant"),
    [
        ("cutoff_len", "1024", 1024),
        ("cutoff_len", 512.0, 512),
        ("pref_beta", "0.2", 0.2),
        ("pref_beta", 1, 1),
        ("freeze_vision_tower", "false", False),
        ("freeze_multi_modal_projector", "False", False),
        ("create_new_adapter", "true", True),
        ("max_samples", "7", 7),
        ("max_samples", None, None),
        ("dataset", ["sft", "more"], ["sft", "more"]),
        ("lora_target", ["q_proj", "v_proj"], ["q_proj", "v_proj"]),
        ("save_strategy", "no", "no"),
    ],
)
def test_a_value_is_taken_as_its_type(name: str, written: Any, meant: Any) -> None:
    assert parsed(**{name: written})[name] == meant


@pytest.mark.parametrize("written", [False, None])
def test_a_training_that_does_not_resume(written: object) -> None:
    assert not parsed(resume_from_checkpoint=written)["resume_from_checkpoint"]


def test_a_list_of_adapters_is_the_list_that_commas_separate() -> None:
    lists = parsed(finetuning_type="lora", adapter_name_or_path=["saves/a", "saves/b"], create_new_adapter=True)
    assert lists["adapter_name_or_path"] == ["saves/a", "saves/b"]


@pytest.mark.parametrize(
    ("name", "written", "message"),
    [
        ("cutoff_len", "long", "`cutoff_len`: expected a whole number, got 'long'"),
        ("cutoff_len", "10.5", "a whole number"),
        ("lora_rank", 4.5, "a whole number, got 4.5"),
        ("lora_rank", True, "a whole number, got True"),
        ("learning_rate", "nan", "a number, got 'nan'"),
        ("learning_rate", float("inf"), "a number, got inf"),
        ("freeze_vision_tower", "maybe", "true or false, got 'maybe'"),
        ("freeze_vision_tower", [False], "true or false"),
        ("lora_target", None, "`lora_target`: expected text, or several separated by commas, got null"),
        ("default_system", 7, "`default_system`: expected text, got 7"),
        ("default_system", ["Watch."], "expected text, got "),
        ("pref_loss", "Hinge", "one of sigmoid, hinge, ipo, .*got 'Hinge'"),
        ("pref_loss", "robust", "one of sigmoid"),
        ("pref_loss", ["hinge", "ipo"], "one of sigmoid"),
        ("pref_loss", None, "one of sigmoid"),
        ("stage", "sfft", "one of pt, sft"),
        ("save_strategy", False, 'YAML reads no and yes.*write "no"'),
    ],
)
def test_a_value_of_another_type_is_refused(name: str, written: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        parsed(**{name: written})


def test_all_of_them_are_named_at_once() -> None:
    with pytest.raises(SettingsError, match=r"`cutoff_len`.*`lora_rank`"):
        parsed(cutoff_len="long", lora_rank="high")
