"""Attention over packed rows: the prompt sees itself, and each answer sees the prompt and itself.

It is split into two calls and needs no mask over the whole row: the prompt's is plain causal attention, and the
answers' has the mask ``[G, 1, answers, L]``. The exact same numbers come out as for separate rows (arXiv 2505.24298 and
others describe the layout for text). Where the language model was loaded with flash attention
(:mod:`hound_plugin.model.varlen_attention`), there is one call and no mask.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv

from hound_plugin.model.packed_rows import PADDING, PROMPT
from hound_plugin.model.varlen_attention import PackedSequences, takes_sequences, varlen_attention

NAME = "hound_shared_prompt"


def answers_mask(segment_ids: torch.Tensor, prompt_width: int) -> torch.Tensor:
    """Which keys each answer token sees: True ``[G, 1, L - prompt_width, L]``.

    Padding sees itself, since a query without any key gives NaN.

    Args:
        segment_ids: ``[G, L]``; see :mod:`hound_plugin.model.packed_rows`.
        prompt_width: columns of the prompts.
    """
    columns = torch.arange(segment_ids.shape[1], device=segment_ids.device)
    queries, keys = segment_ids[:, prompt_width:, None], segment_ids[:, None, :]
    before = columns[None, None, :] <= columns[None, prompt_width:, None]
    own = (queries == keys) & (queries != PADDING) & before
    itself = columns[None, None, :] == columns[None, prompt_width:, None]
    prompt = (keys == PROMPT) & (queries != PADDING)
    return (own | prompt | itself).unsqueeze(1)


def shared_prompt_inputs(language_model: Any, segment_ids: torch.Tensor, prompt_width: int) -> dict[str, Any]:
    """What the language model's forward takes for packed rows.

    Args:
        language_model: after :func:`allow_shared_prompts`.
        segment_ids, prompt_width: as for :func:`answers_mask`.

    Returns:
        ``attention_mask``, ``prompt_width`` and ``sequences``; the mask or the sequences are None.
    """
    if takes_sequences(language_model.config, segment_ids.device):
        sequences = PackedSequences.of(segment_ids, PROMPT, PADDING)
        return {"attention_mask": None, "prompt_width": prompt_width, "sequences": sequences}
    mask = answers_mask(segment_ids, prompt_width)
    return {"attention_mask": mask, "prompt_width": prompt_width, "sequences": None}


def shared_prompt_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    prompt_width: int = 0,
    sequences: PackedSequences | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """An attention function of transformers' :class:`AttentionInterface`.

    Args:
        module: the attention layer.
        query, key, value: ``[G, heads, L, size]``.
        attention_mask: of :func:`answers_mask`; not read where there are sequences.
        dropout: of the weights.
        scaling: of the scores.
        prompt_width: columns of the prompts.
        sequences: of the packed rows, for flash attention.
        kwargs: what other functions take.

    Returns:
        ``[G, L, heads, size]``, and no weights.
    """
    if sequences is not None:
        return varlen_attention(module, query, key, value, sequences, dropout, scaling), None
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    attend = partial(scaled_dot_product_attention, dropout_p=dropout, scale=scaling)
    width = prompt_width
    answers = attend(query[:, :, width:], key, value, attn_mask=attention_mask)
    if not width:
        return answers.transpose(1, 2).contiguous(), None
    prompt = attend(query[:, :, :width], key[:, :, :width], value[:, :, :width], is_causal=True)
    return torch.cat([prompt, answers], dim=2).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, shared_prompt_attention)


def allow_shared_prompts(language_model: nn.Module) -> None:
    """Let the attention layers of a model take ``prompt_width``, once.

    A layer reads the name of its function from its configuration. For a call with ``prompt_width`` it gets a copy that
    names ours, also when gradient checkpointing runs it again; all other calls are left alone.
    """
    for module in language_model.modules():
        if hasattr(module, "is_causal") and hasattr(module, "config") and not hasattr(module, "_hound_configs"):
            ours: Any = copy.copy(module.config)
            ours._attn_implementation_internal = NAME
            module._hound_configs = (module.config, ours)  # type: ignore[assignment]
            module.register_forward_pre_hook(_enter, with_kwargs=True)
            module.register_forward_hook(_leave, with_kwargs=True, always_call=True)


def _enter(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
    if kwargs.get("prompt_width") is not None:
        module.config = module._hound_configs[1]


def _leave(module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
    module.config = module._hound_configs[0]
