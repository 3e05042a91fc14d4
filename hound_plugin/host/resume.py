"""Which checkpoint a stopped training goes on from: the last one of this run that was written to its end."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers.utils import logging

from hound_plugin.errors import SettingsError
from hound_plugin.host import settings_state
from hound_plugin.records.files import write_json

logger = logging.get_logger(__name__)

_NAME = re.compile(r"checkpoint-(\d+)")
STATE = "trainer_state.json"
"""The trainer writes this file last (transformers 5.5, ``Trainer._save_checkpoint``)."""
RUN = "hound_run.json"
"""In each checkpoint: which run it belongs to."""


def is_complete(checkpoint: Path) -> bool:
    """Whether the trainer finished writing a checkpoint folder."""
    return _read(checkpoint / STATE) is not None


def last_complete(original: Callable[[str], str | None], folder: str) -> str | None:
    """``transformers.trainer_utils.get_last_checkpoint``, past checkpoints that a kill or a full disk broke off.

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
    found: str | None = last
    if not is_complete(Path(last)):
        numbered = [(int(match[1]), path) for path in Path(folder).iterdir() if (match := _NAME.fullmatch(path.name))]
        complete = [str(path) for _, path in sorted(numbered) if is_complete(path)]
        found = complete[-1] if complete else None
        logger.warning(
            f"{last} was not written to its end ({STATE} is missing or cut): the training goes on from "
            f"{found or 'the beginning'}."
        )
    if found is not None:
        _check_run(Path(found))
    return found


def settle_resume(original: Callable[[str], str | None], training_args: Any) -> None:
    """Turn ``resume_from_checkpoint: true`` into the path of the last complete checkpoint of ``output_dir``.

    Raises:
        SettingsError: there is none, or it belongs to another run.
    """
    if str(training_args.resume_from_checkpoint).lower() != "true":
        return
    folder = training_args.output_dir
    found = last_complete(original, folder) if os.path.isdir(folder) else None
    if found is None:
        raise SettingsError(
            f"Expected a complete checkpoint in output_dir ({folder}) for `resume_from_checkpoint: true`; there is "
            "none. Remove the key: a training goes on by itself where its output_dir holds a checkpoint, and begins "
            "otherwise."
        )
    training_args.resume_from_checkpoint = found


def signed_checkpoint(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    """``Trainer._save_checkpoint``, then a note of the run that the checkpoint belongs to."""
    result = original(self, *args, **kwargs)
    folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
    if self.is_world_process_zero() and folder.is_dir():
        write_json(folder / RUN, settings_state.run())
    return result


def _check_run(checkpoint: Path) -> None:
    before, now = _read(checkpoint / RUN), settings_state.run()
    differing = [name for name in now if before is not None and name in before and before[name] != now[name]]
    if before is not None and differing:
        changes = "; ".join(f"{name}: {before[name]!r} there, {now[name]!r} now" for name in differing)
        raise SettingsError(
            f"{checkpoint} belongs to another run ({changes}). Choose another `output_dir`, set "
            f"`overwrite_output_dir: true`, or go on from it all the same with `resume_from_checkpoint: {checkpoint}`."
        )


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
