"""Files that are never seen half-written, rows that are appended durably, and locks that end with their process.

Content is written to a hidden sibling that ends in ``.part`` and takes the final name in one step. A process killed at
any moment therefore leaves the old file or the new one, and at worst a ``.part`` that nothing reads, which
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

from hound_plugin.errors import DataError, DiskFullError, HoundError, InUseError, SettingsError

PathLike = str | os.PathLike[str]

# --- files and folders that appear complete or not at all


@contextmanager
def whole_path(path: PathLike, *, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary path for a file or a folder, which gets its final name when the block ends without an error.

    For libraries that need a path to write to. The temporary path ends in ``.part``, so they must be told the format.
    If the block fails, what was written is removed, and an older file of that name is left unchanged.

    Args:
        path: the final name. Its parent folder is created if necessary; a file or an empty folder there is replaced.
        sync: wait until the content is on disk before it gets its name. Without it, a power cut (not a kill) may leave
            an empty file; fine for what is cheap to recreate.

    Raises:
        SettingsError: ``path`` exists and is neither a file nor a folder, or it is a URL.
        DiskFullError: there is too little space.
        OSError: writing fails.
    """
    refuse_url(path)
    target = Path(path)
    if target.exists() and not (target.is_file() or target.is_dir()):
        raise SettingsError(f"Expected the path of a file to write; {target} is a device or a pipe. Name a file.")
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name[:50]}.{_HOST}-{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with full_disk_named(target):
            yield part
            publish(part, target, sync=sync)
    finally:
        _remove(part)


def refuse_url(path: PathLike) -> None:
    """Refuse to write to a URL; as a path, ``s3://bucket/x`` would be below a folder ``s3:``.

    Raises:
        SettingsError: ``path`` begins with a scheme, and there is no folder of that name.
    """
    first = Path(path).parts[:1]
    if first and _SCHEME.fullmatch(first[0]) and not Path(first[0]).is_dir():
        raise SettingsError(
            f"Expected a path on a disk of this machine to write to; {os.fspath(path)} is a URL. Results are written "
            "to a local disk: name a folder or a file there, and copy it when the command has ended."
        )


_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_IN_RUST = tuple(f"(os error {number})" for number in _FULL)  # safetensors and tokenizers raise their own classes
_FULL_IN_TORCH = ("PytorchStreamWriter failed writing", "inline_container.cc")  # of `torch.save`


@contextmanager
def full_disk_named(path: PathLike, before: str = "What was there before is unchanged.") -> Iterator[None]:
    """For a library that writes ``path`` inside the block: convert what it raises when the disk is full.

    Args:
        path: for the message.
        before: what has become of what was there.

    Raises:
        DiskFullError: there is too little space.
    """
    try:
        yield
    except Exception as error:
        text = str(error)
        is_full = isinstance(error, OSError) and error.errno in _FULL
        is_full = is_full or text.endswith(_FULL_IN_RUST) or any(part in text for part in _FULL_IN_TORCH)
        if isinstance(error, HoundError) or not is_full:
            raise
        raise DiskFullError(
            f"Cannot write {path}: {error}. {before} Free some space, or choose another disk, and run the command "
            "again."
        ) from error


@overload
def whole_file(path: PathLike, mode: Literal["w"] = "w", *, sync: bool = True) -> AbstractContextManager[TextIO]: ...
@overload
def whole_file(path: PathLike, mode: Literal["wb"], *, sync: bool = True) -> AbstractContextManager[BinaryIO]: ...


@contextmanager
def whole_file(path: PathLike, mode: Literal["w", "wb"] = "w", *, sync: bool = True) -> Iterator[Any]:
    """Open a file, UTF-8 text or binary, that appears under its name once it is complete; see :func:`whole_path`.

    Raises:
        SettingsError: a folder or a device has that name.
        OSError: writing fails.
    """
    if Path(path).is_dir():
        raise SettingsError(f"Expected the path of a file to write; {path} is a folder. Name a file.")
    with whole_path(path, sync=sync) as part:
        encoding = "utf-8" if mode == "w" else None
        with open(part, "x" + mode[1:], encoding=encoding) as file:
            yield file


def write_whole(path: PathLike, content: str | bytes) -> None:
    """Write a file atomically; half a surrogate pair in a text becomes ``?``."""
    with whole_file(path, "wb") as file:
        file.write(content.encode("utf-8", "replace") if isinstance(content, str) else content)


def write_json(path: PathLike, value: Any) -> None:
    """Write a value as indented JSON with :func:`write_whole`."""
    write_whole(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def write_rows(path: PathLike, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a file of JSON lines atomically.

    Raises:
        DataError: a row contains NaN or infinity.
    """
    with whole_file(path, "wb") as file:
        file.writelines(map(_line, rows))


_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:6]
_LEFTOVER = re.compile(r"\..*\.(?:([0-9a-f]{6})-)?(\d+)-[0-9a-f]{8}\.part")  # earlier versions did not name the machine
_ABANDONED = 24 * 3600  # seconds after which a file is no longer being written


def clear_leftovers(folder: PathLike, name: str | None = None) -> int:
    """Remove what killed processes left of :func:`whole_path` in a folder and its subfolders.

    On this machine the process must no longer run; what another machine wrote must be older than a day.

    Args:
        folder: where they wrote.
        name: of a file or folder in it: only what was to get this name is removed, and subfolders are left alone.

    Returns:
        The number of files and folders removed.

    Raises:
        OSError: the folder cannot be listed.
    """
    removed = 0
    with os.scandir(folder) as scan:
        entries = list(scan)
    for below in entries if name is None else ():  # grows while subfolders are listed
        if below.is_dir(follow_symlinks=False) and not below.name.startswith("."):
            with contextlib.suppress(OSError), os.scandir(below) as scan:
                entries += list(scan)
    for entry in entries:
        match = _LEFTOVER.fullmatch(entry.name)
        is_wanted = name is None or entry.name.startswith(f".{name[:50]}.")
        if match and is_wanted and _is_abandoned(entry, match[1], int(match[2])):
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
    """Give a finished file or folder its final name in one step; a file replaces a file, a folder an empty folder.

    Args:
        part: what was written, on the same disk.
        path: the final name.
        sync: as in :func:`whole_path`; for a folder, every file in it.

    Raises:
        OSError: ``path`` is a folder that is not empty, or on another disk.
    """
    part = Path(part)
    if sync:
        for file in part.rglob("*") if part.is_dir() else (part,):
            if file.is_file():
                _flush(file)
    os.replace(part, path)


def rename(source: PathLike, target: PathLike) -> None:
    """Rename something unpublished, or something whose content is already on disk."""
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


# --- appending rows


def append_rows(path: PathLike, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append rows to a file of JSON lines and wait until they are on disk; hold a lock, as only one process may append.

    A last line that an earlier run left unfinished is cut off; one that lacks only its line end is kept.

    Raises:
        DataError: a row contains NaN or infinity; nothing is added.
        DiskFullError: there is too little space; the file is unchanged.
        OSError: writing fails; the file is unchanged.
    """
    data = b"".join(map(_line, rows))
    if not data:
        return
    is_new = not os.path.exists(path)
    with full_disk_named(path), open(path, "ab+", buffering=0) as file:
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
        with contextlib.suppress(OSError):  # not every file system supports it
            _flush(Path(path).parent)


def _line(row: Mapping[str, Any]) -> bytes:
    try:
        return (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "replace")
    except ValueError as error:
        raise DataError(f"Expected finite numbers in a row to write, got {row!r:.200}: {error}.") from error


def _mend_end(file: Any) -> int:
    """Make the file end with a complete line; returns its size."""
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


class HeldLock:
    """A lock that this process holds until :meth:`release`, the end of a ``with`` block, or its own end by any cause.

    Returned by :func:`hold`; keep it, as it is freed once nothing refers to it. Forked children do not hold it.
    """

    def __init__(self, path: Path, lock: filelock.BaseFileLock) -> None:
        self.path = path
        self._lock = lock

    def release(self, remove: bool = False) -> None:
        """Free the lock; ``remove`` deletes its file. Releasing twice is harmless."""
        with _guard:
            if self._lock.is_locked and remove and not _REMOVES:
                self.path.unlink(missing_ok=True)
            self._lock.release(force=True)
            _held_locks.discard(self)

    def _is_current(self) -> bool:
        """Whether the locked file is still the one at the path: its previous holder may have removed it."""
        try:
            at_path, locked_file = os.stat(self.path), os.fstat(self._lock._context.lock_file_fd or -1)
        except OSError:
            return False
        return os.path.samestat(at_path, locked_file)

    def _close_in_child(self) -> None:
        """In a forked child: close the inherited descriptor; unlocking it would free the parent's lock too."""
        context = self._lock._context
        descriptor, context.lock_file_fd, context.lock_counter = context.lock_file_fd, None, 0
        if descriptor is not None:
            os.close(descriptor)

    def __enter__(self) -> HeldLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self.release()


_POLL = 0.05  # seconds between two tries
_guard = threading.RLock()  # a fork waits until no lock is half acquired
_held_locks: weakref.WeakSet[HeldLock] = weakref.WeakSet()
_OPTIONS: dict[str, Any] = {"thread_local": False}
if "fallback_to_soft" in inspect.signature(filelock.FileLock.__init__).parameters:
    _OPTIONS["fallback_to_soft"] = False  # a marker file, which would outlive a killed process
# These versions remove the file on unlocking; removing it again would remove the file of the next holder.
_REMOVES = Version("3.20.4") <= Version(filelock.__version__) < Version("3.29.5")


def hold(path: PathLike, busy: str = "") -> HeldLock:
    """Lock a file, which is created if necessary, or fail at once if it is already locked.

    Args:
        path: the lock file. It must have no content of value: it may be truncated.
        busy: message of the error if it is locked.

    Raises:
        InUseError: another process, or another part of this one, holds it.
        SettingsError: the file system does not support locks.
    """
    lock = _try_lock(Path(path))
    if lock is None:
        raise InUseError(busy or f"{path} is locked by another process. Wait for it, or end it, and try again.")
    return lock


@contextmanager
def locked(path: PathLike, waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Lock a file for a block; waits for the current holder, after calling ``waiting`` once.

    Raises:
        SettingsError: the file system does not support locks.
    """
    lock = _try_lock(Path(path))
    if lock is None:
        waiting()
    while lock is None:
        time.sleep(_POLL)
        lock = _try_lock(Path(path))
    with lock:
        yield


def _try_lock(path: Path) -> HeldLock | None:
    while True:
        with _guard:
            file_lock = filelock.FileLock(path, **_OPTIONS)
            try:
                file_lock.acquire(blocking=False)
            except filelock.Timeout:
                return None
            except (NotImplementedError, OSError) as error:
                if isinstance(error, FileNotFoundError) and path.parent.is_dir():
                    continue  # its holder removed it while it was being opened
                if isinstance(error, OSError) and error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
                    raise
                raise SettingsError(
                    f"Expected a file system that supports locks at {path.parent}: {error}. Choose a local disk."
                ) from error
            lock = HeldLock(path, file_lock)
            _held_locks.add(lock)
        if lock._is_current():
            return lock
        lock.release()


def _release_in_child() -> None:
    for lock in list(_held_locks):
        lock._close_in_child()
    _held_locks.clear()
    _guard.release()


os.register_at_fork(before=_guard.acquire, after_in_parent=_guard.release, after_in_child=_release_in_child)
