"""The processes of a distributed run: work that one of them does for all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from hound_plugin.errors import HoundError

Result = TypeVar("Result")


def is_distributed() -> bool:
    """Whether this process is one of several."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def rank_and_size() -> tuple[int, int]:
    """The number of this process, and how many there are."""
    return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if is_distributed() else (0, 1)


def on_first_rank(compute: Callable[[], Result]) -> Result:
    """Compute on rank 0 and send the others the result: eight ranks need not read the same files.

    Raises:
        HoundError: what ``compute`` raised, on all ranks.
    """
    if not is_distributed():
        return compute()
    box: list[Any] = [None]
    if torch.distributed.get_rank() == 0:
        try:
            box = [compute()]
        except HoundError as error:
            box = [error]
    torch.distributed.broadcast_object_list(box)
    if isinstance(box[0], HoundError):
        raise box[0]
    result: Result = box[0]
    return result


def gathered(own: Result) -> list[Result]:
    """The value of every rank, on all ranks."""
    if not is_distributed():
        return [own]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, own)
    return values
