"""Evaluations of DPO, KTO and reward models: each row counts once.

The host's DPO and KTO trainers store the means of each batch, and log the means of these: a last batch of fewer rows
counts as a full one, rows that fill up the batches of several processes count twice, and KTO sums its KL term over
batches, of the first process alone. Here a batch leaves a row of numbers for each of its rows; when all are there, the
host's own formulas run once, on all of them as one batch. Batch size and number of processes then make no difference;
KTO's KL term, which the training takes from a batch, is that of the whole evaluation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from accelerate.utils import gather_object
from torch.nn.functional import logsigmoid

from hound_plugin.host.evaluated_rows import real_rows
from hound_plugin.host.settings_state import settings
from hound_plugin.host.tower_step import with_features

_POLICY = ("chosen_logps", "rejected_logps", "chosen_logits", "rejected_logits", "chosen_logps_avg")


def evaluation_loop(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    """``evaluation_loop`` of the host's DPO and KTO trainers: loss and metrics of all rows."""
    self._hound_tables = []
    output = original(self, *args, **kwargs)
    tables, self._hound_tables = gather_object(self._hound_tables), []
    if not tables:
        return output
    table = torch.cat(tables).to(self.accelerator.device)
    prefix = kwargs.get("metric_key_prefix", args[4] if len(args) > 4 else "eval")
    loss, metrics = _labelled_metrics(self, table) if _is_labelled(self) else _pair_metrics(self, table)
    output.metrics[f"{prefix}_loss"] = float(loss)
    output.metrics.update({f"{prefix}_{name.removeprefix('eval_')}": value for name, value in metrics.items()})
    return output


def prediction_step(original: Callable[..., Any], self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
    """``prediction_step`` of the same: what the metrics need of each row is kept; there is no loss of the batch."""
    rows_of = _labelled_rows if _is_labelled(self) else _pair_rows
    with torch.no_grad():
        table = rows_of(self, model, with_features(self, inputs))
    self._hound_tables.append(table[: real_rows(self.accelerator, len(table))].float().cpu())
    return None, None, None


def reward_step(
    original: Callable[..., Any],
    self: Any,
    model: Any,
    inputs: Any,
    prediction_loss_only: bool,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """``PairwiseTrainer.prediction_step``: the loss of a batch without the pairs that fill it up.

    The scores of these are left out by the trainer, which gathers them.
    """
    loss, scores, labels = original(self, model, inputs, False, *args, **kwargs)
    pairs = len(inputs["input_ids"]) // 2
    real = real_rows(self.accelerator, pairs)
    if 0 < real < pairs:
        chosen, rejected = (side.reshape(-1)[:real].float() for side in scores)
        loss = -logsigmoid(chosen - rejected).mean()
    return (loss, None, None) if prediction_loss_only else (loss, scores, labels)


def _is_labelled(trainer: Any) -> bool:
    return bool(trainer.finetuning_args.stage == "kto")


def _with_sides(batch: dict[str, Any]) -> dict[str, Any]:
    """A batch that asks for the mean of the logits of each row; where logits come whole, it is taken from these."""
    if settings().answers_only == "off":
        return batch
    return {**batch, "sides": torch.arange(len(batch["input_ids"]), device=batch["input_ids"].device)}


def _mean_logits(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Means of logits over attended tokens ``[N]``; from whole logits ``[N, S, V]``, or already there."""
    if logits.dim() < 3:
        return logits
    mask = mask.to(logits.dtype)
    return (logits.mean(-1) * mask).sum(-1) / mask.sum(-1)


# --- pairs


def _pair_rows(trainer: Any, model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Of each pair the values of ``_POLICY`` and of the reference ``[B, 5 or 7]``."""
    batch = _with_sides(batch)
    masks = dict(zip(("chosen_logits", "rejected_logits"), batch["attention_mask"].chunk(2), strict=True))
    policy = trainer.concatenated_forward(model, batch)
    reference = trainer.compute_reference_log_probs(model, batch)
    values = [_mean_logits(policy[name], masks[name]) if name in masks else policy[name] for name in _POLICY]
    return torch.stack([*values, *(value for value in reference if value is not None)], -1)


def _pair_metrics(trainer: Any, table: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
    policy = dict(zip(_POLICY, table.unbind(-1), strict=False))
    reference = tuple(table[:, len(_POLICY) :].unbind(-1)) or (None, None)
    with _as_one_batch(trainer, policy, reference):
        loss, metrics = trainer.get_batch_loss_metrics(trainer.model, {}, train_eval="eval")
    return loss, metrics


@contextlib.contextmanager
def _as_one_batch(trainer: Any, policy: Any, reference: Any) -> Iterator[None]:
    """Let the trainer's formulas find these values; the moving mean of BCO stays the training's."""
    answers: dict[str, Any] = {
        "concatenated_forward": lambda *_, **__: policy,
        "compute_reference_log_probs": lambda *_, **__: reference,
    }
    running = getattr(trainer, "running", None)
    if running is not None:
        answers["running"] = SimpleNamespace(update=lambda _: None, mean=running.mean)
    vars(trainer).update(answers)
    try:
        yield
    finally:
        for name in answers:
            delattr(trainer, name)
        if running is not None:
            trainer.running = running


# --- labelled answers


def _labelled_rows(trainer: Any, model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Of each row its label, and the log-probability of its answer, the sum of its logits, the log-probability of the
    KL term's answer, the mean log-probability of a wanted answer, and the reference's of answer and KL term ``[R, 7]``.
    """
    batch, wanted = _with_sides(batch), batch["kto_tags"]
    chosen, rejected, chosen_logits, rejected_logits, of_kl, means = trainer.concatenated_forward(model, batch)
    reference = trainer.compute_reference_log_probs(model, batch)

    def in_order(first: torch.Tensor, second: torch.Tensor | None = None) -> torch.Tensor:
        values = first.new_zeros(len(wanted))
        values[wanted] = first
        if second is not None:
            values[~wanted] = second
        return values

    if chosen_logits.dim() == 3:
        vocab_size, mask = chosen_logits.shape[-1], batch["attention_mask"]
        pairs = ((chosen_logits, mask[wanted]), (rejected_logits, mask[~wanted]))
        chosen_logits, rejected_logits = (
            _mean_logits(logits, rows) * rows.sum(-1) * vocab_size for logits, rows in pairs
        )
    columns = (
        wanted.to(chosen.dtype), in_order(chosen, rejected), in_order(chosen_logits, rejected_logits), of_kl,
        in_order(means), in_order(*reference[:2]), reference[2],
    )  # fmt: skip
    return torch.stack(columns, -1)


def _labelled_metrics(trainer: Any, table: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
    wanted = table[:, 0].bool()
    _, answers, logits, of_kl, means, reference, reference_of_kl = table.unbind(-1)
    policy = (answers[wanted], answers[~wanted], logits[wanted], logits[~wanted], of_kl, means[wanted])
    with _as_one_batch(trainer, policy, (reference[wanted], reference[~wanted], reference_of_kl)):
        loss, found = trainer.get_batch_loss_metrics(trainer.model, {"labels": table})
    metrics = {
        f"{name}/{side}": found[f"{name}/{side}_sum"] / found[f"count/{side}"]
        for side in ("chosen", "rejected")
        for name in ("rewards", "logps", "logits")
        if f"count/{side}" in found
    }
    if {"rewards/chosen", "rewards/rejected"} <= metrics.keys():
        metrics["rewards/margins"] = metrics["rewards/chosen"] - metrics["rewards/rejected"]
    return loss, {**metrics, "kl": found["kl"]}
