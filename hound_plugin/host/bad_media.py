"""``on_bad_media: skip`` while batches are made: rows whose media cannot be read are masked or left out.

Supervised rows are masked, preference rows left out. Where the host predicts the error stays: no prediction is made up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llamafactory.extras import logging

from hound_plugin.errors import MediaError
from hound_plugin.host.clip_groups import flat_rows
from hound_plugin.host.mm_plugin import is_ours, media_key
from hound_plugin.host.reference.stored import numbered
from hound_plugin.host.tower_cache import ReadMedia, read_media
from hound_plugin.model.labels import IGNORED_LABEL
from hound_plugin.processing.processor import LlavaHoundProcessor

logger = logging.get_logger(__name__)


def collate_supervised(original: Callable[..., Any], self: Any, features: list[dict[str, Any]]) -> Any:
    """``SFTDataCollatorWith4DAttentionMask.__call__``, which also takes groups of rows; bad rows are masked."""
    features = flat_rows(features)
    if _skips(self) and self.model is not None:  # the host gives no model when it predicts
        mask_bad_rows(features, self.processor)
    return original(self, features)


def collate_preferences(original: Callable[..., Any], self: Any, features: list[dict[str, Any]]) -> Any:
    """``__call__`` of the collators for pairs and labels, without the bad rows; see also :func:`numbered`."""
    kept = drop_bad_rows(features, self.processor) if _skips(self) else features
    return numbered(kept, original(self, kept))


def _skips(collator: Any) -> bool:
    return is_ours(collator.template) and collator.processor.on_bad_media == "skip"


def drop_bad_rows(features: list[dict[str, Any]], processor: LlavaHoundProcessor) -> list[dict[str, Any]]:
    """With ``on_bad_media: skip``: the rows of a preference batch whose media can be read.

    A preference loss is not indifferent to a masked answer, so these rows are left out and not masked.

    Raises:
        MediaError: no row is left.
    """
    kept, failure = [], None
    seen: dict[Any, Any] = {}
    for feature in features:
        media = {}
        for kind in ("videos", "images"):
            items = []
            for item in feature.get(kind) or []:
                key = (kind, media_key(item))
                if key not in seen:
                    try:
                        seen[key] = read_media(processor, kind.removesuffix("s"), item)
                    except MediaError as error:
                        logger.warning(f"on_bad_media: skip: a row is left out, because {error}")
                        seen[key] = error
                items.append(seen[key])
            media[kind] = items
        bad = [item for items in media.values() for item in items if isinstance(item, MediaError)]
        if bad:
            failure = bad[0]
        else:
            kept.append({**feature, **media})
    if not kept and failure is not None:
        raise MediaError(
            f"on_bad_media: skip: no row is left of a batch of {len(features)}, because {failure} Set "
            "`hound: {check_media: all}`, raise the batch size, or remove the record.",
            failure.path,
        )
    return kept


def mask_bad_rows(features: list[dict[str, Any]], processor: LlavaHoundProcessor) -> None:
    """With ``on_bad_media: skip``: replace a clip that cannot be read by a black one, and mask its rows.

    A fully masked row adds nothing to the loss of supervised training, so that neither the other rows nor the other
    ranks of a distributed run are disturbed. What was masked is logged.
    """
    for kind in ("videos", "images"):
        seen: dict[Any, ReadMedia | None] = {}
        for feature in features:
            items = list(feature.get(kind) or [])
            for number, item in enumerate(items):
                key = media_key(item)
                if key not in seen:
                    seen[key] = _read_or_none(processor, kind.removesuffix("s"), item)
                media = seen[key]
                if media is None:
                    black = processor.black_video()
                    media = ReadMedia(black if kind == "videos" else black[0])
                    for name in [name for name in feature if name.endswith("labels")]:
                        feature[name] = [IGNORED_LABEL] * len(feature[name])
                items[number] = media
            feature[kind] = items


def _read_or_none(processor: LlavaHoundProcessor, kind: str, item: Any) -> ReadMedia | None:
    try:
        return read_media(processor, kind, item)
    except MediaError as error:
        logger.warning(f"on_bad_media: skip: its rows are masked, because {error}")
        return None
