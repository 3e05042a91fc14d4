"""One copy of the weights that policy and reference have in common: frozen ones that are equal."""

from __future__ import annotations

from typing import Any

import torch
from llamafactory.extras import logging
from torch import nn

logger = logging.get_logger(f"llamafactory.{__name__}")

_MEBIBYTE = 1 << 20
_DONE = "_hound_shares_weights"


def share_frozen_weights(trainer: Any) -> None:
    """Let the reference of a trainer use the policy's frozen weights, once, before its first forward pass.

    Models whose weights DeepSpeed or FSDP holds are left alone.

    Args:
        trainer: of the host, with ``model`` and ``ref_model``.
    """
    if getattr(trainer, _DONE, False):
        return
    setattr(trainer, _DONE, True)
    reference, policy = trainer.ref_model, trainer.accelerator.unwrap_model(trainer.model)
    if reference is None or trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
        return
    shared = share(policy, trainer.accelerator.unwrap_model(reference))
    if shared:
        logger.info_rank0(f"Policy and reference share {shared / _MEBIBYTE:,.0f} MiB of frozen weights.")


def share(policy: nn.Module, reference: nn.Module) -> int:
    """Let the reference use the policy's frozen parameters where its own are equal.

    Args:
        policy, reference: models; those that are one and the same share all already.

    Returns:
        The bytes that are free now.
    """
    own = {_plain_name(name): parameter for name, parameter in policy.named_parameters()}
    freed = 0
    for name, parameter in reference.named_parameters():
        other = own.get(name)
        if other is not None and other is not parameter and not other.requires_grad and _equal(other, parameter):
            parameter.data = other.data
            freed += parameter.nbytes
    return freed


def _plain_name(name: str) -> str:
    """The name of a parameter without what adapters add to it."""
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")


def _equal(first: nn.Parameter, second: nn.Parameter) -> bool:
    """Whether two plain parameters are equal and do not share memory yet; quantised ones have a type of their own."""
    plain = type(first) is nn.Parameter and type(second) is nn.Parameter
    return (
        plain
        and first.dtype == second.dtype
        and first.device == second.device
        and first.shape == second.shape
        and first.data_ptr() != second.data_ptr()
        and torch.equal(first, second)
    )
