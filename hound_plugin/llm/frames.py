"""Frames of a clip as images of a request."""

from __future__ import annotations

import base64
from typing import Any


def frame_parts(media: Any, num_frames: int, size: int) -> list[dict[str, Any]]:
    """Evenly spread frames of a clip (one for an image) as JPEG in ``image_url`` parts.

    Args:
        media: a path, a folder of frames, or a list of frames.
        num_frames: how many.
        size: pixels of the longer side at most.

    Raises:
        MediaError: the clip cannot be read.
    """
    from hound_plugin.media.jpeg_frames import jpeg_frames

    parts = []
    for picture in jpeg_frames(media, num_frames, size).pictures:
        data = base64.b64encode(picture).decode()
        parts.append({"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{data}"}})
    return parts
