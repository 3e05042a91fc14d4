"""Media whose bytes are in a row (as images in parquet files on the hub), written to files named by their content."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from hound_plugin.records.files import write_whole
from hound_plugin.records.record import Media

SUFFIXES = {"video": ".mp4", "image": ".png"}


def default_folder() -> Path:
    """A folder next to the caches of `datasets`: ``HF_DATASETS_CACHE`` or ``~/.cache/huggingface/datasets``."""
    cache = os.environ.get("HF_DATASETS_CACHE") or os.path.join(
        os.environ.get("HF_HOME", os.path.join(os.path.expanduser("~"), ".cache", "huggingface")), "datasets"
    )
    return Path(cache) / "hound_media"


def as_file(media: Media, folder: Path | None = None) -> str:
    """The path of a file with the bytes of ``media``, written once and atomically.

    Raises:
        OSError: the folder is not writable.
    """
    content = media.bytes or b""
    suffix = os.path.splitext(media.path)[1].lower() or SUFFIXES[media.kind]
    path = (folder or default_folder()) / f"{hashlib.sha256(content).hexdigest()}{suffix}"
    if not path.exists():
        write_whole(path, content)
    return str(path)
