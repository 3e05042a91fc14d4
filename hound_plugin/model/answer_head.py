"""The language-modelling head where labels are, and nowhere else.

A row of a clip has some 2,100 positions and 64 labels: the logits of all of them, in float32, are most of the memory of
a step and much of its time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from hound_plugin.model.labels import learnt_tokens

_CHUNK = 1024  # tokens whose logits are in float32 at one time


def token_log_probs(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of tokens, in float32 and in chunks; the backward pass computes each chunk again.

    Args:
        logits: ``[T, vocab]`` in any floating-point type.
        tokens: ``[T]``.

    Returns:
        ``[T]``.
    """
    if len(tokens) <= _CHUNK:
        return _log_probs(logits, tokens)
    parts = zip(logits.split(_CHUNK), tokens.split(_CHUNK), strict=True)
    if not (torch.is_grad_enabled() and logits.requires_grad):
        return torch.cat([_log_probs(*part) for part in parts])
    return torch.cat([checkpoint(_log_probs, *part, use_reentrant=False) for part in parts])


def _log_probs(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    return -cross_entropy(logits.float(), tokens, reduction="none")


def log_probs_of(
    head: nn.Module, hidden: torch.Tensor, answers: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Log-probabilities of labelled tokens.

    The head is called once whatever the number of tokens: ranks that share its parameters call it together.

    Args:
        head: ``[..., H] -> [..., vocab]``, linear.
        hidden: ``[G, L, H]``.
        answers: ``positions`` and ``tokens`` ``[T]``, perhaps ``averages`` ``[K, G * L]``; see
            :class:`hound_plugin.model.packed_rows.LabelledTokens`.

    Returns:
        Log-probabilities ``[T]``, and the means of the logits over the averaged positions ``[K]`` or None: the head is
        linear, so that its value at a mean of hidden states is the mean of its values.
    """
    flat = hidden.flatten(0, 1)
    states = flat.index_select(0, answers["positions"])
    averages = answers.get("averages")
    if averages is None:
        return token_log_probs(head(states), answers["tokens"]), None
    with torch.no_grad():
        means = averages.to(flat.dtype) @ flat.detach()
    logits = head(torch.cat([states, means]))
    labelled, averaged = logits.split([len(states), len(means)])
    return token_log_probs(labelled, answers["tokens"]), averaged.detach().float().mean(-1)


def mean_loss(log_probs: torch.Tensor, items: Any = None) -> torch.Tensor:
    """The loss of transformers' causal language models.

    Args:
        log_probs: ``[T]``, of the labelled tokens.
        items: divides the sum; None: the number of tokens. Without tokens the loss is 0.
    """
    count = max(len(log_probs), 1) if items is None else items
    return -log_probs.sum() / (count.to(log_probs.device) if torch.is_tensor(count) else count)


def answers_loss(
    head: nn.Module, hidden: torch.Tensor, labels: torch.Tensor, vocab_size: int, items: Any = None
) -> torch.Tensor:
    """The loss of transformers' causal language models, from labelled positions alone.

    Args:
        head: as in :func:`log_probs_of`.
        hidden: ``[B, S, H]``.
        labels: ``[B, S]``, -100 where nothing is learnt; ids above the vocabulary count as -100.
        vocab_size: rows of the head.
        items: as for :func:`mean_loss`.
    """
    rows, columns, tokens = learnt_tokens(labels, vocab_size)
    answers = {"positions": rows * labels.shape[1] + columns - 1, "tokens": tokens}
    return mean_loss(log_probs_of(head, hidden, answers)[0], items)
