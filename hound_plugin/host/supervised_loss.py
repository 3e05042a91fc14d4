"""The loss of supervised training: logits only where labels are, a clip's tokens once for several questions about it,
and media for the reference of the ASFT loss."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from hound_plugin.host.grouped_step import grouped_inputs
from hound_plugin.host.preference_loss import MEDIA_INPUTS
from hound_plugin.host.settings_state import settings


def compute_loss(
    original: Callable[..., Any], self: Any, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any
) -> Any:
    """``CustomSeq2SeqTrainer.compute_loss``.

    Losses of the host that read logits (``use_dft_loss`` and others, label smoothing) and evaluation get all of them.
    """
    reference = getattr(self, "ref_model", None)
    media = {name: inputs[name] for name in MEDIA_INPUTS if name in inputs}
    if reference is not None and media:
        self.ref_model = partial(reference, **media)
        try:
            return original(self, model, inputs, *args, **kwargs)
        finally:
            self.ref_model = reference
    reads_logits = getattr(self, "compute_loss_func", None) is not None or self.label_smoother is not None
    if model.training and not reads_logits and settings().answers_only == "auto" and "labels" in inputs:
        inputs = grouped_inputs(self, model, inputs)
    return original(self, model, inputs, *args, **kwargs)
