"""A judge that sees frames: the same requests with images before the text."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping
from typing import Any

from hound_plugin.llm.requests import Conversation, Task
from hound_plugin.llm.openai_client import Endpoint, OpenAIClient
from hound_plugin.records.media_identity import media_digest
from hound_plugin.records.media_paths import is_image_path

__all__ = ["VisionClient", "frame_parts", "media_digest"]

JPEG_QUALITY = 85


class VisionClient(OpenAIClient):
    """An :class:`OpenAIClient` whose requests show the clip."""

    def __init__(self, endpoint: Endpoint, conversation: Conversation, num_frames: int, size: int) -> None:
        """``num_frames`` evenly spread frames, none larger than ``size`` pixels on its longer side."""
        super().__init__(endpoint, conversation)
        self.num_frames, self.size, self.reads_clips = num_frames, size, True
        shown: Mapping[str, Any] = {"backend": "vision", "frames": num_frames, "frame_size": size}
        self.identity = {**self.identity, **shown}

    def body(self, task: Task, attempt: int) -> dict[str, Any]:
        """The request with images in its last message.

        Raises:
            MediaError: the clip cannot be read.
        """
        body = super().body(task, attempt)
        if task.media:
            images = frame_parts(task.media, self.num_frames, self.size)
            *above, last = body["messages"]
            body["messages"] = [*above, {**last, "content": [*images, {"type": "text", "text": last["content"]}]}]
        return body


def frame_parts(media: Any, num_frames: int, size: int) -> list[dict[str, Any]]:
    """Evenly spread frames of a clip (one for an image) as JPEG in ``image_url`` parts.

    Raises:
        MediaError: the clip cannot be read.
    """
    import numpy as np
    from PIL import Image

    from hound_plugin.media.decode import read_clip

    if isinstance(media, str) and is_image_path(media) and os.path.isfile(media):
        media, num_frames = [media], 1

    def shrunk(frame: Any) -> Any:
        image = Image.fromarray(frame)
        image.thumbnail((size, size))
        return np.asarray(image)

    parts = []
    for frame in read_clip(media, num_frames=num_frames, transform=shrunk).frames:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "JPEG", quality=JPEG_QUALITY)
        data = base64.b64encode(buffer.getvalue()).decode()
        parts.append({"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{data}"}})
    return parts
