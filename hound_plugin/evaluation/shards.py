"""Which part of the work this process does, as torchrun tells it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from hound_plugin.errors import SettingsError


@dataclass(frozen=True)
class Shard:
    """Process ``rank`` of ``size``; each takes every ``size``-th batch."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process also does what only one may do."""
        return self.rank == 0

    def __str__(self) -> str:
        return f"process {self.rank + 1} of {self.size}"


def shard_of_process(environment: Mapping[str, str] = os.environ) -> Shard:
    """The shard that ``RANK`` and ``WORLD_SIZE`` name; the whole work without them.

    Raises:
        SettingsError: they are not whole numbers with ``0 <= RANK < WORLD_SIZE``.
    """
    rank, size = environment.get("RANK", "0"), environment.get("WORLD_SIZE", "1")
    if not (rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
        raise SettingsError(
            f"Expected whole numbers with 0 <= RANK < WORLD_SIZE, as torchrun sets them; got RANK={rank!r} and "
            f"WORLD_SIZE={size!r}. Unset both, or start with torchrun."
        )
    return Shard(int(rank), int(size))
