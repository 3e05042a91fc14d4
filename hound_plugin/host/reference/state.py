"""What this process knows of ``hound.reference_log_probs``: the training it is for, and its values once there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

ROW = "hound_reference_row"
"""Column of the data sets, and entry of a batch: the number of a row's values."""


@dataclass(frozen=True)
class Arguments:
    """What the host parsed for a training."""

    model: Any
    data: Any
    training: Any
    finetuning: Any


@dataclass(frozen=True)
class Table:
    """Values of all rows: sums of log-probabilities and numbers of tokens, ``[N, 2]`` each."""

    sums: torch.Tensor
    tokens: torch.Tensor


class State:
    """One for each process, which is filled while arguments are parsed and data sets are read.

    Attributes:
        arguments: of the training; None without ``reference_log_probs``.
        table: the values.
        completes: a file that lacks rows is completed, and not refused.
    """

    def __init__(self) -> None:
        self.arguments: Arguments | None = None
        self.table: Table | None = None
        self.completes = False


STATE = State()


def is_active() -> bool:
    """Whether the run takes its reference's log-probabilities from a file."""
    return STATE.arguments is not None
