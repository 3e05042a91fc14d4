"""Stop a training whose loss or gradients are not finite; the host logs 0, reports success and saves the model.

The loss of every micro-batch is checked (on all ranks together, so that all of them stop), and the norm of the
gradients before each step. With ``max_skipped_steps`` above 0 that many steps in a row are left out instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from transformers.utils import logging

from hound_plugin.errors import SettingsError, TrainingError
from hound_plugin.host import patching
from hound_plugin.host.resume import complete_message
from hound_plugin.host.settings_state import settings

logger = logging.get_logger(__name__)

_SHOWN = 200  # characters of a row
_ROWS = 8  # of a step


class _StepWatch:
    """What was seen of the current step, and how many steps in a row were left out."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.problem: str | None = None
        self.rows: list[str] = []
        self.batches: list[Any] = []  # token ids of the step's micro-batches on this rank
        self.skipped = 0
        self.limit = settings().max_skipped_steps
        if self.limit and trainer.is_deepspeed_enabled:
            raise SettingsError(
                f"hound.max_skipped_steps: expected 0 with DeepSpeed, whose engine takes the step itself; got "
                f"{self.limit}. Remove it, or train with DDP or FSDP2."
            )
        if self.limit and patching.is_missing("_get_grad_norm"):
            raise SettingsError(
                f"hound.max_skipped_steps: expected 0 with this release of the host, in which gradients "
                f"cannot be checked (see `hound doctor`); got {self.limit}. Remove it."
            )

    def check_loss(self, loss: torch.Tensor, ids: torch.Tensor | None) -> None:
        """Check the loss of a micro-batch with token ids ``[B, T]``, on this rank and on the others."""
        self.batches.append(ids)
        bad = torch.logical_not(torch.isfinite(loss.detach()).all()).float().reshape(1)
        here = bool(bad)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(bad, op=torch.distributed.ReduceOp.MAX)
        if here:
            self.rows = _describe(self.trainer, [ids])
        if bool(bad) and self.problem is None:
            self.problem = f"the loss is {loss.item()}" if here else "the loss of another process is not finite"
        if self.problem is not None and not self.limit:
            self._stop()

    def check_norm(self, norm: float) -> None:
        """Check the norm of a step's gradients, which all ranks share."""
        if self.problem is None and not math.isfinite(norm):
            self.problem = f"the gradients have the norm {norm}"
            self.rows = _describe(self.trainer, self.batches)
        self.batches = []
        if self.problem is None:
            self.skipped = 0
            return
        self.skipped += 1
        if self.skipped > self.limit:
            self._stop()
        step = self.trainer.state.global_step + 1
        logger.warning(f"Step {step} is left out ({self.skipped} in a row): {self.problem}.{self._named()}")
        self.trainer.model.zero_grad(set_to_none=True)  # without gradients an optimiser changes nothing
        self.problem, self.rows = None, []

    def _named(self) -> str:
        more = f" and {len(self.rows) - _ROWS} more" if len(self.rows) > _ROWS else ""
        return f" Rows of the batch: {'; '.join(self.rows[:_ROWS])}{more}." if self.rows else ""

    def _stop(self) -> None:
        step = self.trainer.state.global_step + 1
        after = f" after {self.skipped - 1} steps in a row that were left out" if self.skipped > 1 else ""
        raise TrainingError(
            f"Training stops at step {step}{after}: {self.problem}.{self._named()} Nothing was saved of this step; "
            f"checkpoints in {self.trainer.args.output_dir} stay as they are. Check that the starting weights are "
            "finite, lower `learning_rate`, set `max_grad_norm: 1.0`, use bf16 or fp32 instead of fp16, or let "
            "`hound.max_skipped_steps` leave such steps out."
        )


def watch_step(original: Callable[..., Any], self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
    """``Trainer.training_step``, whose loss is checked; no step is taken after the last one.

    Raises:
        SettingsError: the checkpoint that the training resumed from has all of its steps.
        TrainingError: the loss is not finite.
    """
    if self.state.global_step >= self.state.max_steps:
        raise SettingsError(complete_message(self, None))
    loss = original(self, model, inputs, *args, **kwargs)
    _watch(self).check_loss(loss, inputs.get("input_ids"))
    return loss


def watch_norm(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    """``Trainer._get_grad_norm``, called once before each step, whose result is checked."""
    norm = original(self, *args, **kwargs)
    if norm is not None:
        _watch(self).check_norm(float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm))
    return norm


def _watch(trainer: Any) -> _StepWatch:
    watch = getattr(trainer, "_hound_finite_steps", None)
    if watch is None:
        watch = trainer._hound_finite_steps = _StepWatch(trainer)
    return watch


def _describe(trainer: Any, batches: list[Any]) -> list[str]:
    """The rows of batches of token ids ``[B, T]`` as text, without placeholders."""
    tokenizer = getattr(trainer.processing_class, "tokenizer", trainer.processing_class)
    if tokenizer is None:
        return []
    model = getattr(trainer.model, "pretrained_model", trainer.model)  # `stage: rm` puts a head around it
    size = model.config.get_text_config().vocab_size
    rows = []
    for row in [row for ids in batches if ids is not None for row in ids.tolist()]:
        text = tokenizer.decode([token for token in row if 0 <= token < size], skip_special_tokens=True)
        rows.append(repr(text.strip()[-_SHOWN:]))
    return rows
