"""Which checkpoint a stopped training resumes from: the last complete one of this run."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.serialization import register_package
from transformers.utils import logging

from hound_plugin.errors import SettingsError
from hound_plugin.host import settings_state
from hound_plugin.records.files import write_json

logger = logging.get_logger(__name__)

_NAME = re.compile(r"checkpoint-(\d+)")
_CPU = re.compile(r"cpu:\d+")
STATE = "trainer_state.json"
"""The trainer writes this file last (transformers 5.5, ``Trainer._save_checkpoint``)."""
RUN = "hound_run.json"
"""In each checkpoint: which run it belongs to."""


def is_complete(checkpoint: Path) -> bool:
    """Whether the trainer finished writing a checkpoint folder."""
    return _read(checkpoint / STATE) is not None


def last_complete(original: Callable[[str], str | None], folder: str) -> str | None:
    """``transformers.trainer_utils.get_last_checkpoint``, without those that a kill or a full disk cut off.

    Args:
        original: that function.
        folder: the training's ``output_dir``.

    Returns:
        The path of the last complete checkpoint, or None.

    Raises:
        SettingsError: it belongs to another model, data set or stage.
    """
    last = original(folder)
    if last is None:
        return None
    checkpoint: str | None = last
    if not is_complete(Path(last)):
        numbered = [(int(match[1]), path) for path in Path(folder).iterdir() if (match := _NAME.fullmatch(path.name))]
        complete = [str(path) for _, path in sorted(numbered) if is_complete(path)]
        checkpoint = complete[-1] if complete else None
        logger.warning(
            f"{last} is incomplete ({STATE} is missing or cut off): the training resumes from "
            f"{checkpoint or 'the beginning'}."
        )
    if checkpoint is not None:
        _check_run(Path(checkpoint))
    return checkpoint


def settle_resume(original: Callable[[str], str | None], training_args: Any) -> None:
    """Turn ``resume_from_checkpoint: true`` into the path of the last complete checkpoint of ``output_dir``.

    Raises:
        SettingsError: there is none, or it belongs to another run.
    """
    if str(training_args.resume_from_checkpoint).lower() != "true":
        return
    folder = training_args.output_dir
    checkpoint = last_complete(original, folder) if os.path.isdir(folder) else None
    if checkpoint is None:
        raise SettingsError(
            f"Expected a complete checkpoint in output_dir ({folder}) for `resume_from_checkpoint: true`; there is "
            "none. Remove the key: a training resumes by itself if its output_dir has a checkpoint, and starts "
            "from the beginning otherwise."
        )
    training_args.resume_from_checkpoint = checkpoint


def settled_start(
    original: Callable[..., Any],
    self: Any,
    max_steps: int,
    num_update_steps_per_epoch: int,
    num_train_epochs: int,
    resume_from_checkpoint: Any,
    *args: Any,
    **kwargs: Any,
) -> tuple[int, int]:
    """``Trainer._init_training_state``, which does not notice a checkpoint with more steps than the run has.

    A run that was killed after its last step, before its model was saved, takes no further step and ends as it would
    have.

    Args:
        original: the trainer's method.
        self: the trainer.
        max_steps, num_update_steps_per_epoch, num_train_epochs: steps of this run and of an epoch, and epochs.
        resume_from_checkpoint: what the training resumes from, or None.
        args, kwargs: further arguments of the method.

    Raises:
        SettingsError: the checkpoint has more steps than this run.
    """
    read_numbered_cpus()
    begin: tuple[int, int] = original(
        self, max_steps, num_update_steps_per_epoch, num_train_epochs, resume_from_checkpoint, *args, **kwargs
    )
    done = self.state.global_step
    if resume_from_checkpoint is None or done < max_steps:
        return begin
    if done > max_steps:
        raise SettingsError(complete_message(self, resume_from_checkpoint))
    if (_read(Path(self.args.output_dir) / STATE) or {}).get("global_step") == done:
        return begin  # it was saved, too
    logger.warning(
        f"{resume_from_checkpoint} has all {done} steps of this run: nothing is left to train; the model is saved."
    )
    return num_train_epochs, 0


@functools.cache
def read_numbered_cpus() -> None:
    """Let ``torch.load`` map to ``cpu:0`` and ``cpu:1``, as the trainer asks for under torchrun without a GPU."""
    register_package(5, lambda _: None, lambda storage, place: storage if _CPU.fullmatch(place) else None)


def complete_message(trainer: Any, checkpoint: Any) -> str:
    """Why a training cannot resume from a checkpoint that has all of its steps, or more."""
    folder, state = trainer.args.output_dir, trainer.state
    return (
        f"The training in {folder} is complete: its checkpoint{f' {checkpoint}' if checkpoint else ''} is at step "
        f"{state.global_step}, and this run has {state.max_steps}. Raise `max_steps` or `num_train_epochs`, choose "
        "another `output_dir`, or set `overwrite_output_dir: true` (checkpoints of an earlier run stay there: delete "
        "them)."
    )


def signed_checkpoint(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    """``Trainer._save_checkpoint``, then a note of the run that the checkpoint belongs to."""
    result = original(self, *args, **kwargs)
    folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
    if self.is_world_process_zero() and folder.is_dir():
        write_json(folder / RUN, settings_state.run())
    return result


def _check_run(checkpoint: Path) -> None:
    before, now = _read(checkpoint / RUN), settings_state.run()
    differing = [n for n in now if before is not None and n in before and _real_path(before[n]) != _real_path(now[n])]
    if before is not None and differing:
        changes = "; ".join(f"{name}: {before[name]!r} there, {now[name]!r} now" for name in differing)
        raise SettingsError(
            f"{checkpoint} belongs to another run ({changes}). Choose another `output_dir`, set "
            f"`overwrite_output_dir: true`, or resume from it anyway with `resume_from_checkpoint: {checkpoint}`."
        )


def _real_path(value: Any) -> Any:
    """A folder by its real path, however it is written; other values as they are."""
    if isinstance(value, list):
        return [_real_path(item) for item in value]
    return os.path.realpath(value) if isinstance(value, str) and os.path.isdir(value) else value


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
