"""Packed rows as sequences for flash attention: ``flash_attn_varlen_func``, in one call for prompts and answers.

A prompt is a sequence of its own tokens. An answer is a sequence whose queries are its own tokens, and whose keys are
the prompt's tokens and its own: with ``causal=True`` the last query is aligned with the last key (flash-attn 2.1 and
later), so that an answer sees the full prompt and itself up to each token. Padding is in no sequence.

The prompt's keys are copied for each answer. Two calls whose results are merged by their log-sum-exp would save the
copy, but flash-attn does not differentiate the log-sum-exp it returns: the gradients would be wrong.

The arithmetic is tested on a CPU against separate rows, with a function of the same signature in flash-attn's place;
this path has not run on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers.integrations.flash_attention import get_target_dtype
from transformers.utils import is_flash_attn_2_available


@dataclass(frozen=True)
class PackedSequences:
    """Which tokens of packed rows ``[G, L]`` are the queries and the keys of each sequence.

    Attributes:
        queries: ``[Q]``, flat places in ``[G * L]``; each attended token once.
        keys: ``[K]``, flat places; a prompt's tokens stand here once for the prompt and once for each of its answers.
        query_bounds, key_bounds: int32 ``[sequences + 1]``: sequence i has queries ``bounds[i]`` to ``bounds[i + 1]``.
        longest: queries of the longest sequence, and keys.
    """

    queries: torch.Tensor
    keys: torch.Tensor
    query_bounds: torch.Tensor
    key_bounds: torch.Tensor
    longest: tuple[int, int]

    @classmethod
    def of(cls, segment_ids: torch.Tensor, prompt: int, padding: int) -> PackedSequences:
        """The sequences of rows.

        Args:
            segment_ids: ``[G, L]``; see :mod:`hound_plugin.model.packed_rows`.
            prompt, padding: the ids of these two.
        """
        queries: list[np.ndarray] = []
        keys: list[np.ndarray] = []
        width = segment_ids.shape[1]
        for number, row in enumerate(segment_ids.cpu().numpy()):
            shared = np.flatnonzero(row == prompt) + number * width
            if len(shared):
                queries.append(shared)
                keys.append(shared)
            for answer in np.unique(row[(row != prompt) & (row != padding)]):
                own = np.flatnonzero(row == answer) + number * width
                queries.append(own)
                keys.append(np.concatenate([shared, own]))
        device = segment_ids.device
        return cls(
            queries=torch.from_numpy(np.concatenate(queries)).to(device),
            keys=torch.from_numpy(np.concatenate(keys)).to(device),
            query_bounds=_bounds(queries).to(device),
            key_bounds=_bounds(keys).to(device),
            longest=(max(map(len, queries)), max(map(len, keys))),
        )


def _bounds(parts: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.cumsum([0, *map(len, parts)]).astype(np.int32))


def takes_sequences(config: Any, device: torch.device) -> bool:
    """Whether a language model on this device attends with flash attention.

    Args:
        config: the language model's; ``flash_attn: fa2`` of the host sets its attention.
        device: of the inputs.
    """
    chosen: bool = config._attn_implementation == "flash_attention_2"
    return chosen and device.type == "cuda" and is_flash_attn_2_available()


def varlen_function() -> Callable[..., torch.Tensor]:
    """``flash_attn.flash_attn_varlen_func``."""
    from flash_attn import flash_attn_varlen_func

    function: Callable[..., torch.Tensor] = flash_attn_varlen_func
    return function


def varlen_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    sequences: PackedSequences,
    dropout: float = 0.0,
    scaling: float | None = None,
) -> torch.Tensor:
    """Attention within sequences.

    Args:
        module: the attention layer; queries in float32 are cast as transformers does for flash attention.
        query: ``[G, heads, L, size]``.
        key, value: ``[G, key heads, L, size]``.
        sequences: of the rows.
        dropout: of the weights.
        scaling: of the scores.

    Returns:
        ``[G, L, heads, size]``, zero where there is padding.
    """
    rows, heads, width, size = query.shape
    dtype = get_target_dtype(query, module) or query.dtype
    flat = [part.transpose(1, 2).reshape(rows * width, -1, size).to(dtype) for part in (query, key, value)]
    output = varlen_function()(
        flat[0].index_select(0, sequences.queries),
        flat[1].index_select(0, sequences.keys),
        flat[2].index_select(0, sequences.keys),
        cu_seqlens_q=sequences.query_bounds,
        cu_seqlens_k=sequences.key_bounds,
        max_seqlen_q=sequences.longest[0],
        max_seqlen_k=sequences.longest[1],
        dropout_p=dropout,
        softmax_scale=scaling,
        causal=True,
    )
    places = output.new_zeros(rows * width, heads, size).index_copy(0, sequences.queries, output)
    return places.view(rows, width, heads, size)
