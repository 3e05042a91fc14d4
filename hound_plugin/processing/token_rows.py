"""Rows of token ids to the padded inputs of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hound_plugin.errors import SettingsError
from hound_plugin.processing.call_settings import TextSettings
from hound_plugin.processing.prompt import ExpandedPrompt


@dataclass(frozen=True)
class Row:
    """One prompt: its tokens, and which of them an answer consists of where that is known."""

    prompt: ExpandedPrompt
    answer_mask: list[int] | None = None


def pad_rows(tokenizer: Any, rows: Sequence[Row], settings: TextSettings) -> dict[str, Any]:
    """``input_ids``, ``attention_mask`` and what else the settings ask for, each ``[B, S]``.

    Raises:
        SettingsError: prompts that would have to be cut, or prompts of several lengths as one tensor.
    """
    lists = [row.prompt.ids for row in rows]
    longest = max(map(len, lists), default=0)
    if settings.truncates:
        limit = settings.max_length or tokenizer.model_max_length
        if longest > limit:
            raise SettingsError(
                f"truncation: expected prompts of at most {limit} tokens, visual ones included, got one of {longest}. "
                "Cutting would lose visual tokens or the question: shorten the text, or raise max_length.",
                "truncation",
            )
    batch: dict[str, Any] = {"input_ids": lists, "attention_mask": [[1] * len(ids) for ids in lists]}
    if settings.padding:
        batch = dict(
            tokenizer.pad(
                batch,
                padding=settings.padding,
                padding_side=settings.side,
                max_length=settings.max_length,
                pad_to_multiple_of=settings.pad_to_multiple_of,
                return_tensors=None,
            )
        )
    widths = [len(ids) for ids in batch["input_ids"]]
    if rows and all(row.answer_mask is not None for row in rows):
        masks = [row.answer_mask or [] for row in rows]
        batch["assistant_masks"] = [_filled(*item, 0, settings.side) for item in zip(masks, widths, strict=True)]
    if not settings.attention_mask:
        del batch["attention_mask"]
    if settings.kind is not None and len(set(widths)) > 1:
        raise SettingsError(
            f"padding: expected true for {len(rows)} prompts of several lengths as one tensor, got "
            f"{settings.padding!r}. Set it, or return_tensors to None."
        )
    batch = {name: as_kind(values, settings.kind) for name, values in batch.items()}
    if settings.offsets:
        pairs = [row.prompt.offsets for row in rows]
        batch["offset_mapping"] = [_filled(*item, (0, 0), settings.side) for item in zip(pairs, widths, strict=True)]
    elif settings.replacements:
        batch["text_replacement_offsets"] = [_replacements(row.prompt) for row in rows]
    return batch


def as_kind(values: list[Any], kind: str | None) -> Any:
    """Rows of numbers as a tensor (``pt``), an array (``np``) or as they are (None)."""
    return values if kind is None else torch.tensor(values) if kind == "pt" else np.array(values)


def _filled(values: list[Any], width: int, filler: Any, side: str) -> list[Any]:
    gap = [filler] * (width - len(values))
    return gap + values if side == "left" else values + gap


def _replacements(prompt: ExpandedPrompt) -> list[dict[str, Any]]:
    """Where each placeholder was in the text and is in the expanded one, in transformers' words."""
    told, shift = [], 0
    for token, start, count in prompt.replacements:
        text = token * count
        told.append(
            {
                "type": token.strip("<>"),
                "span": (start, start + len(token)),
                "new_span": (start + shift, start + shift + len(text)),
                "text": token,
                "replacement": text,
            }
        )
        shift += len(text) - len(token)
    return told
