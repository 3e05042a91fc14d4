"""``flash_attn_varlen_func`` computed in the plainest way, for machines without a GPU."""

from __future__ import annotations

from typing import Any

import torch


def flash_attn_varlen_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cu_seqlens_q: torch.Tensor,
    cu_seqlens_k: torch.Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Any = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    block_table: Any = None,
) -> torch.Tensor:
    """As flash-attn 2.8 documents it: ``q [Q, heads, size]``, ``k`` and ``v`` ``[K, key heads, size]``.

    With ``causal``, the last query of a sequence is aligned with its last key (flash-attn 2.1 and later).
    """
    assert dropout_p == 0
    assert window_size == (-1, -1)
    assert not softcap
    assert alibi_slopes is None
    assert block_table is None
    assert not return_attn_probs
    assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32
    assert q.is_contiguous()
    assert k.is_contiguous()
    assert v.is_contiguous()
    starts, lengths = (cu_seqlens_q.tolist(), cu_seqlens_k.tolist()), ([], [])
    assert starts[0][-1] == len(q)
    assert starts[1][-1] == len(k) == len(v)
    results = []
    for number in range(len(starts[0]) - 1):
        queries = q[starts[0][number] : starts[0][number + 1]].transpose(0, 1)
        keys, values = (part[starts[1][number] : starts[1][number + 1]].transpose(0, 1) for part in (k, v))
        repeats = queries.shape[0] // keys.shape[0]
        keys, values = keys.repeat_interleave(repeats, 0), values.repeat_interleave(repeats, 0)
        scores = queries @ keys.transpose(1, 2) * (softmax_scale or q.shape[-1] ** -0.5)
        if causal:
            number_q, number_k = scores.shape[1:]
            visible = torch.ones(number_q, number_k, dtype=torch.bool).tril(number_k - number_q)
            scores = scores.masked_fill(~visible, float("-inf"))
        results.append((scores.softmax(-1) @ values).transpose(0, 1))
        lengths[0].append(queries.shape[1])
        lengths[1].append(keys.shape[1])
    assert (max_seqlen_q, max_seqlen_k) == (max(lengths[0]), max(lengths[1]))
    return torch.cat(results)
