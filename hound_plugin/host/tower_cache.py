"""``hound.feature_cache`` while batches are made: media whose features are on disk are not decoded.

:func:`begin` settles which towers the features belong to, once the model is loaded; :func:`read_media` gives the
collator features or pixels; :mod:`hound_plugin.host.tower_step` runs the towers on what came as pixels, and stores it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from llamafactory.extras import logging
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.modeling_utils import is_fsdp_enabled

from hound_plugin.errors import SettingsError
from hound_plugin.host import patching
from hound_plugin.host.settings_state import settings
from hound_plugin.media.array_folder import in_bytes
from hound_plugin.model.feature_folder import FeatureFolder, tower_digest

logger = logging.get_logger(f"llamafactory.{__name__}")  # shown as the host's own messages are

KINDS = ("image", "video")


@dataclass(frozen=True)
class TowerCache:
    """The features of one model's towers.

    Attributes:
        folders: ``image`` and ``video``.
        channels: of the features of each.
    """

    folders: dict[str, FeatureFolder]
    channels: dict[str, int]


@dataclass(frozen=True, eq=False)
class ReadMedia:
    """A clip or an image of a batch.

    Attributes:
        tensor: its pixels, or what the tower made of them, ``[tokens, channels]``.
        key: under which the features of these pixels may be stored; None: nowhere.
    """

    tensor: torch.Tensor
    key: str | None = None


_active: TowerCache | None = None


def active() -> TowerCache | None:
    """The cache of the model that this process trains; None where features are not cached."""
    return _active


def reset() -> None:
    """Forget the model of an earlier run; called when the host parses arguments."""
    global _active
    _active = None


def check_frozen(finetuning: Any) -> None:
    """Refuse, before anything is loaded, a feature cache for towers that are trained.

    Raises:
        SettingsError: ``freeze_vision_tower: false``.
    """
    if settings().feature_cache is not None and not finetuning.freeze_vision_tower:
        _refuse("`freeze_vision_tower: false` trains the towers")


def begin(model: Any, stage: str, compute_dtype: Any) -> None:
    """Open the cache for a loaded model, on all ranks; without ``hound.feature_cache`` nothing happens.

    Args:
        model: the composite; its adapters are in place.
        stage: of the training.
        compute_dtype: of mixed precision.

    Raises:
        SettingsError: the towers are trained, or have dropout, or are sharded in a stage that cannot run them alone.
    """
    global _active
    folder, limit = settings().feature_cache, in_bytes(settings().feature_cache_limit)
    if folder is None:
        return
    composite = model.model
    towers = {"image": composite.image_tower, "video": composite.video_tower}
    if any(parameter.requires_grad for tower in towers.values() for parameter in tower.parameters()):
        _refuse("the towers are trained")
    if any(tower.config.attention_dropout for tower in towers.values()):
        _refuse("the towers have `attention_dropout`")
    if patching.is_missing("_prepare_inputs"):
        _refuse("this release of the host prepares its batches elsewhere (see `hound doctor`)")
    if stage == "rm" and (is_deepspeed_zero3_enabled() or is_fsdp_enabled()):
        _refuse("`stage: rm` cannot run sharded towers on their own")
    layer = composite.config.mm_vision_select_layer
    digests = [_digest(tower, layer, str(compute_dtype)) for tower in towers.values()]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.broadcast_object_list(digests)
    folders = {kind: FeatureFolder(folder, limit, digest) for kind, digest in zip(towers, digests, strict=True)}
    _active = TowerCache(folders, {kind: tower.config.hidden_size for kind, tower in towers.items()})
    composite.takes_features = True
    logger.info_rank0(
        f"feature_cache: {folders['video'].describe()}. Clips and images whose features are in it are neither decoded "
        "nor run through the towers."
    )


def _refuse(reason: str) -> None:
    raise SettingsError(
        f"hound.feature_cache: expected off, because {reason}; got {settings().feature_cache!r}. Remove it, or keep "
        "the towers as they are (`freeze_vision_tower: true`). `hound.frame_cache` also saves decoding.",
        "feature_cache",
    )


def _digest(tower: Any, layer: int, computed_in: str) -> str:
    """The digest on rank 0, whose weights are whole also where the others' are still empty (FSDP2)."""
    with _whole(tower):
        if torch.distributed.is_available() and torch.distributed.is_initialized() and torch.distributed.get_rank():
            return ""
        return tower_digest(tower, layer, computed_in)


@contextlib.contextmanager
def _whole(tower: Any) -> Iterator[None]:
    if not is_deepspeed_zero3_enabled():
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(tower.parameters())):
        yield


def read_media(processor: Any, kind: str, item: Any) -> ReadMedia:
    """The features of a clip or an image from the cache, else its pixels.

    Args:
        processor: the model's.
        kind: ``image`` or ``video``.
        item: as the processor's ``read_image`` and ``read_video`` take it, or what this function gave before.

    Raises:
        MediaError: it cannot be read.
    """
    if isinstance(item, ReadMedia):
        return item
    if torch.is_tensor(item):
        return ReadMedia(item)
    part, read = (
        (processor.video_processor, processor.read_video)
        if kind == "video"
        else (processor.image_processor, processor.read_image)
    )
    content = None if _active is None else part.content_key(item)
    if _active is None or content is None:
        return ReadMedia(read(item))
    folder = _active.folders[kind]
    key = folder.key_for(content)
    tokens = processor.tokens_per_video if kind == "video" else processor.tokens_per_image
    features = folder.load(key, (tokens, _active.channels[kind]))
    if features is not None:
        return ReadMedia(features)
    pixels = read(item)
    return ReadMedia(pixels, key if part.content_key(item) == content else None)  # the file may have changed meanwhile


def collated(kind: str, items: list[ReadMedia], index: list[int]) -> dict[str, torch.Tensor]:
    """Inputs of a batch for its distinct media of a kind.

    Args:
        kind: ``image`` or ``video``.
        items: the distinct ones.
        index: which of them each occurrence in the text shows.

    Returns:
        ``pixel_values_{kind}s`` and ``{kind}_index``. Where features are cached: ``pixel_values_{kind}s`` holds
        features if there are some of every item; else pixels of the others, with ``{kind}_keys`` (uint8 ``[N, 32]``,
        zeros for none) and the known ``{kind}_features``, which come first in the order of the index.
    """
    known = [number for number, item in enumerate(items) if item.tensor.dim() == 2]
    new = [number for number, item in enumerate(items) if item.tensor.dim() != 2]
    place = {number: position for position, number in enumerate([*known, *new])}
    tensors = torch.stack([items[number].tensor for number in new or known])
    inputs = {f"pixel_values_{kind}s": tensors, f"{kind}_index": torch.tensor([place[number] for number in index])}
    if new and _active is not None:
        keys = [bytes.fromhex(items[number].key or "00" * 32) for number in new]
        inputs[f"{kind}_keys"] = torch.tensor([list(key) for key in keys], dtype=torch.uint8)
        if known:
            inputs[f"{kind}_features"] = torch.stack([items[number].tensor for number in known])
    return inputs
