"""Processed media in memory, so that a second question about a clip does not decode it again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from hound_plugin.records.media_identity import media_identity

MEBIBYTE = 1 << 20


class MemoryCache:
    """Tensors by key; the least recently used are evicted when the limit is exceeded. Thread-safe.

    Copies and pickles of it are empty, so that the models and processors that have one can be copied.

    Args:
        limit: total size of the tensors, in bytes.
    """

    def __init__(self, limit: int = 256 * MEBIBYTE) -> None:
        self.limit = limit
        self.hits = self.misses = self.size = 0
        self._items: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Any:
        """The cached tensor, which must not be modified, or None."""
        with self._lock:
            value = self._items.get(key)
            if value is None:
                self.misses += 1
                return None
            self.hits += 1
            self._items.move_to_end(key)
            return value

    def put(self, key: Hashable, value: Any) -> None:
        """Store a tensor; one larger than the limit is ignored."""
        with self._lock:
            previous = self._items.pop(key, None)
            self.size -= 0 if previous is None else previous.nbytes
            if value.nbytes > self.limit:
                return
            self._items[key] = value
            self.size += value.nbytes
            while self.size > self.limit:
                self.size -= self._items.popitem(last=False)[1].nbytes

    def items(self) -> list[tuple[Hashable, Any]]:
        """Keys and tensors, the least recently used first."""
        with self._lock:
            return list(self._items.items())

    def make_room(self, size: int) -> None:
        """Raise the limit to at least ``size`` bytes."""
        with self._lock:
            self.limit = max(self.limit, size)

    def clear(self) -> None:
        """Remove everything."""
        with self._lock:
            self._items.clear()
            self.size = 0

    def __len__(self) -> int:
        return len(self._items)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return type(self), (self.limit,)


class PixelCache(MemoryCache):
    """Pixels of clips and images, keyed by their content and by every setting of the processing.

    Files are identified by path, size, times of change and inode, bytes and arrays by their SHA-256; other media (PIL
    images) are read every time.

    Args:
        limit: total size of the tensors, in bytes.
        same_machine: False: keys are equal on all machines that see a file under one path; see
            :func:`~hound_plugin.records.media_identity.media_identity`.
    """

    def __init__(self, limit: int = 256 * MEBIBYTE, same_machine: bool = True) -> None:
        super().__init__(limit)
        self.same_machine = same_machine

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return type(self), (self.limit, self.same_machine)

    def get_or_compute(self, media: Any, settings: Hashable, read: Callable[[Any], Any]) -> Any:
        """The processed media, read by ``read(media)`` only if it is not cached.

        Args:
            media: as :func:`hound_plugin.media.decode.read_clip` takes it; a stream is read once, to its end.
            settings: everything besides the media that the result depends on.
            read: returns a tensor.
        """
        if hasattr(media, "read"):
            media = media.read()
        identity = self._identity(media)
        if identity is None:
            return read(media)
        pixels = self.get((identity, settings))
        if pixels is None:
            pixels = read(media)
            if self._identity(media) == identity:  # otherwise the file changed while it was read
                self.put((identity, settings), pixels)
        return pixels

    def _identity(self, media: Any) -> Hashable | None:
        return media_identity(media, in_process=True, same_machine=self.same_machine)
