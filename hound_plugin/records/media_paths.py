"""What a path of media means."""

from __future__ import annotations

import os
from typing import Any

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")


def is_image_path(item: Any) -> bool:
    """Whether a path ends as pictures do."""
    return isinstance(item, str | os.PathLike) and os.path.splitext(os.fspath(item))[1].lower() in IMAGE_SUFFIXES
