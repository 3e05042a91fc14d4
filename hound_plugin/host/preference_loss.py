"""The preference loss that ``pref_loss`` names, and every input that it needs."""

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
    return original(self, *args, **kwargs)


def forward_with_media(
    original: Callable[..., Any], self: Any, model: Any, batch: dict[str, Any], *args: Any, **kwargs: Any
) -> Any:
    """``CustomKTOTrainer.forward``, which passes on only the media of other models."""
    media = {name: batch[name] for name in MEDIA_INPUTS if name in batch}
    return original(self, partial(model, **media) if media else model, batch, *args, **kwargs)


def loss_with_media(
    original: Callable[..., Any], self: Any, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any
) -> Any:
    """``CustomSeq2SeqTrainer.compute_loss``, whose reference of ``use_asft_loss`` is given text alone."""
    media = {name: inputs[name] for name in MEDIA_INPUTS if name in inputs}
    reference = getattr(self, "ref_model", None)
    if reference is None or not media:
        return original(self, model, inputs, *args, **kwargs)
    self.ref_model = partial(reference, **media)
    try:
        return original(self, model, inputs, *args, **kwargs)
    finally:
        self.ref_model = reference
