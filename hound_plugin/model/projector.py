"""The projector from tower features to the language model's embedding space, shared by images and clips."""

from __future__ import annotations

import re

from torch import nn

from hound_plugin.errors import CheckpointError


def build_projector(kind: str, in_features: int, out_features: int) -> nn.Module:
    """Build the projector that a checkpoint names.

    Args:
        kind: ``linear`` or ``mlp{N}x_gelu``: N linear layers with exact (erf) GELU between them.
        in_features: hidden size of the towers.
        out_features: hidden size of the language model.

    Returns:
        A module ``[..., in_features] -> [..., out_features]``. The MLP is an ``nn.Sequential`` whose linear layers
        have even indices, as in the original's ``mm_projector``.

    Raises:
        CheckpointError: the kind is unknown.
    """
    if kind == "linear":
        return nn.Linear(in_features, out_features)
    match = re.fullmatch(r"mlp([1-9]\d?)x_gelu", str(kind))
    if match is None:
        raise CheckpointError(
            f"Expected mm_projector_type 'linear' or 'mlp<N>x_gelu' with N from 1 to 99, found {kind!r}."
        )
    layers: list[nn.Module] = [nn.Linear(in_features, out_features)]
    for _ in range(int(match.group(1)) - 1):
        layers += [nn.GELU(), nn.Linear(out_features, out_features)]
    return nn.Sequential(*layers)
