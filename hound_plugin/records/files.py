"""Files that are never seen half-written, rows that are added for good, and locks that die with their process.

Writing goes into a hidden sibling that ends in ``.part`` and takes the final name in one step. A process that is killed
at any moment therefore leaves the old file or the new one, and at worst a ``.part`` that nobody reads, which
:func:`clear_leftovers` removes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import inspect
import json
import os
import platform
import re
import secrets
import shutil
import threading
import time
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, TextIO, overload

import filelock
from packaging.version import Version

from hound_plugin.errors import DataError, InUseError, SettingsError

PathLike = str | os.PathLike[str]

# --- files and folders that are there whole or not at all


@contextmanager
def whole_path(path: PathLike, *, sync: bool = True) -> Iterator[Path]:
    """Give a temporary path to write a file or a folder at; it gets its name when the block ends without an error.

    For libraries that want a path to write to. The temporary path ends in ``.part``, so they must be told the format.
    When the block fails, what was written is removed, and an older file of that name stays as it was.

    Args:
        path: the final name. Its folder is made if need be; an older file or an empty folder there is replaced.
        sync: wait until the content is on the disk before it gets its name. Without it, a power cut (not a kill) may
            leave an empty file; for what is cheap to make again.

    Raises:
        SettingsError: something is at ``path`` that is neither a file nor a folder.
        OSError: it cannot be written there.
    """
    target = Path(path)
    if target.exists() and not (target.is_file() or target.is_dir()):
        raise SettingsError(f"Expected the path of a file to write; {target} is a device or a pipe. Name a file.")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name[:50]}.{_HOST}-{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        yield part
        publish(part, target, sync=sync)
    finally:
        _remove(part)


@overload
def whole_file(path: PathLike, mode: Literal["w"] = "w", *, sync: bool = True) -> AbstractContextManager[TextIO]: ...
@overload
def whole_file(path: PathLike, mode: Literal["wb"], *, sync: bool = True) -> AbstractContextManager[BinaryIO]: ...


@contextmanager
def whole_file(path: PathLike, mode: Literal["w", "wb"] = "w", *, sync: bool = True) -> Iterator[Any]:
    """Open a file, UTF-8 text or binary, that appears under its name when it is complete; see :func:`whole_path`.

    Raises:
        SettingsError: a folder or a device has that name.
        OSError: it cannot be written there.
    """
    if Path(path).is_dir():
        raise SettingsError(f"Expected the path of a file to write; {path} is a folder. Name a file.")
    with whole_path(path, sync=sync) as part:
        encoding = "utf-8" if mode == "w" else None
        with open(part, "x" + mode[1:], encoding=encoding) as file:
            yield file


def write_whole(path: PathLike, content: str | bytes) -> None:
    """Write a file so that it is there whole or not at all; half a surrogate pair in a text becomes ``?``."""
    with whole_file(path, "wb") as file:
        file.write(content.encode("utf-8", "replace") if isinstance(content, str) else content)


def write_json(path: PathLike, value: Any) -> None:
    """Write a value as JSON that people can read, with :func:`write_whole`."""
    write_whole(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def write_rows(path: PathLike, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a file of JSON lines that is there whole or not at all.

    Raises:
        DataError: a row holds NaN or infinity.
    """
    with whole_file(path, "wb") as file:
        file.writelines(map(_line, rows))


_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:6]
_LEFTOVER = re.compile(r"\..*\.(?:([0-9a-f]{6})-)?(\d+)-[0-9a-f]{8}\.part")  # earlier versions named no machine
_ABANDONED = 24 * 3600  # seconds after which nobody writes a file any more


def clear_leftovers(folder: PathLike) -> int:
    """Remove what :func:`whole_path` left in a folder and in those right below it, of processes that were killed.

    A process of this machine that no longer runs has left it; of another machine, what is older than a day.

    Returns:
        The number of files and folders that were removed.

    Raises:
        OSError: the folder may not be listed.
    """
    removed = 0
    with os.scandir(folder) as entries:
        found = list(entries)
    for below in found:
        if below.is_dir(follow_symlinks=False) and not below.name.startswith("."):
            with contextlib.suppress(OSError), os.scandir(below) as entries:
                found += list(entries)
    for entry in found:
        match = _LEFTOVER.fullmatch(entry.name)
        if match and _is_abandoned(entry, match[1], int(match[2])):
            with contextlib.suppress(OSError):
                _remove(Path(entry.path))
                removed += 1
    return removed


def _is_abandoned(entry: os.DirEntry[str], host: str | None, process: int) -> bool:
    try:
        if host not in (_HOST, None):
            return time.time() - entry.stat(follow_symlinks=False).st_mtime > _ABANDONED
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:  # it is gone, or the process is another user's
        return False
    return False


def publish(part: PathLike, path: PathLike, *, sync: bool = True) -> None:
    """Give a finished file or folder its final name: a file replaces a file, a folder an empty folder, in one step.

    Args:
        part: what was written, on the same disk.
        path: the final name.
        sync: as in :func:`whole_path`; of a folder, every file in it.

    Raises:
        OSError: ``path`` is a folder with something in it, or on another disk.
    """
    part = Path(part)
    if sync:
        for file in part.rglob("*") if part.is_dir() else (part,):
            if file.is_file():
                _flush(file)
    os.replace(part, path)


def rename(source: PathLike, target: PathLike) -> None:
    """Rename within something that is not published yet, or whose content is on the disk already."""
    os.replace(source, target)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(part: Path) -> None:
    if part.is_dir():
        shutil.rmtree(part, ignore_errors=True)
    else:
        part.unlink(missing_ok=True)


# --- rows that are added


def append_rows(path: PathLike, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add rows to a file of JSON lines and wait until they are on the disk; hold a lock, as only one may append.

    A last line that an earlier run left unfinished is cut off; one that lacks nothing but its end is kept.

    Raises:
        DataError: a row holds NaN or infinity; nothing is added.
        OSError: the disk is full; the file is as it was.
    """
    data = b"".join(map(_line, rows))
    if not data:
        return
    is_new = not os.path.exists(path)
    with open(path, "ab+", buffering=0) as file:
        end = _mend_end(file)
        try:
            written = 0
            while written < len(data):
                written += file.write(data[written:])
            os.fsync(file.fileno())
        except BaseException:
            with contextlib.suppress(OSError):
                file.truncate(end)
            raise
    if is_new:
        with contextlib.suppress(OSError):  # not every file system knows it
            _flush(Path(path).parent)


def _line(row: Mapping[str, Any]) -> bytes:
    try:
        return (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "replace")
    except ValueError as error:
        raise DataError(f"Expected finite numbers in a row to write, got {row!r:.200}: {error}.") from error


def _mend_end(file: Any) -> int:
    """Make the file end with a whole line; gives its size."""
    position = size = file.seek(0, os.SEEK_END)
    last = b""
    while position > 0 and b"\n" not in last:
        step = min(65536, position)
        position -= step
        file.seek(position)
        last = file.read(step) + last
    start = position + last.rfind(b"\n") + 1
    if start == size:
        return int(size)
    try:
        json.loads(last[start - position :])
    except ValueError:
        file.truncate(start)
        return start
    file.write(b"\n")
    return int(size) + 1


# --- locks


class Held:
    """A lock that this process holds: until :meth:`release`, the end of a ``with`` block, or its own end, however.

    Made by :func:`hold`; keep it, as it is freed when nothing refers to it. Children made by fork do not hold it.
    """

    def __init__(self, path: Path, lock: filelock.BaseFileLock) -> None:
        self.path = path
        self._lock = lock

    def release(self, remove: bool = False) -> None:
        """Free it; ``remove`` deletes its file. A second time, nothing happens."""
        with _guard:
            if self._lock.is_locked and remove and not _REMOVES:
                self.path.unlink(missing_ok=True)
            self._lock.release(force=True)
            _held.discard(self)

    def _is_current(self) -> bool:
        """Whether the file that is locked is the one at the path: the holder before may have removed it."""
        try:
            there, mine = os.stat(self.path), os.fstat(self._lock._context.lock_file_fd or -1)
        except OSError:
            return False
        return os.path.samestat(there, mine)

    def _forget(self) -> None:
        """In a forked child: close the inherited descriptor; unlocking it would unlock it for the parent too."""
        context = self._lock._context
        descriptor, context.lock_file_fd, context.lock_counter = context.lock_file_fd, None, 0
        if descriptor is not None:
            os.close(descriptor)

    def __enter__(self) -> Held:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self.release()


_POLL = 0.05  # seconds between two tries
_guard = threading.RLock()  # a fork waits until no lock is half taken
_held: weakref.WeakSet[Held] = weakref.WeakSet()
_OPTIONS: dict[str, Any] = {"thread_local": False}
if "fallback_to_soft" in inspect.signature(filelock.FileLock.__init__).parameters:
    _OPTIONS["fallback_to_soft"] = False  # a marker file, which would outlive a process that is killed
# These releases remove the file when they unlock it; a second time would remove the file of the next holder.
_REMOVES = Version("3.20.4") <= Version(filelock.__version__) < Version("3.29.5")


def hold(path: PathLike, busy: str = "") -> Held:
    """Take the lock of a file, which is made if need be, or say at once that it is taken.

    Args:
        path: the file that stands for the lock. Its content must mean nothing: it may be emptied.
        busy: the message of the error.

    Raises:
        InUseError: another process, or another part of this one, has it.
        SettingsError: the file system knows no locks.
    """
    held = _take(Path(path))
    if held is None:
        raise InUseError(busy or f"{path} is locked by another process. Wait for it, or end it, and try again.")
    return held


@contextmanager
def locked(path: PathLike, waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold the lock of a file for a block; waits for whoever has it, and calls ``waiting`` once before it does.

    Raises:
        SettingsError: the file system knows no locks.
    """
    held = _take(Path(path))
    if held is None:
        waiting()
    while held is None:
        time.sleep(_POLL)
        held = _take(Path(path))
    with held:
        yield


def _take(path: Path) -> Held | None:
    while True:
        with _guard:
            lock = filelock.FileLock(path, **_OPTIONS)
            try:
                lock.acquire(blocking=False)
            except filelock.Timeout:
                return None
            except (NotImplementedError, OSError) as error:
                if isinstance(error, FileNotFoundError) and path.parent.is_dir():
                    continue  # its holder removed it while it was being opened
                if isinstance(error, OSError) and error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
                    raise
                raise SettingsError(
                    f"Expected a file system that knows locks at {path.parent}: {error}. Choose a local disk."
                ) from error
            held = Held(path, lock)
            _held.add(held)
        if held._is_current():
            return held
        held.release()


def _forget_in_child() -> None:
    for held in list(_held):
        held._forget()
    _held.clear()
    _guard.release()


os.register_at_fork(before=_guard.acquire, after_in_parent=_guard.release, after_in_child=_forget_in_child)
