"""Which tokens of a row are learnt: the home of the label that means "nothing"."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch

IGNORED_LABEL = -100
"""The label of a position where nothing is learnt."""
Labels = TypeVar("Labels", np.ndarray, torch.Tensor)


def is_learnt(labels: Labels, vocab_size: int | None = None) -> Labels:
    """Where a token is learnt.

    Args:
        labels: ``[..., S]``. The first token has none before it that could predict it.
        vocab_size: ids from here on are placeholders, which nobody says; None: there are none.

    Returns:
        Booleans ``[..., S]``.
    """
    learnt = labels != IGNORED_LABEL
    if vocab_size is not None:
        learnt = learnt & (labels < vocab_size)
    learnt[..., :1] = False
    return learnt


def learnt_tokens(labels: torch.Tensor, vocab_size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The learnt tokens of rows: their rows, columns and ids, each ``[T]``.

    Args:
        labels: ``[R, S]``.
        vocab_size: as for :func:`is_learnt`.
    """
    rows, columns = is_learnt(labels, vocab_size).nonzero(as_tuple=True)
    return rows, columns, labels[rows, columns]
