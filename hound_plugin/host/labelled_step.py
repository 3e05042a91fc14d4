"""One step on labelled answers (KTO): an answer and that of its KL term behind one prompt, in policy and reference.

The host pairs each prompt with its answer and, for the KL term, with the answer of another row, and runs both, through
policy and reference: clip and question four times. Here the two answers share a row, as those of a preference pair do
(:mod:`hound_plugin.host.preference_step`). The policy's log-probabilities of the KL term carry no gradient, so that the
numbers are those of the host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import pad

from hound_plugin.host.preference_step import PreferenceStep
from hound_plugin.host.settings_state import settings
from hound_plugin.model.labels import IGNORED_LABEL

_FILLERS = {"input_ids": 0, "attention_mask": 0, "labels": IGNORED_LABEL}
_KEPT = ("pixel_values_images", "pixel_values_videos")


class LabelledStep:
    """How the steps of a KTO trainer run.

    Attributes:
        step: the step on pairs, of each row's answer and its KL term's.
        is_reference: whether the pass that runs is the reference's.
    """

    def __init__(self, trainer: Any, model: Any) -> None:
        self.step = PreferenceStep(trainer, model, has_reference=True)
        self.is_reference = False
        self._batch: Any = None
        self._joined: dict[str, Any] = {}

    def forward(self, model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, ...]:
        """What ``CustomKTOTrainer.concatenated_forward`` returns.

        Returns:
            Log-probabilities of chosen and of rejected answers; sums of the logits over the attended tokens of either
            (the host's are over padding too), scalars; log-probabilities of the KL term's answers; means of those of
            the chosen ones.
        """
        if batch is not self._batch:
            self._batch, self._joined = batch, joined_rows(batch)
        output, log_probs, labelled = self.step.log_probs(model, self._joined, self.is_reference)
        answers, kl_answers = log_probs.sum(-1).chunk(2)
        means = answers / labelled.sum(-1).chunk(2)[0]
        chosen = batch["kto_tags"]
        tokens = batch["attention_mask"].sum(-1)
        number = torch.stack([tokens[chosen].sum(), tokens[~chosen].sum()]) * self.step.vocab_size
        logits = output.mean_logits * number
        return answers[chosen], answers[~chosen], logits[0], logits[1], kl_answers.detach(), means[chosen]


def joined_rows(batch: dict[str, Any]) -> dict[str, Any]:
    """The rows of a KTO batch, followed by their prompts with the KL term's answers.

    Args:
        batch: ``input_ids``, ``attention_mask`` and ``labels`` ``[R, S]``, the same with ``kl_`` in front ``[R, K]``,
            ``kto_tags`` ``[R]``, and media.

    Returns:
        Rows ``[2R, max(S, K)]``, their media, and ``sides`` ``[2R]`` for the means of the logits.
    """
    width = max(batch["input_ids"].shape[1], batch["kl_input_ids"].shape[1])
    joined: dict[str, Any] = {name: batch[name] for name in _KEPT if name in batch}
    for name, filler in _FILLERS.items():
        parts = (batch[name], batch[f"kl_{name}"])
        joined[name] = torch.cat([pad(part, (0, width - part.shape[1]), value=filler) for part in parts])
    for name in ("image_index", "video_index"):
        if name in batch:
            joined[name] = torch.cat([batch[name], batch[name]])
    side = (~batch["kto_tags"]).long()
    joined["sides"] = torch.cat([side, torch.full_like(side, -1)])
    return joined


def labelled_forward(original: Callable[..., Any], self: Any, model: Any, batch: dict[str, Any]) -> Any:
    """``CustomKTOTrainer.concatenated_forward``, with one row for an answer and that of its KL term."""
    if settings().answers_only == "off":
        return original(self, model, batch)
    step = getattr(self, "_hound_step", None)
    if step is None:
        step = self._hound_step = LabelledStep(self, model)
    return step.forward(model, batch) if step.step.shares_prompts else original(self, model, batch)


def reference_pass(original: Callable[..., Any], self: Any, model: Any, batch: dict[str, Any]) -> Any:
    """``CustomKTOTrainer.compute_reference_log_probs``, which calls the same ``concatenated_forward`` as the policy."""
    step = getattr(self, "_hound_step", None)
    if step is None:
        return original(self, model, batch)
    step.is_reference = True
    try:
        return original(self, model, batch)
    finally:
        step.is_reference = False
