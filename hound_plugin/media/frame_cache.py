"""Processed clips on disk, so that an epoch does not decode again what the previous one decoded."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from hound_plugin.media.array_folder import ArrayFolder
from hound_plugin.records.media_identity import media_identity

_FORMAT = 4  # raise it when the meaning of an entry changes


class FrameCache(ArrayFolder):
    """Processed clips, float32 ``[T, 3, H, W]``.

    The key covers the content of the media (size, modification time and a digest of three samples of each file; not its
    path, so that a copied folder is recognised), the part of the clip, and every parameter of the processing: after a
    change the clip is processed again, and the old entry stays until it is evicted or the folder is deleted.

    Args:
        folder: created if missing.
        limit: total size of the entries in bytes; None: no limit.
    """

    def __init__(self, folder: str | Path, limit: int | None = None) -> None:
        super().__init__(folder, "frame_cache", limit)

    def key_for(self, video: Any, **params: Any) -> str | None:
        """See :func:`content_key`."""
        return content_key(video, **params)

    def put(self, key: str, array: np.ndarray) -> None:
        """See :meth:`ArrayFolder.put`; stored as float32."""
        super().put(key, np.asarray(array, dtype=np.float32))


def content_key(media: Any, **params: Any) -> str | None:
    """Key of media under the given parameters of their processing (JSON values).

    Returns:
        64 hexadecimal digits; None for media in memory and for paths that cannot be examined.
    """
    identity = media_identity(media)
    if identity is None:
        return None
    text = json.dumps([_FORMAT, identity, params], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
