"""A media item as one text, because a column of the host's data has one type.

The path of a file or of a folder of frames, with its part (``clip.mp4#t=0.5,1.0``) if the row names one; or the paths
of a clip's frames, a line each and each with its line end. Paths with line ends are refused when rows are read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def frames_to_column(paths: Iterable[str]) -> str:
    """A clip as a list of frames."""
    return "".join(f"{path}\n" for path in paths)


def from_column(item: Any) -> Any:
    """A path, or the list of a clip's frames; media that are no text (arrays, images, tensors) as they are."""
    return item.splitlines() if isinstance(item, str) and "\n" in item else item
