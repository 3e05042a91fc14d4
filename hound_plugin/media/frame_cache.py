"""Processed clips on disk, so that an epoch does not decode again what the previous one decoded."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hound_plugin.errors import SettingsError
from hound_plugin.records.files import clear_leftovers, whole_file
from hound_plugin.records.media_identity import media_identity

logger = logging.getLogger(__name__)

_FORMAT = 2  # raise it when the meaning of an entry changes
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}
_seen: set[tuple[str, str]] = set()  # folders that were cleared or warned about in this process


class ArrayFolder:
    """Arrays by key as ``.npy`` files under one folder; safe for many processes on one file system.

    Each file ends with a SHA-256 over key, shape, type and content: an entry that was changed, truncated or renamed is
    computed again. Half-written files of killed processes are cleared when a process first uses the folder. If the
    folder is not writable, a warning says so once, and nothing is cached.

    Args:
        folder: created if missing.
        setting: its name, for messages.

    Raises:
        SettingsError: no folder of this name can be created.
    """

    def __init__(self, folder: str | Path, setting: str = "frame_cache") -> None:
        self.folder = Path(folder).expanduser()
        self.setting = setting
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno not in _NOT_WRITABLE:
                raise SettingsError(
                    f"Expected {setting} to be a writable folder: {error}. Name another folder."
                ) from error
            self._warn(error)
        if self._is_first("leftovers"):
            with contextlib.suppress(OSError):
                clear_leftovers(self.folder)

    def get(self, key: str, shape: Sequence[int] | None = None) -> np.ndarray | None:
        """The cached array, or None. A damaged entry is removed, so that the caller recomputes it.

        Args:
            key: 64 hexadecimal digits.
            shape: of the array, if known; an entry of another shape counts as damaged.
        """
        path = self._path(key)
        try:
            content = bytearray(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn(error)
            return None
        try:
            return _unpack(content, key, shape)
        except (ValueError, EOFError, OverflowError, SyntaxError):  # numpy parses the header as an expression
            with contextlib.suppress(OSError):
                path.unlink()
            return None

    def put(self, key: str, array: np.ndarray) -> None:
        """Store an array atomically; of two writers the later one wins.

        Raises:
            OSError: the disk is full or not writable.
        """
        content = io.BytesIO()
        np.save(content, np.ascontiguousarray(array), allow_pickle=False)
        with whole_file(self._path(key), "wb") as file:
            file.write(content.getbuffer())
            file.write(_digest(key, content.getbuffer()))

    def get_or_compute(
        self, key: str, shape: Sequence[int], compute: Callable[[], np.ndarray], is_current: Callable[[], bool]
    ) -> np.ndarray:
        """The cached array, or a new one, which is stored if ``is_current`` says that its media are unchanged."""
        cached = self.get(key, shape)
        if cached is not None:
            return cached
        array = compute()
        if is_current():
            try:
                self.put(key, array)
            except OSError as error:
                self._warn(error)
        return array

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npy"

    def _is_first(self, what: str) -> bool:
        """Whether this is the first time in this process."""
        mark = (str(self.folder), what)
        is_new = mark not in _seen
        _seen.add(mark)
        return is_new

    def _warn(self, error: OSError) -> None:
        if self._is_first("warning"):
            logger.warning(
                "%s: %s cannot be used (%s). Work continues without caching: clips are decoded again each time. Free "
                "space, or name another folder. (Shown once.)",
                self.setting,
                self.folder,
                error.strerror or error,
            )


class FrameCache(ArrayFolder):
    """Processed clips, float32 ``[T, 3, H, W]``.

    The key covers the content of the media (size, modification time and a digest of three samples of each file; not its
    path, so that a copied folder is recognised), the part of the clip, and every parameter of the processing: after a
    change the clip is processed again, and the old entry stays until the folder is deleted.
    """

    def key_for(self, video: Any, **params: Any) -> str | None:
        """Key of a clip under the given parameters (JSON values).

        Returns:
            64 hexadecimal digits; None for media in memory and for paths that cannot be examined.
        """
        identity = media_identity(video)
        if identity is None:
            return None
        text = json.dumps([_FORMAT, identity, params], sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()

    def put(self, key: str, array: np.ndarray) -> None:
        """See :meth:`ArrayFolder.put`; stored as float32."""
        super().put(key, np.asarray(array, dtype=np.float32))


def _digest(key: str, content: Any) -> bytes:
    digest = hashlib.sha256(key.encode())
    digest.update(content)
    return digest.digest()


def _unpack(content: bytearray, key: str, shape: Sequence[int] | None) -> np.ndarray:
    """The array of an entry; it is writable.

    Raises:
        ValueError: the entry is damaged, belongs to another key, or has another shape.
    """
    size = hashlib.sha256().digest_size
    with memoryview(content) as view:
        if _digest(key, view[:-size]) != bytes(view[-size:]):
            raise ValueError("an entry with a wrong checksum")
        head = io.BytesIO(bytes(view[:1024]))
    if np.lib.format.read_magic(head) != (1, 0):
        raise ValueError("an entry of another format")
    actual_shape, fortran, dtype = np.lib.format.read_array_header_1_0(head)
    if fortran or dtype != np.float32 or (shape is not None and actual_shape != tuple(shape)):
        raise ValueError(f"an entry {actual_shape} of {dtype}")
    count = int(np.prod(actual_shape, dtype=np.int64))
    return np.frombuffer(content, dtype, count, head.tell()).reshape(actual_shape)
