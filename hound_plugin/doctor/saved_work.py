"""Which of the settings that save work in a training are active in this environment, and why the others are not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hound_plugin.errors import SettingsError
from hound_plugin.settings import ENVIRONMENT_PREFIX, HoundSettings

from .child import Outcome
from .report import OK, WARN, Check


@dataclass(frozen=True)
class _Saving:
    """A setting that saves work.

    Attributes:
        needs: names of the host that it patches, as the catalogue of :mod:`hound_plugin.host.patches` has them.
        stages: where it is active.
        unless: why it is off by these settings, which the environment may change; None if it is not.
    """

    needs: tuple[str, ...]
    stages: str
    unless: Callable[[HoundSettings], str | None]


def _off(*names: str) -> Callable[[HoundSettings], str | None]:
    def reason(settings: HoundSettings) -> str | None:
        return next((f"{name} is off by {_variable(name)}" for name in names if getattr(settings, name) == "off"), None)

    return reason


def _unset(name: str, example: str) -> Callable[[HoundSettings], str | None]:
    def reason(settings: HoundSettings) -> str | None:
        return None if getattr(settings, name) else f"off until it is set, as `hound.{name}={example}`"

    return reason


_TRAIN = "llamafactory.train"
_LABELLED, _SUPERVISED = f"{_TRAIN}.kto.trainer:CustomKTOTrainer", f"{_TRAIN}.sft.trainer:CustomSeq2SeqTrainer"
_PAIRS = f"{_TRAIN}.dpo.trainer:CustomDPOTrainer"
SAVINGS: dict[str, _Saving] = {
    "prefix_sharing": _Saving(
        (f"{_PAIRS}.concatenated_forward", f"{_LABELLED}.concatenated_forward"),
        "DPO, ORPO, SimPO and KTO",
        _off("prefix_sharing", "answers_only"),
    ),
    "answers_only": _Saving(
        (f"{_PAIRS}.concatenated_forward", f"{_LABELLED}.concatenated_forward", f"{_SUPERVISED}.compute_loss"),
        "DPO, ORPO, SimPO, KTO and SFT",
        _off("answers_only"),
    ),
    "reference_log_probs": _Saving(
        (
            f"{_PAIRS}.compute_reference_log_probs",
            f"{_TRAIN}.dpo.workflow:create_ref_model",
            f"{_LABELLED}.compute_reference_log_probs",
            f"{_TRAIN}.kto.workflow:create_ref_model",
        ),
        "DPO and KTO",
        _unset("reference_log_probs", "FILE"),
    ),
    "feature_cache": _Saving(
        tuple(f"{owner}._prepare_inputs" for owner in (_PAIRS, _LABELLED, _SUPERVISED)),
        "DPO, ORPO, SimPO, KTO, reward models and SFT",
        _unset("feature_cache", "FOLDER"),
    ),
    "group_questions": _Saving(
        (f"{_SUPERVISED}.get_train_dataloader", f"{_SUPERVISED}.compute_loss"), "SFT", _unset("group_questions", "3")
    ),
}


def _variable(name: str) -> str:
    return f"{ENVIRONMENT_PREFIX}{name.upper()}"


def check_saved_work(outcome: Outcome) -> Iterator[Check]:
    """One check a setting; a recipe may still change it, and the log of a training says what holds there.

    Args:
        outcome: of a child that ran ``host_patches.SCRIPT``.
    """
    try:
        settings = HoundSettings.build(None, os.environ)
    except SettingsError as error:
        yield Check("settings", WARN, str(error), "valid `HOUND_` variables", "Correct or unset the variable.")
        settings = HoundSettings()
    trainers = outcome.stage("patches: trainers")
    moved = {
        name: place["problem"]
        for place in (trainers.facts if trainers.ok else ())
        if place["problem"]
        for name in place["names"]
    }
    for name, saving in SAVINGS.items():
        problem = next((moved[need] for need in saving.needs if need in moved), None)
        if not trainers.ok or problem is not None:
            fix = "See the lines about the host."
            yield Check(name, WARN, f"not active: {problem or trainers.error}", f"active in {saving.stages}", fix)
            continue
        reason = saving.unless(settings)
        yield Check(name, OK, f"active in {saving.stages}" if reason is None else f"not active: {reason}")
