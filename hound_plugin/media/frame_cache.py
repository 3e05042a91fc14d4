"""Processed clips kept on disk, so that an epoch does not decode again what the one before decoded."""

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
_NO_PLACE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}
_seen: set[tuple[str, str]] = set()  # folders that were looked after in this process, and for what


class ArrayFolder:
    """Arrays by key as ``.npy`` files under one folder; safe for many processes on one file system.

    Behind the array stands a SHA-256 over key, shape, type and numbers: an entry that was changed, cut or renamed is
    made anew. Half-written files of killed processes are cleared when a process first uses the folder. Where the folder
    cannot be written, a warning says so once, and nothing is kept.

    Args:
        folder: created if missing.
        setting: its name, for messages.

    Raises:
        SettingsError: there cannot be a folder of this name.
    """

    def __init__(self, folder: str | Path, setting: str = "frame_cache") -> None:
        self.folder = Path(folder).expanduser()
        self.setting = setting
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno not in _NO_PLACE:
                raise SettingsError(f"Expected {setting} to be a folder that can be written: {error}.") from error
            self._warn(error)
        if self._first("leftovers"):
            with contextlib.suppress(OSError):
                clear_leftovers(self.folder)

    def get(self, key: str, shape: Sequence[int] | None = None) -> np.ndarray | None:
        """The kept array, or None. A damaged entry is removed, so that the caller makes it anew.

        Args:
            key: 64 hexadecimal digits.
            shape: of the array, where it is known; an entry of another one counts as damaged.
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
            return _unpacked(content, key, shape)
        except (ValueError, EOFError, OverflowError, SyntaxError):  # numpy parses the header as an expression
            with contextlib.suppress(OSError):
                path.unlink()
            return None

    def put(self, key: str, array: np.ndarray) -> None:
        """Keep an array. It appears whole or not at all; of two writers the later one stays.

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
        """The kept array, or a new one, which is kept if ``is_current`` says that its media are still the same."""
        kept = self.get(key, shape)
        if kept is not None:
            return kept
        array = compute()
        if is_current():
            try:
                self.put(key, array)
            except OSError as error:
                self._warn(error)
        return array

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npy"

    def _first(self, what: str) -> bool:
        """Whether this process asks for the first time."""
        mark = (str(self.folder), what)
        is_first = mark not in _seen
        _seen.add(mark)
        return is_first

    def _warn(self, error: OSError) -> None:
        if self._first("warning"):
            logger.warning(
                "%s: %s cannot be used (%s): the work goes on, and what is not kept is computed again. Free space, or "
                "name another folder. (Said once.)",
                self.setting,
                self.folder,
                error.strerror or error,
            )


class FrameCache(ArrayFolder):
    """Processed clips, float32 ``[T, 3, H, W]``.

    An entry belongs to the content of its media (size, time of change and digests of three places of each file; not its
    path, so that a copied folder is known), to the part of a clip that was asked for, and to every parameter of the
    processing: what changes is made anew, and the old entry stays until the folder is deleted.
    """

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

    def put(self, key: str, array: np.ndarray) -> None:
        """See :meth:`ArrayFolder.put`; kept as float32."""
        super().put(key, np.asarray(array, dtype=np.float32))


def _digest(key: str, content: Any) -> bytes:
    digest = hashlib.sha256(key.encode())
    digest.update(content)
    return digest.digest()


def _unpacked(content: bytearray, key: str, shape: Sequence[int] | None) -> np.ndarray:
    """The array of an entry, which may be written to.

    Raises:
        ValueError: it is damaged, belongs to another key, or has another shape.
    """
    size = hashlib.sha256().digest_size
    with memoryview(content) as view:
        if _digest(key, view[:-size]) != bytes(view[-size:]):
            raise ValueError("an entry with another checksum")
        head = io.BytesIO(bytes(view[:1024]))
    if np.lib.format.read_magic(head) != (1, 0):
        raise ValueError("an entry of another format")
    found, fortran, dtype = np.lib.format.read_array_header_1_0(head)
    if fortran or dtype != np.float32 or (shape is not None and found != tuple(shape)):
        raise ValueError(f"an entry {found} of {dtype}")
    count = int(np.prod(found, dtype=np.int64))
    return np.frombuffer(content, dtype, count, head.tell()).reshape(found)
