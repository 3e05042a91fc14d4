"""``hound.feature_cache`` in the training process: the towers run on media that came as pixels, once, and no more.

This happens before a trainer's own step: policy, reference and every pass of a step are given features alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.modeling_utils import is_fsdp_enabled

from hound_plugin.errors import SettingsError
from hound_plugin.host.preference_step import composite_of, same_towers
from hound_plugin.host.tower_cache import KINDS, TowerCache, active
from hound_plugin.model.media_features import is_encoded


def prepare_inputs(original: Callable[..., Any], self: Any, inputs: Any) -> Any:
    """``Trainer._prepare_inputs``."""
    return with_features(self, original(self, inputs))


def with_features(trainer: Any, inputs: Any) -> Any:
    """A batch whose media are features; without a cache, the batch as it is.

    Raises:
        SettingsError: the reference model has other towers than the policy.
    """
    cache = active()
    if cache is None:
        return inputs
    if not getattr(trainer, "_hound_towers_checked", False):
        _check_reference(trainer)
        trainer._hound_towers_checked = True
    return encoded_batch(cache, inputs, lambda pixels: _encode(trainer, pixels))


Encode = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
"""Pixels of images and clips to what the towers make of them, both by kind."""


class WholeTowers:
    """The towers of a model that is whole in this process; they encode as the training does.

    Args:
        model: the composite, or what wraps it.
        compute_dtype: of mixed precision; None: there is none.
        is_cast: an engine casts a batch to that type (DeepSpeed, FSDP); else operators are cast, as by autocast.
    """

    def __init__(self, model: Any, compute_dtype: torch.dtype | None, is_cast: bool) -> None:
        self.composite = composite_of(model).model
        self.compute_dtype, self.is_cast = compute_dtype, is_cast

    def __call__(self, pixels: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Features of pixels, which are where the towers are."""
        if self.compute_dtype is None or self.is_cast:
            given = {kind: value.to(self.compute_dtype or value.dtype) for kind, value in pixels.items()}
            return self.composite.encode(given.get("image"), given.get("video"))
        device = next(iter(pixels.values())).device if pixels else torch.device("cpu")
        with torch.autocast(device.type, self.compute_dtype):
            return self.composite.encode(pixels.get("image"), pixels.get("video"))


def encoded_batch(cache: TowerCache, inputs: Any, encode: Encode) -> Any:
    """A batch whose media are features: from the cache, or encoded now and then stored."""
    pixels = {
        kind: value
        for kind in KINDS
        if (value := inputs.get(f"pixel_values_{kind}s")) is not None and not is_encoded(value)
    }
    keys = {kind: _keys(inputs.get(f"{kind}_keys"), len(value)) for kind, value in pixels.items()}
    stored = {kind: [_stored(cache, kind, key) for key in keys[kind]] for kind in pixels}
    missing = {kind: [number for number, item in enumerate(items) if item is None] for kind, items in stored.items()}
    encoded = encode({kind: pixels[kind][numbers] for kind, numbers in missing.items() if numbers})
    inputs = dict(inputs)
    for kind, value in pixels.items():
        for number, features in zip(missing[kind], encoded.get(kind, ()), strict=True):
            stored[kind][number] = features
            if (key := keys[kind][number]) is not None:
                cache.folders[kind].store(key, features)
        known = inputs.pop(f"{kind}_features", None)
        features = torch.stack([item.to(value) for item in stored[kind] if item is not None])
        inputs[f"pixel_values_{kind}s"] = features if known is None else torch.cat([known, features])
        inputs.pop(f"{kind}_keys", None)
    return inputs


def _keys(keys: torch.Tensor | None, count: int) -> list[str | None]:
    rows = [[0]] * count if keys is None else keys.tolist()
    return [bytes(row).hex() if any(row) else None for row in rows]


def _stored(cache: TowerCache, kind: str, key: str | None) -> torch.Tensor | None:
    """The features of an item that were stored after its batch was read: batches are read ahead, by several ranks."""
    return None if key is None else cache.folders[kind].load(key)


def _check_reference(trainer: Any) -> None:
    reference = getattr(trainer, "ref_model", None)
    if not isinstance(reference, torch.nn.Module):
        return
    if not same_towers(composite_of(trainer.model), reference):
        raise SettingsError(
            "hound.feature_cache: expected a reference model with the policy's towers, of the same type; got another. "
            "Remove `feature_cache`.",
            "feature_cache",
        )
    composite_of(reference).model.takes_features = True


def _encode(trainer: Any, pixels: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What the towers make of pixels; sharded towers run as often on each rank, on black items if need be."""
    composite = composite_of(trainer.model).model
    if not (is_deepspeed_zero3_enabled() or is_fsdp_enabled()):
        with trainer.accelerator.autocast():
            return composite.encode(pixels.get("image"), pixels.get("video"))
    counts = torch.tensor([len(pixels.get(kind, ())) for kind in KINDS], device=trainer.accelerator.device)
    torch.distributed.all_reduce(counts, op=torch.distributed.ReduceOp.MAX)
    towers = {"image": composite.image_tower, "video": composite.video_tower}
    filled = {}
    for kind, count in zip(KINDS, counts.tolist(), strict=True):
        if count:
            own = pixels.get(kind)
            black = _black(towers[kind].config, count - (0 if own is None else len(own)), trainer)
            filled[f"pixel_values_{kind}s"] = black if own is None else torch.cat([own, black.to(own.dtype)])
    if not filled:
        return {}
    with torch.no_grad():
        encoded = trainer.model_wrapped(**filled, encode_only=True).tower_features
    return {kind: encoded[kind][: len(pixels[kind])] for kind in pixels}


def _black(config: Any, count: int, trainer: Any) -> torch.Tensor:
    frames = (config.num_frames,) if config.add_time_attn else ()
    shape = (count, *frames, config.num_channels, config.image_size, config.image_size)
    return torch.zeros(shape, device=trainer.accelerator.device, dtype=next(trainer.model.parameters()).dtype)
