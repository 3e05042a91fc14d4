"""DeepSpeed's ZeRO-3 where the ranks talk through gloo (CPU)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.distributed


def gather_one_by_one(
    original: Callable[..., Any], self: Any, param_list: list[Any], hierarchy: int = 0, quantize: bool = False
) -> None:
    """``Init._allgather_params_coalesced``, one parameter at a time on gloo, which does not keep their order."""
    if torch.distributed.get_backend() == "gloo":
        for param in param_list:
            original(self, [param], hierarchy, quantize)
    else:
        original(self, param_list, hierarchy, quantize)
