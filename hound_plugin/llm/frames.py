"""Frames of a clip as images of a request."""

from __future__ import annotations

import base64
import io
import os
from typing import Any

from hound_plugin.records.media_paths import is_image_path

JPEG_QUALITY = 85


def frame_parts(media: Any, num_frames: int, size: int) -> list[dict[str, Any]]:
    """Evenly spread frames of a clip (one for an image) as JPEG in ``image_url`` parts.

    Args:
        media: a path, a folder of frames, or a list of frames.
        num_frames: how many.
        size: pixels of the longer side at most.

    Raises:
        MediaError: the clip cannot be read.
    """
    import numpy as np
    from PIL import Image

    from hound_plugin.media.decode import read_clip

    if isinstance(media, str) and is_image_path(media) and os.path.isfile(media):
        media, num_frames = [media], 1

    def shrink(frame: Any) -> Any:
        image = Image.fromarray(frame)
        image.thumbnail((size, size))
        return np.asarray(image)

    parts = []
    for frame in read_clip(media, num_frames=num_frames, transform=shrink).frames:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "JPEG", quality=JPEG_QUALITY)
        data = base64.b64encode(buffer.getvalue()).decode()
        parts.append({"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{data}"}})
    return parts
