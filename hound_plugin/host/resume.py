"""Which checkpoint a stopped training resumes from: the last complete one of this run."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.serialization import register_package
from transformers.trainer_callback import TrainerState
from transformers.trainer_utils import TrainOutput
from transformers.utils import logging

from hound_plugin.errors import DiskFullError, SettingsError
from hound_plugin.host import media_stamps, run_identity, settings_state, step_report
from hound_plugin.host.whole_saves import HALF, save_with_processor
from hound_plugin.model.adapters import BASE_WEIGHTS, BELOW, RUN
from hound_plugin.model.weights_identity import weights_of
from hound_plugin.records.files import full_disk_named, write_json

logger = logging.get_logger(__name__)

_NAME = re.compile(r"checkpoint-(\d+)")
_CPU = re.compile(r"cpu:\d+")
STATE = "trainer_state.json"
"""The trainer writes this file last (transformers 5.5, ``Trainer._save_checkpoint``)."""
RESULTS = "train_results.json"
"""What the host writes of a training, in its ``output_dir``."""
_chosen: set[str] = set()  # checkpoints that were found, not named by the user


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
        SettingsError: it belongs to a run with another model, data set, stage or other settings.
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
    _chosen.clear()
    named = training_args.resume_from_checkpoint
    if str(named).lower() != "true":
        if isinstance(named, str) and named.lower() != "false" and not is_complete(Path(named)):
            raise SettingsError(
                f"Expected a complete checkpoint in `resume_from_checkpoint: {named}`; "
                + (f"its {STATE} is missing or cut off." if os.path.isdir(named) else "there is no such folder.")
                + " Name another one, or remove the key."
            )
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
    have. A run that has ended with its model is left to :func:`settled_training`.

    Args:
        original: the trainer's method.
        self: the trainer.
        max_steps, num_update_steps_per_epoch, num_train_epochs: steps of this run and of an epoch, and epochs.
        resume_from_checkpoint: what the training resumes from, or None.
        args, kwargs: further arguments of the method.

    Raises:
        SettingsError: the checkpoint has more steps than this run, or the run is finished.
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
        self._hound_finished = True  # its model was saved, too
        raise SettingsError(finished_message(self))
    logger.warning(
        f"{resume_from_checkpoint} has all {done} steps of this run: nothing is left to train; the model is saved."
    )
    self._hound_trains_nothing = True
    return num_train_epochs, 0


def settled_training(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    """``Trainer.train``: a finished run that is started again says so, and keeps its model, its log and its results.

    The command ends with 0, as it does for a run that trains, so that scripts that restart jobs until they are done
    can move on. What the recipe asks for after the training (``do_eval``, ``do_predict``) is done with the saved model.

    Raises:
        SettingsError: under DeepSpeed or FSDP, where that model is not loaded, something is to follow the training.
    """
    step_report.report(self)
    try:
        output: TrainOutput = original(self, *args, **kwargs)
    except SettingsError as error:
        if not getattr(self, "_hound_finished", False):
            raise
        logger.warning(str(error))
        return _keep_finished(self)
    if getattr(self, "_hound_trains_nothing", False):  # the mean loss and speed of no steps would be 0
        for measured in (output.metrics, *self.state.log_history[-1:]):
            for name in [name for name in measured if name.startswith("train_")]:
                del measured[name]
    return output


def _keep_finished(self: Any) -> TrainOutput:
    """What a finished run's trainer returns to the host, which logs and saves it again."""
    folder = Path(self.args.output_dir)
    if (self.is_deepspeed_enabled or self.is_fsdp_enabled) and (self.args.do_eval or self.args.do_predict):
        raise SettingsError(
            f"The training in {folder} is finished. To evaluate its model, set `do_train: false` and "
            f"`model_name_or_path: {folder}`."
        )
    self.state = TrainerState.load_from_json(str(folder / STATE))
    if self.args.load_best_model_at_end and os.path.isdir(self.state.best_model_checkpoint or ""):
        self._load_best_model()
    self.save_model = self.save_state = _keep
    results = _read(folder / RESULTS) or {}
    return TrainOutput(self.state.global_step, results.get("train_loss", 0.0), results)


def _keep(*args: Any, **kwargs: Any) -> None:
    """Instead of a write: what is there is the finished run's."""


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


def finished_message(trainer: Any) -> str:
    """The message for a run that is started again although all of its steps are done and its model is saved."""
    return (
        f"The training in {trainer.args.output_dir} is finished, with all {trainer.state.global_step} steps: its model "
        "is there, and nothing is trained. To train further, raise `max_steps` or `num_train_epochs`; to start over, "
        "choose another `output_dir`."
    )


def signed_checkpoint(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    """``Trainer._save_checkpoint``, then a note of the run that the checkpoint belongs to.

    Raises:
        DiskFullError: there is too little space; what was written of this checkpoint is removed, earlier ones stay.
    """
    folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
    try:
        with full_disk_named(folder):
            result = original(self, *args, **kwargs)
    except DiskFullError:
        if not is_complete(folder):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    if self.is_world_process_zero() and folder.is_dir():
        write_json(folder / RUN, {**(_read(folder / RUN) or {}), **settings_state.run()})
        stamps = settings_state.media()
        if stamps is not None:
            media_stamps.write(folder, stamps)
    return result


def saved_by_all(original: Callable[..., Any], self: Any, output_dir: str) -> None:
    """``Trainer._save_rng_state``, the last thing that every process writes before one of them writes :data:`STATE`."""
    original(self, output_dir)
    self.accelerator.wait_for_everyone()


def signed_model(
    original: Callable[..., Any], self: Any, output_dir: str | None = None, *args: Any, **kwargs: Any
) -> Any:
    """``Trainer.save_model``, then the processor, and a note with an adapter: those below it, and its base's weights.

    peft names only the base.

    Raises:
        DiskFullError: there is too little space.
    """
    run, folder = settings_state.run(), Path(output_dir or self.args.output_dir)
    kept = () if output_dir and Path(output_dir) != Path(self.args.output_dir) else (HALF,)
    with full_disk_named(folder, *kept):
        result = save_with_processor(self, lambda: original(self, output_dir, *args, **kwargs), folder)
    adapters = run.get("adapter_name_or_path") or []
    below = adapters if run.get("create_new_adapter") else adapters[:-1]
    if run.get("finetuning_type") == "lora" and self.is_world_process_zero() and folder.is_dir():
        base = run.get("model_name_or_path") or ""
        note: dict[str, Any] = {BASE_WEIGHTS: weights_of(base)} if os.path.isdir(base) else {}
        if below:
            note[BELOW] = [os.path.abspath(item) if os.path.isdir(item) else item for item in below]
        if note:
            write_json(folder / RUN, {**run, **note})
    return result


def check_content(
    rows: dict[str, str], models: dict[str, str], files: dict[str, dict[str, str]], checkpoint: str | None
) -> None:
    """Refuse rows and models that are others than those of a checkpoint's run, unless the user named it.

    Args:
        rows: :func:`hound_plugin.host.token_notes.rows_of`.
        models: :func:`hound_plugin.host.run_identity.models_of`.
        files: :func:`hound_plugin.host.run_identity.model_files_of`.
        checkpoint: what the training resumes from.

    Raises:
        SettingsError: naming the data sets and folders.
    """
    before = (_read(Path(checkpoint) / RUN) if checkpoint and checkpoint in _chosen else None) or {}
    changed = run_identity.changed_rows(before, rows)
    if changed:
        raise SettingsError(
            f"{checkpoint} was trained on other rows ({'; '.join(changed)}). Bring back what its steps have seen, or "
            + _instead(checkpoint)
        )
    changed = run_identity.changed_models(before, models) + run_identity.changed_model_files(before, files)
    if changed:
        raise SettingsError(
            f"{checkpoint} is of a training that began with another model ({'; '.join(changed)} then). Bring it back, "
            "or " + _instead(checkpoint)
        )


def check_media(paths: Sequence[str], stamps: np.ndarray, checkpoint: str | None) -> None:
    """Refuse media of other sizes than a checkpoint's run had, unless the user named it; warn of other times.

    Args:
        paths: of the media of the training's rows, in a fixed order.
        stamps: :func:`hound_plugin.host.media_stamps.stamps_of` these.
        checkpoint: what the training resumes from.

    Raises:
        SettingsError: naming the first one.
    """
    before = media_stamps.read(Path(checkpoint)) if checkpoint and checkpoint in _chosen else None
    if before is None:
        return
    if len(before) != len(stamps):
        logger.warning(
            f"{checkpoint} notes {len(before):,} media and this run has {len(stamps):,} (`check_media`, or rows that "
            "are left out): whether clips have been replaced since is not known."
        )
        return
    sizes, times = (np.flatnonzero(before[:, column] != stamps[:, column]) for column in range(2))
    if len(sizes):
        first = sizes[0]
        raise SettingsError(
            f"{checkpoint} was trained on other media: {len(sizes):,} of {len(paths):,} have other sizes now, the "
            f"first of them {paths[first]} ({before[first, 0]:,} bytes there, {stamps[first, 0]:,} now; -1: it cannot "
            "be examined). Bring back what its steps have seen, or " + _instead(checkpoint)
        )
    if len(times):
        logger.warning(
            f"{len(times):,} of {len(paths):,} media were changed or copied since {checkpoint} was saved, the first of "
            f"them {paths[times[0]]}: their sizes are the same. If their content is not, start over in another "
            "`output_dir`."
        )


def _check_run(checkpoint: Path) -> None:
    before, now = _read(checkpoint / RUN) or {}, settings_state.run()
    _chosen.add(str(checkpoint))
    differing = run_identity.changed_settings(before, now)
    if differing:
        changes = "; ".join(f"{_words(name)}: {before[name]!r} there, {now[name]!r} now" for name in differing)
        raise SettingsError(
            f"{checkpoint} belongs to another run ({changes}). Set back what has changed, or " + _instead(checkpoint)
        )
    if "seed" not in before:
        logger.warning(
            f"{checkpoint} was saved by an earlier version, which did not note settings and rows: whether they have "
            "changed since is not known."
        )
    elif {run_identity.BATCH} <= before.keys() & now.keys() and before[run_identity.BATCH] != now[run_identity.BATCH]:
        logger.warning(
            f"{checkpoint} was trained with {before[run_identity.BATCH]} rows a step on "
            f"{before[run_identity.PROCESSES]} processes, this run has {now[run_identity.BATCH]} on "
            f"{now[run_identity.PROCESSES]}: `gradient_accumulation_steps` can keep their number."
        )


def _words(name: str) -> str:
    batch = "per_device_train_batch_size * gradient_accumulation_steps * processes"
    return batch if name == run_identity.BATCH else name


def _instead(checkpoint: Any) -> str:
    return (
        "choose another `output_dir`, set `overwrite_output_dir: true`, or resume from it anyway with "
        f"`resume_from_checkpoint: {checkpoint}`."
    )


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
