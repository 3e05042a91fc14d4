"""What training steps tell the model besides its inputs."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch


@dataclass(frozen=True)
class StepInputs:
    """Keywords of ``LlavaHoundForConditionalGeneration.forward`` that only training steps use.

    Attributes:
        answers: ``positions``, ``tokens`` and perhaps ``averages``: log-probabilities of these tokens instead of
            logits; see :func:`hound_plugin.model.answer_head.log_probs_of`.
        answers_only: with ``labels`` or ``answers``, the loss from labelled positions; there are no logits.
        segment_ids, prompt_width: of rows that share prompts, with their ``position_ids``; see
            :class:`hound_plugin.model.packed_rows.PackedRows`.
        tower_features: of the same media from an earlier call with ``keep_tower_features``, by a model whose towers
            are the same; no tower runs.
        keep_tower_features: keep them in the output.
        encode_only: run nothing but the towers; ``tower_features`` is all that the output has.
        num_items_in_batch: labelled tokens of all micro-batches of a step, which the loss is divided by.
    """

    answers: dict[str, torch.Tensor] | None = None
    answers_only: bool = False
    segment_ids: torch.Tensor | None = None
    prompt_width: int | None = None
    tower_features: dict[str, torch.Tensor] | None = None
    keep_tower_features: bool = False
    encode_only: bool = False
    num_items_in_batch: Any = None

    @classmethod
    def taken_from(cls, keywords: dict[str, Any]) -> StepInputs:
        """Take them out of the keywords of a call; the others stay."""
        return cls(**{field.name: keywords.pop(field.name) for field in fields(cls) if field.name in keywords})
