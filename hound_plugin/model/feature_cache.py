"""Features of clips in memory, so that a second question about a clip does not encode it again.

Only inference uses it (:func:`hound_plugin.model.inference.load` and the host's chat engine enable it), never a model
in training or one that needs gradients.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import nn

from hound_plugin.media.pixel_cache import MEBIBYTE, MemoryCache

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_ADAPTER_STATE = ("active_adapters", "disable_adapters", "merged_adapters", "scaling")


class FeatureCache(MemoryCache):
    """Features, keyed by the SHA-256 of the pixels and the state of the modules that computed them.

    The state is a checksum over the bits of every weight and buffer, their version counters, and which adapters are
    active, merged and how they are scaled: after any change, features are computed again. Items are encoded one by
    one, so that an answer does not depend on what is cached.
    """

    def __init__(self, limit: int = 512 * MEBIBYTE) -> None:
        super().__init__(limit)

    def get_or_compute(
        self, pixels: torch.Tensor, modules: Sequence[nn.Module], encode: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """Features of each item.

        Args:
            pixels: ``[N, ...]``.
            modules: the modules that ``encode`` uses.
            encode: ``[1, ...] -> [1, tokens, hidden]``.

        Returns:
            ``[N, tokens, hidden]``.
        """
        state = fingerprint(modules)
        if state is None:
            return encode(pixels)
        collected = []
        for item in pixels:
            content = item.detach().contiguous().cpu().reshape(-1).view(torch.uint8).numpy()
            key = (state, tuple(item.shape), item.dtype, str(item.device), hashlib.sha256(content.data).digest())
            features = self.get(key)
            if features is None:
                features = encode(item.unsqueeze(0)).squeeze(0).detach()
                self.put(key, features)
            collected.append(features)
        return torch.stack(collected)


@torch.no_grad()
def fingerprint(modules: Sequence[nn.Module]) -> Hashable | None:
    """The state of modules; None if it is unknown (weights that are not in memory, or of unknown types)."""
    counters: list[Any] = []
    sums = []
    for module in modules:
        for tensor in [*module.parameters(), *module.buffers()]:
            if type(tensor.data) is not torch.Tensor or tensor.is_meta or tensor.element_size() not in _INTEGERS:
                return None
            counters.append((tensor.data_ptr(), -1 if tensor.is_inference() else tensor._version))
            sums.append(_checksum(tensor.detach()))
        for part in module.modules():
            counters.append((part.training, *(_plain(getattr(part, name, None)) for name in _ADAPTER_STATE)))
    groups: dict[torch.device, list[torch.Tensor]] = {}
    for value in sums:
        groups.setdefault(value.device, []).append(value)
    checks = tuple(tuple(torch.stack(values).tolist()) for values in groups.values())
    return checks, tuple(counters)


def _checksum(tensor: torch.Tensor) -> torch.Tensor:
    """The sum of the bits, eight bytes at a time if possible (13 times faster than four on a CPU)."""
    if tensor.is_contiguous() and tensor.nbytes % 8 == 0 and tensor.storage_offset() * tensor.element_size() % 8 == 0:
        return tensor.reshape(-1).view(torch.int64).sum()
    return tensor.view(_INTEGERS[tensor.element_size()]).sum(dtype=torch.int64)


def _plain(value: Any) -> Hashable:
    return repr(value) if isinstance(value, bool | int | float | str | list | tuple | dict | type(None)) else None
