"""One step on labelled answers (KTO): an answer and that of its KL term behind one prompt, in policy and reference.

The host pairs each prompt with its answer and, for the KL term, with the answer of another row, and runs both, through
policy and reference: clip and question four times. Here the two answers share a row, as those of a preference pair do
(:mod:`hound_plugin.host.preference_step`). The policy's log-probabilities of the KL term carry no gradient, so that the
numbers are those of the host.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import pad

from hound_plugin.host.preference_step import PreferenceStep
from hound_plugin.host.settings_state import settings
from hound_plugin.model.labels import IGNORED_LABEL

_FILLERS = {"input_ids": 0, "attention_mask": 0, "labels": IGNORED_LABEL}
_PIXELS = ("pixel_values_images", "pixel_values_videos")
_INDICES = ("image_index", "video_index")


class LabelledStep:
    """How the steps of a KTO trainer run.

    Attributes:
        step: the step on pairs: each row's answer, and its KL term's. Where these do not share a row, the step on
            answers alone.
    """

    def __init__(self, trainer: Any, model: Any) -> None:
        self.step = PreferenceStep(trainer, model, has_reference=True)
        self._kl_step = copy.copy(self.step)  # for KL terms in rows of their own
        self._batch: Any = None
        self._rows: list[dict[str, Any]] = []

    def forward(self, model: Any, batch: dict[str, Any]) -> tuple[torch.Tensor, ...]:
        """What ``CustomKTOTrainer.concatenated_forward`` returns; a second pass over a batch is the reference's.

        Returns:
            Log-probabilities of chosen and of rejected answers; sums of the logits over the attended tokens of either
            (the host's are over padding too), scalars, or of each row where the batch has ``sides``;
            log-probabilities of the KL term's answers; means of those of the chosen ones.
        """
        is_reference = batch is self._batch
        if not is_reference:
            self._batch = batch
            self._rows = [joined_rows(batch)] if self.step.shares_prompts else separate_rows(batch)
        output, log_probs, labelled = self.step.log_probs(model, self._rows[0], is_reference)
        if self.step.shares_prompts:
            answers, kl_answers = log_probs.sum(-1).chunk(2)
            lengths = labelled.sum(-1).chunk(2)[0]
        else:
            answers, lengths = log_probs.sum(-1), labelled.sum(-1)
            with torch.no_grad():
                _, log_probs, _ = self._kl_step.log_probs(model, self._rows[1], is_reference)
            kl_answers = log_probs.sum(-1)
        chosen = batch["kto_tags"]
        means = (answers / lengths)[chosen]
        logits = self._sums_of_logits(batch, output.mean_logits)
        return answers[chosen], answers[~chosen], *logits, kl_answers.detach(), means

    def _sums_of_logits(self, batch: dict[str, Any], mean_logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        chosen, tokens = batch["kto_tags"], batch["attention_mask"].sum(-1)
        if "sides" in batch:
            sums = mean_logits[: len(tokens)] * tokens * self.step.vocab_size
            return sums[chosen], sums[~chosen]
        number = torch.stack([tokens[chosen].sum(), tokens[~chosen].sum()]) * self.step.vocab_size
        first, second = mean_logits * number
        return first, second


def joined_rows(batch: dict[str, Any]) -> dict[str, Any]:
    """The rows of a KTO batch, followed by their prompts with the KL term's answers.

    Args:
        batch: ``input_ids``, ``attention_mask`` and ``labels`` ``[R, S]``, the same with ``kl_`` in front ``[R, K]``,
            ``kto_tags`` ``[R]``, and media.

    Returns:
        Rows ``[2R, max(S, K)]``, their media, and ``sides`` ``[2R]`` for the means of the logits.
    """
    answers, kl_answers = separate_rows(batch)
    width = max(batch["input_ids"].shape[1], batch["kl_input_ids"].shape[1])
    joined = dict(answers)
    for name, filler in _FILLERS.items():
        parts = (answers[name], kl_answers[name])
        joined[name] = torch.cat([pad(part, (0, width - part.shape[1]), value=filler) for part in parts])
    for name in (*_INDICES, "sides"):
        if name in answers:
            joined[name] = torch.cat([answers[name], kl_answers[name]])
    return joined


def separate_rows(batch: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a KTO batch, and their prompts with the KL term's answers; as for :func:`joined_rows`."""
    media = {name: batch[name] for name in (*_PIXELS, *_INDICES) if name in batch}
    side = batch["sides"] if "sides" in batch else (~batch["kto_tags"]).long()
    answers = {**{name: batch[name] for name in _FILLERS}, **media, "sides": side}
    kl_answers = {**{name: batch[f"kl_{name}"] for name in _FILLERS}, **media, "sides": torch.full_like(side, -1)}
    return [answers, kl_answers]


def labelled_forward(original: Callable[..., Any], self: Any, model: Any, batch: dict[str, Any]) -> Any:
    """``CustomKTOTrainer.concatenated_forward``, from labelled positions; an answer and its KL term share a row."""
    if settings().answers_only == "off":
        return original(self, model, batch)
    step = getattr(self, "_hound_step", None)
    if step is None:
        step = self._hound_step = LabelledStep(self, model)
    return step.forward(model, batch)
