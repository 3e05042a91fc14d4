"""The processor and tokenizer of a model are saved with its weights, or its folder is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llamafactory.train.callbacks import SaveProcessorCallback
from transformers.utils import PROCESSOR_NAME

from hound_plugin.errors import CheckpointError
from hound_plugin.model.checkpoint_files import UNFINISHED, saved_together
from hound_plugin.records.files import full_disk_named

HALF = "A model that was there before may be half replaced, and is refused until this has been done again."


def whole_export(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """``llamafactory.train.tuner.export_model``, which saves the processor last, and only warns where that fails.

    Raises:
        CheckpointError: the tokenizer or the processor was not saved; the folder is marked as unfinished.
        DiskFullError: there is too little space for the model.
    """
    with saved_together() as folders, full_disk_named("the exported model", HALF):
        result = original(*args, **kwargs)
        for folder in folders:
            if not _is_newer(folder / PROCESSOR_NAME, folder / UNFINISHED):
                raise CheckpointError(
                    f"Expected a whole export in {folder}, but its tokenizer or processor was not saved: see the "
                    '"Cannot save tokenizer" above. Mend what it names, and export again.'
                )
    return result


def save_with_processor(trainer: Any, save: Callable[[], Any], folder: Path) -> Any:
    """Save a trainer's model, then the processor that the host's callback would write after the checkpoint is complete.

    Args:
        trainer: the host's.
        save: writes the model.
        folder: where it writes.

    Returns:
        What ``save`` returns.
    """
    with saved_together():
        result = save()
        if trainer.args.should_save:
            for callback in trainer.callback_handler.callbacks:
                if isinstance(callback, SaveProcessorCallback):
                    callback.processor.save_pretrained(folder)
    return result


def saved_with_model(original: Callable[..., Any], self: Any, args: Any, state: Any, *more: Any, **kwargs: Any) -> Any:
    """``SaveProcessorCallback.on_save``, which overwrites the tokenizer of a complete checkpoint in place."""
    folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
    if not (folder / PROCESSOR_NAME).is_file():
        return original(self, args, state, *more, **kwargs)
    return None


def _is_newer(file: Path, mark: Path) -> bool:
    return file.is_file() and os.stat(file).st_mtime_ns >= os.stat(mark).st_mtime_ns
