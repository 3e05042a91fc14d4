"""Which of the settings that save work are active in a training, and why the others are not: one line of its log."""

from __future__ import annotations

from typing import Any

from llamafactory.extras import logging

from hound_plugin.host import tower_cache
from hound_plugin.host.preference_step import composite_of, why_not_shared
from hound_plugin.host.reference.state import is_active
from hound_plugin.host.settings_state import settings, stage

logger = logging.get_logger(f"llamafactory.{__name__}")


def report(trainer: Any) -> None:
    """Log the line for a trainer of the host; nothing for stages without such settings."""
    reasons = reasons_against(trainer)
    if reasons:
        words = [f"{name} active" if reason is None else f"{name} off ({reason})" for name, reason in reasons.items()]
        logger.info_rank0(f"Work that is saved: {'; '.join(words)}.")


def reasons_against(trainer: Any) -> dict[str, str | None]:
    """By setting, why it is not active; None where it is."""
    chosen, kind = settings(), stage()
    reasons: dict[str, str | None] = {}
    if kind in ("dpo", "kto"):
        reasons["prefix_sharing"] = why_not_shared(composite_of(trainer.model), trainer)
    if kind in ("dpo", "kto", "sft"):
        reasons["answers_only"] = "answers_only: off" if chosen.answers_only == "off" else None
    if kind == "sft" and (trainer.label_smoother is not None or getattr(trainer, "compute_loss_func", None)):
        reasons["answers_only"] = "the loss reads all logits"
    if kind == "sft":
        reasons["group_questions"] = "no number is set" if chosen.group_questions is None else None
    if kind in ("dpo", "kto"):
        reasons["reference_log_probs"] = _why_not_stored(trainer)
    if kind in ("dpo", "kto", "sft", "rm"):
        reasons["feature_cache"] = "no folder is set" if tower_cache.active() is None else None
    return reasons


def _why_not_stored(trainer: Any) -> str | None:
    if is_active():
        return None
    if not trainer.finetuning_args.use_ref_model and stage() == "dpo":
        return f"pref_loss: {trainer.loss_type} has no reference"
    return "no file is set"
