"""Evaluations and predictions of a supervised training: each row counts once.

Several processes need batches of one size: rows of the beginning fill up the last ones. ``Trainer`` leaves them out of
what it gathers, ``Seq2SeqTrainer`` does not: it counts them in losses and metrics, and the mean loss of a last batch of
fewer rows, on one process too, as that of a full one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from hound_plugin.model.labels import IGNORED_LABEL


def prediction_step(original: Callable[..., Any], self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
    """``CustomSeq2SeqTrainer.prediction_step``: rows that fill up a batch have no labels, and are not gathered."""
    if self.gather_function == self.accelerator.gather:
        self.gather_function = partial(
            self.accelerator.gather_for_metrics, use_gather_object=self.args.eval_use_gather_object
        )
    labels = inputs.get("labels")
    if labels is not None:
        real = real_rows(self.accelerator, len(labels))
        if real < len(labels):
            labels = labels.clone()
            labels[real:] = IGNORED_LABEL
            inputs = {**inputs, "labels": labels}
    return original(self, model, inputs, *args, **kwargs)


def real_rows(accelerator: Any, rows: int) -> int:
    """How many rows of this process's batch do not merely fill it up; they come first.

    Args:
        accelerator: of the trainer, which knows whether the batch is the last one.
        rows: of the batch.
    """
    state = accelerator.gradient_state
    if accelerator.num_processes == 1 or not state.end_of_dataloader or state.remainder <= 0:
        return rows
    return max(0, min(rows, state.remainder - accelerator.process_index * rows))
