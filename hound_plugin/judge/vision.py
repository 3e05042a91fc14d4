"""A judge that sees frames: the same requests with images before the text."""

from __future__ import annotations

import base64
import hashlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hound_plugin.judge.exchange import Conversation, Task
from hound_plugin.judge.openai_client import Endpoint, OpenAIClient

JPEG_QUALITY = 85
IMAGE_ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".webp")


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
    from PIL import Image

    from hound_plugin.media.decode import read_clip

    if isinstance(media, str) and media.lower().endswith(IMAGE_ENDINGS) and os.path.isfile(media):
        media, num_frames = [media], 1
    parts = []
    for frame in read_clip(media, num_frames=num_frames).frames:
        image = Image.fromarray(frame)
        image.thumbnail((size, size))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=JPEG_QUALITY)
        data = base64.b64encode(buffer.getvalue()).decode()
        parts.append({"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{data}"}})
    return parts


def media_digest(paths: Any) -> str:
    """Hash of the content of a clip: of the file, of every file of a folder or list."""
    digest = hashlib.sha256()
    for item in paths if isinstance(paths, list) else [paths]:
        path = Path(str(item))
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        for file in files:
            if item is not None and file.is_file():
                digest.update(f"{file.name}\x00{file.stat().st_size}\x00".encode())
                with file.open("rb") as data:
                    for block in iter(lambda data=data: data.read(1 << 20), b""):  # type: ignore[misc]
                        digest.update(block)
    return digest.hexdigest()
