"""Were a training's clips replaced between two starts? Sizes and times of change of all media, noted in checkpoints.

Reading 900,000 clips would take hours; asking for their sizes and times takes seconds, where ``check_media`` opens
every one of them anyway. Another size is other content; another time alone may come from a copy.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from hound_plugin.records.files import whole_file
from hound_plugin.records.frame_order import list_frames
from hound_plugin.records.media_paths import cut_part

FILE = "hound_media.npy"
"""In checkpoints: :func:`stamps_of` the media of the training's rows."""
_TOGETHER = 1000
_UNKNOWN = (-1, -1)


def stamps_of(paths: Sequence[str]) -> np.ndarray:
    """Sizes in bytes and times of change in nanoseconds, int64 ``[N, 2]``, -1 for what cannot be examined.

    Args:
        paths: files, parts of files, or folders of frames, of which all sizes and the latest time count.
    """
    parts = [paths[start : start + _TOGETHER] for start in range(0, len(paths), _TOGETHER)]
    with ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as pool:
        stamps = [stamp for part in pool.map(lambda part: [_stamp(path) for path in part], parts) for stamp in part]
    return np.array(stamps, dtype=np.int64).reshape(-1, 2)


def _stamp(path: str) -> tuple[int, int]:
    file = cut_part(path)[0]
    try:
        stats = [os.stat(frame) for frame in list_frames(file)] if os.path.isdir(file) else [os.stat(file)]
    except (OSError, ValueError):  # MediaError is one: whoever reads it says why
        return _UNKNOWN
    return sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=-1)


def write(checkpoint: Path, stamps: np.ndarray) -> None:
    """Note stamps in a checkpoint."""
    with whole_file(checkpoint / FILE, "wb") as file:
        np.save(file, stamps, allow_pickle=False)


def read(checkpoint: Path) -> np.ndarray | None:
    """The stamps in a checkpoint; None if it has none that can be read."""
    try:
        stamps: np.ndarray = np.load(checkpoint / FILE, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return stamps if stamps.ndim == 2 and stamps.shape[1] == len(_UNKNOWN) else None
