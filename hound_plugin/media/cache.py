"""Processed clips kept on disk, so that an epoch does not decode again what the one before decoded."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from hound_plugin.errors import SettingsError
from hound_plugin.records.files import whole_file
from hound_plugin.records.media_identity import media_identity

_FORMAT = 1  # raise it when the meaning of an entry changes


class FrameCache:
    """Float32 arrays as ``.npy`` files under one folder; safe for many processes on one file system.

    An entry belongs to the absolute path, size and modification time of its media (of a folder: to its frames in their
    order), to the part of a clip that was asked for, and to every parameter of the processing: what changes is made
    anew, and the old entry stays until the folder is deleted.

    Args:
        folder: created if missing.

    Raises:
        SettingsError: the folder cannot be made.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"Expected frame_cache to be a folder that can be written: {error}.") from error

    def key_for(self, video: Any, **params: Any) -> str | None:
        """Key of a clip under the given parameters (JSON values).

        Returns:
            64 hexadecimal digits; None for media in memory and for paths that cannot be looked at.
        """
        identity = media_identity(video)
        if identity is None:
            return None
        text = json.dumps([_FORMAT, identity, params], sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()

    def get(self, key: str) -> np.ndarray | None:
        """The kept array, or None. A damaged entry is removed, so that the caller makes it anew."""
        path = self._path(key)
        try:
            array = np.load(path, allow_pickle=False)
            if array.dtype != np.float32:
                raise ValueError(f"an entry of {array.dtype}")
            return array
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError):
            with contextlib.suppress(OSError):
                path.unlink()
            return None

    def put(self, key: str, array: np.ndarray) -> None:
        """Keep an array (as float32). It appears whole or not at all; of two writers the later one stays.

        Raises:
            OSError: the disk is full or not writable.
        """
        with whole_file(self._path(key), "wb") as file:
            np.save(file, np.ascontiguousarray(array, dtype=np.float32), allow_pickle=False)

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npy"
