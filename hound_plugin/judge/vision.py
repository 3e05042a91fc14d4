"""A judge that sees frames: the same requests with images before the text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hound_plugin.llm.frames import frame_parts
from hound_plugin.llm.openai_client import Endpoint, OpenAIClient
from hound_plugin.llm.requests import ChatPrompt, Request


class VisionClient(OpenAIClient):
    """An :class:`OpenAIClient` whose requests show the clip."""

    def __init__(self, endpoint: Endpoint, prompt: ChatPrompt, num_frames: int, size: int) -> None:
        """``num_frames`` evenly spread frames, none larger than ``size`` pixels on its longer side."""
        super().__init__(endpoint, prompt)
        self.num_frames, self.size, self.reads_clips = num_frames, size, True
        shown: Mapping[str, Any] = {"backend": "vision", "frames": num_frames, "frame_size": size}
        self.identity = {**self.identity, **shown}

    def body(self, request: Request, attempt: int) -> dict[str, Any]:
        """The request with images in its last message.

        Raises:
            MediaError: the clip cannot be read.
        """
        body = super().body(request, attempt)
        if request.media:
            images = frame_parts(request.media, self.num_frames, self.size)
            *above, last = body["messages"]
            body["messages"] = [*above, {**last, "content": [*images, {"type": "text", "text": last["content"]}]}]
        return body
