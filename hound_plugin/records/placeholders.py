"""The texts that stand for a clip and for an image in a question."""

from __future__ import annotations

VIDEO_TOKEN, IMAGE_TOKEN = "<video>", "<image>"
TOKENS = (VIDEO_TOKEN, IMAGE_TOKEN)


def without_placeholders(text: str) -> str:
    """A text without them and without white space at its ends."""
    return text.replace(VIDEO_TOKEN, "").replace(IMAGE_TOKEN, "").strip()


def token_of(kind: str) -> str:
    """The placeholder of a ``video`` or an ``image``."""
    return VIDEO_TOKEN if kind == "video" else IMAGE_TOKEN
