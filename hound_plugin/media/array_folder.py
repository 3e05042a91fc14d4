"""Arrays on disk by key: bounded, checked, and safe for many processes. What the caches of frames and features are."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import xxhash

from hound_plugin.errors import SettingsError
from hound_plugin.records.files import clear_leftovers, whole_file

logger = logging.getLogger(__name__)

GIBIBYTE = 1 << 30
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT}
_KEPT = 0.9  # of the limit, after entries were evicted
_UNSEEN = 0.02  # of the limit: what a process writes before it looks at what others wrote
_seen: set[tuple[str, str]] = set()  # folders that were cleared or warned about in this process


@dataclass
class _Usage:
    """What this process knows of a folder's size, in bytes."""

    total: int | None = None
    unseen: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


_usages: dict[str, _Usage] = {}


class ArrayFolder:
    """Arrays by key as ``.npy`` files under one folder; safe for many processes on one file system.

    Each file ends with a checksum (XXH3, 128 bits) of key, shape, type and content: an entry that was changed,
    truncated or renamed is computed again. Half-written files of killed processes are cleared when a process first uses
    the folder. If the folder is not writable, a warning says so once, and nothing is cached.

    Where the entries exceed the limit, the least recently used ones are removed. Each process looks at the sizes when
    it has written a fiftieth of the limit, so several writers may exceed it by that much each.

    Args:
        folder: created if missing.
        setting: its name, for messages.
        limit: total size of the entries in bytes; None: no limit.

    Attributes:
        types: of the arrays; entries of others count as damaged.

    Raises:
        SettingsError: no folder of this name can be created.
    """

    types: ClassVar[tuple[type[np.generic], ...]] = (np.float32,)

    def __init__(self, folder: str | Path, setting: str, limit: int | None = None) -> None:
        self.folder = Path(folder).expanduser()
        self.setting = setting
        self.limit = limit
        self._usage = _usages.setdefault(str(self.folder), _Usage())
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

    def __contains__(self, key: str) -> bool:
        """Whether there is an entry; only :meth:`get` tells whether it is whole."""
        return self._path(key).exists()

    def get(self, key: str, shape: Sequence[int] | None = None) -> np.ndarray | None:
        """The cached array, or None. A damaged entry is removed, so that the caller recomputes it.

        Args:
            key: 64 hexadecimal digits.
            shape: of the array, if known; an entry of another shape counts as damaged.
        """
        path = self._path(key)
        try:
            content = _read(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn(error)
            return None
        try:
            array = _unpack(content, key, shape, self.types)
        except (ValueError, EOFError, OverflowError, SyntaxError):  # numpy parses the header as an expression
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(path)  # the time of the last use
        return array

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
        self._keep_limit(content.getbuffer().nbytes)

    def try_put(self, key: str, array: np.ndarray) -> None:
        """:meth:`put`, with one warning instead of an error where the folder cannot be written."""
        try:
            self.put(key, array)
        except OSError as error:
            self._warn(error)

    def get_or_compute(
        self, key: str, shape: Sequence[int], compute: Callable[[], np.ndarray], is_current: Callable[[], bool]
    ) -> np.ndarray:
        """The cached array, or a new one, which is stored if ``is_current`` says that its media are unchanged."""
        cached = self.get(key, shape)
        if cached is not None:
            return cached
        array = compute()
        if is_current():
            self.try_put(key, array)
        return array

    def entries(self) -> Iterator[tuple[float, int, str]]:
        """Time of the last use, bytes and path of each entry."""
        for below in list(_scanned(self.folder)):
            if len(below.name) == 2 and below.is_dir(follow_symlinks=False):
                for entry in _scanned(below.path):
                    with contextlib.suppress(OSError):  # another process removed it
                        if entry.name.endswith(".npy") and not entry.name.startswith("."):
                            status = entry.stat()
                            yield status.st_mtime, status.st_size, entry.path

    def describe(self) -> str:
        """How much is in it, in words."""
        sizes = [size for _, size, _ in self.entries()]
        limit = "" if self.limit is None else f" of at most {self.limit / GIBIBYTE:g} GiB"
        return f"{self.folder} has {len(sizes):,} entries, {sum(sizes) / GIBIBYTE:.2f} GiB{limit}"

    def _keep_limit(self, written: int) -> None:
        """Count what was written, and evict entries where they exceed the limit."""
        if self.limit is None:
            return
        with self._usage.lock:
            usage = self._usage
            usage.unseen += written
            known = None if usage.total is None else usage.total + usage.unseen
            if known is None or known > self.limit or usage.unseen > _UNSEEN * self.limit:
                usage.total, usage.unseen = self._evict(self.limit), 0

    def _evict(self, limit: int) -> int:
        """Remove the least recently used entries if there is more than ``limit``; returns what is left, in bytes.

        Two processes may do it at once: both remove the same ones.
        """
        entries = list(self.entries())
        total = sum(size for _, size, _ in entries)
        if total <= limit:
            return total
        if self._is_first("eviction"):
            logger.warning(
                "%s: %s has reached its limit of %g GiB: the least recently used entries are removed, and computed "
                "again when they are needed. Raise `%s_limit` if the disk has room. (Shown once.)",
                self.setting, self.folder, limit / GIBIBYTE, self.setting,
            )  # fmt: skip
        for _, size, path in sorted(entries):
            if total <= _KEPT * limit:
                break
            with contextlib.suppress(OSError):
                os.unlink(path)
            total -= size
        return total

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


def in_bytes(gibibytes: float | None) -> int | None:
    """A limit from the settings in bytes; None: no limit."""
    return None if gibibytes is None else int(gibibytes * GIBIBYTE)


def _scanned(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    with contextlib.suppress(OSError), os.scandir(folder) as scan:
        yield from scan


def _digest(key: str, content: bytes | memoryview) -> bytes:
    digest = xxhash.xxh3_128(key.encode())  # finds damage, not intent; SHA-256 takes as long as all else in a hit
    digest.update(content)
    return digest.digest()


def _read(path: Path) -> np.ndarray:
    """The bytes of a file, uint8, read straight to where they stay: ``read_bytes`` and a copy take twice as long."""
    with open(path, "rb", buffering=0) as file:
        content = np.empty(os.fstat(file.fileno()).st_size, dtype=np.uint8)
        free = content.data
        while free and (count := file.readinto(free)):
            free = free[count:]
        return content[: len(content) - len(free)]


def _unpack(
    content: np.ndarray, key: str, shape: Sequence[int] | None, types: Sequence[type[np.generic]]
) -> np.ndarray:
    """The array of an entry; it is writable.

    Raises:
        ValueError: the entry is damaged, belongs to another key, or has another shape or type.
    """
    size = xxhash.xxh3_128().digest_size
    with content.data as view:
        if _digest(key, view[:-size]) != bytes(view[-size:]):
            raise ValueError("an entry with a wrong checksum")
        head = io.BytesIO(bytes(view[:1024]))
    if np.lib.format.read_magic(head) != (1, 0):
        raise ValueError("an entry of another format")
    actual_shape, fortran, dtype = np.lib.format.read_array_header_1_0(head)
    if fortran or dtype not in types or (shape is not None and actual_shape != tuple(shape)):
        raise ValueError(f"an entry {actual_shape} of {dtype}")
    count = int(np.prod(actual_shape, dtype=np.int64))
    return np.frombuffer(content, dtype, count, head.tell()).reshape(actual_shape)
