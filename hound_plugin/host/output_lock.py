"""One training at a time writes to an ``output_dir``: two would remove and mix each other's checkpoints."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers.utils import logging

from hound_plugin.errors import InUseError, SettingsError
from hound_plugin.records.files import HeldLock, hold
from hound_plugin.records.run_folders import TRAINING_LOCK

logger = logging.get_logger(__name__)

_trains = False  # whether this process is in the host's function that trains; others parse recipes, too
_lock: HeldLock | None = None


def locked_training(original: Callable[..., Any], config: Any, *args: Any, **kwargs: Any) -> Any:
    """``llamafactory.train.tuner._training_function``, whose arguments are parsed within it."""
    global _trains
    _trains = True
    try:
        return original(config, *args, **kwargs)
    finally:
        _trains = False
        _release()


def lock_output(training_args: Any) -> None:
    """Called with parsed training arguments: lock ``output_dir`` until the training or its process ends.

    Only the first of several processes holds the lock. Nothing happens where a recipe is read without being trained.

    Raises:
        InUseError: another training is writing there.
    """
    global _lock
    if not _trains or os.environ.get("RANK", "0") != "0":
        return
    _release()
    folder = Path(training_args.output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _lock = hold(
            folder / TRAINING_LOCK,
            f"Another training is writing to {folder} (`output_dir`). Wait for it, end it, or choose another folder.",
        )
    except InUseError:
        raise
    except (SettingsError, OSError) as error:  # the trainer itself says what it cannot write
        logger.warning(f"{folder} cannot be locked ({error}): do not start a second training there.")


def _release() -> None:
    global _lock
    if _lock is not None:
        _lock.release(remove=True)
        _lock = None
