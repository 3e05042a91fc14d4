"""Features of the frozen towers on disk, so that a training runs them once for each clip and image.

What is stored is before the projector, which may be trained.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hound_plugin.media.array_folder import ArrayFolder
from hound_plugin.model.vision import LlavaHoundTower

_FORMAT = 1  # raise it when the meaning of an entry changes


class FeatureFolder(ArrayFolder):
    """Features ``[tokens, channels]`` of clips or images, as one tower makes them.

    They are stored in the narrowest of bfloat16, float16 and float32 that has their values, to the bit. The key covers
    the content of the media and every setting of their processing, the tower's weights and the type it computes in.

    Args:
        folder: created if missing; both towers may share it.
        limit: total size of the entries in bytes; None: no limit.
        tower: :func:`tower_digest` of the tower.
    """

    types = (np.float32, np.float16, np.uint16)  # the last: bits of bfloat16, which numpy does not have

    def __init__(self, folder: str | Path, limit: int | None, tower: str) -> None:
        super().__init__(folder, "feature_cache", limit)
        self.tower = tower

    def key_for(self, content_key: str) -> str:
        """Key of an item, of which ``content_key`` is as :func:`hound_plugin.media.frame_cache.content_key` gives."""
        return hashlib.sha256(json.dumps([_FORMAT, self.tower, content_key]).encode()).hexdigest()

    def load(self, key: str, shape: Sequence[int] | None = None) -> torch.Tensor | None:
        """Features of an item, float32 ``[tokens, channels]``; None if they are not there, or damaged."""
        array = self.get(key, shape)
        if array is None:
            return None
        features = torch.from_numpy(array.view(np.int16) if array.dtype == np.uint16 else array)
        return (features.view(torch.bfloat16) if array.dtype == np.uint16 else features).float()

    def store(self, key: str, features: torch.Tensor) -> None:
        """Store the features of an item ``[tokens, channels]``; a warning says so if the folder cannot be written."""
        self.try_put(key, _narrowed(features.detach().cpu()))


def _narrowed(features: torch.Tensor) -> np.ndarray:
    for narrow in (torch.bfloat16, torch.float16):
        rounded = features.to(narrow)
        if torch.equal(rounded.to(features.dtype), features):
            array: np.ndarray = (rounded.view(torch.int16) if narrow == torch.bfloat16 else rounded).numpy()
            return array.view(np.uint16) if narrow == torch.bfloat16 else array
    return features.float().numpy()


@torch.no_grad()
def tower_digest(tower: LlavaHoundTower, select_layer: int, computed_in: str) -> str:
    """SHA-256 over what a tower's features depend on besides the pixels; it is the same in every process.

    Args:
        tower: its weights must be in memory, whole.
        select_layer: whose hidden state is taken.
        computed_in: the type of mixed precision, or an empty text.
    """
    blocks = tower.blocks_for(select_layer)
    config = {name: value for name, value in sorted(tower.config.to_dict().items()) if name in _SETTINGS}
    digest = hashlib.sha256(json.dumps([_FORMAT, blocks, config, computed_in]).encode())
    for name, value in sorted(tower.state_dict().items()):
        if _is_used(name, blocks):
            _add(digest, name, value)
    return digest.hexdigest()


_SETTINGS = ("hidden_act", "layer_norm_eps", "num_attention_heads", "num_frames", "add_time_attn", "patch_size")


def _is_used(name: str, blocks: int) -> bool:
    parts = name.split(".")
    if "layers" in parts:
        return int(parts[parts.index("layers") + 1]) < blocks
    return not name.startswith("post_layernorm")


def _add(digest: Any, name: str, value: torch.Tensor) -> None:
    content = value.detach().cpu().contiguous()
    digest.update(json.dumps([name, str(content.dtype), list(content.shape)]).encode())
    digest.update(content.reshape(-1).view(torch.uint8).numpy().data)
