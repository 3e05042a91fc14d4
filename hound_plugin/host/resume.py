"""Which checkpoint a stopped training goes on from: the last one that was written to its end."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from transformers.utils import logging

logger = logging.get_logger(__name__)

_NAME = re.compile(r"checkpoint-(\d+)")
STATE = "trainer_state.json"
"""The trainer writes this file last (transformers 5.5, ``Trainer._save_checkpoint``)."""


def is_complete(checkpoint: Path) -> bool:
    """Whether the trainer finished writing a checkpoint folder."""
    try:
        return isinstance(json.loads((checkpoint / STATE).read_text(encoding="utf-8")), dict)
    except (OSError, ValueError):
        return False


def last_complete(original: Callable[[str], str | None], folder: str) -> str | None:
    """``transformers.trainer_utils.get_last_checkpoint``, past checkpoints that a kill or a full disk broke off.

    Args:
        original: that function.
        folder: the training's ``output_dir``.

    Returns:
        The path of the last complete checkpoint, or None.
    """
    last = original(folder)
    if last is None or is_complete(Path(last)):
        return last
    numbered = [(int(match[1]), path) for path in Path(folder).iterdir() if (match := _NAME.fullmatch(path.name))]
    complete = [str(path) for _, path in sorted(numbered) if is_complete(path)]
    found = complete[-1] if complete else None
    logger.warning(
        f"{last} was not written to its end ({STATE} is missing or cut): the training goes on from "
        f"{found or 'the beginning'}."
    )
    return found
