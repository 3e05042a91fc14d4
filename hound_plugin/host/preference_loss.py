"""The preference loss that ``pref_loss`` names, with every input that it needs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

MEDIA_INPUTS = ("pixel_values_images", "pixel_values_videos", "image_index", "video_index")


def named_loss(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    """``DPOTrainer.dpo_loss`` with the trainer's own ``loss_type``, an argument that the host leaves out.

    Args:
        original: the trainer's method.
        self: the host's DPO trainer; ``self.loss_type`` is ``pref_loss``.
        args: log-probabilities ``[B]``: chosen, rejected, and the reference's two.
        kwargs: further arguments of trl's.
    """
    kwargs.setdefault("loss_type", self.loss_type)
    losses, *rewards = original(self, *args, **kwargs)
    return (
        losses.clone(),
        *rewards,
    )  # the host adds `pref_ftx` in place, which the backward pass of hinge does not allow


def forward_with_media(
    original: Callable[..., Any], self: Any, model: Any, batch: dict[str, Any], *args: Any, **kwargs: Any
) -> Any:
    """``CustomKTOTrainer.forward``, which passes on only the media of other models."""
    media = {name: batch[name] for name in MEDIA_INPUTS if name in batch}
    return original(self, partial(model, **media) if media else model, batch, *args, **kwargs)


def log_mean_kl(original: Callable[..., Any], self: Any, logs: dict[str, float], *args: Any, **kwargs: Any) -> Any:
    """``CustomKTOTrainer.log``, which logs the sum of the KL terms of the steps since the last line, not their mean."""
    for stored in self._stored_metrics.values():
        if stored.get("kl"):
            stored["kl"] = [sum(stored["kl"]) / len(stored["kl"])]
    return original(self, logs, *args, **kwargs)
