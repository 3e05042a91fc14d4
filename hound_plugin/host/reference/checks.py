"""Runs that ``hound.reference_log_probs`` means nothing to, refused before any work."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hound_plugin.errors import SettingsError
from hound_plugin.host import patching
from hound_plugin.host.reference.identity import COLUMNS
from hound_plugin.host.reference.state import Arguments
from hound_plugin.host.settings_state import settings
from hound_plugin.settings import HoundSettings

_KEY = "hound.reference_log_probs"
_NEEDED = ("create_ref_model", "compute_reference_log_probs", "get_dataset")


def check_run(arguments: Arguments) -> None:
    """Check a training with ``reference_log_probs``.

    Raises:
        SettingsError: the run has no reference, has no fixed rows, or the path is unusable.
    """
    chosen = settings()
    stage, loss = arguments.finetuning.stage, arguments.finetuning.pref_loss
    if stage not in COLUMNS:
        raise SettingsError(
            f"{_KEY} is for `stage: dpo` and `stage: kto`; `stage: {stage}` has no reference. Remove it."
        )
    if not arguments.finetuning.use_ref_model and stage == "dpo":
        raise SettingsError(f"{_KEY}: `pref_loss: {loss}` compares with no reference. Remove the key.")
    if not arguments.training.do_train:
        raise SettingsError(f"{_KEY} is for trainings; got `do_train: false`. Remove it.")
    if arguments.data.streaming:
        raise SettingsError(f"{_KEY} needs rows that are known before the first step; set `streaming: false`.")
    if chosen.on_bad_media == "skip" and chosen.check_media != "all":
        raise SettingsError(
            f"{_KEY} with `on_bad_media: skip` needs `check_media: all`, which leaves out the rows of bad media before "
            f"the first step; got `check_media: {chosen.check_media}`."
        )
    moved = [name for name in _NEEDED if patching.is_missing(name)]
    if moved:
        raise SettingsError(
            f"{_KEY} has no effect with this release of the host ({', '.join(moved)}; see `hound doctor`). Remove it."
        )
    _check_path(chosen)


def _check_path(chosen: HoundSettings) -> None:
    path = Path(str(chosen.reference_log_probs))
    if path.is_dir():
        raise SettingsError(f"{_KEY}: expected a file; {path} is a folder. Name a file in it.")
    if path.exists():
        return
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise SettingsError(f"{_KEY}: {path} is not there, and cannot be written in {parent}. Name another file.")


def arguments_of(parsed: list[Any]) -> Arguments | None:
    """The arguments of a training or its evaluation; None where the host parsed those of another command."""
    names = ("adapter_name_or_path", "mix_strategy", "do_train", "pref_loss")
    parts = [next((part for part in parsed if hasattr(part, name)), None) for name in names]
    return None if any(part is None for part in parts) else Arguments(*parts)
