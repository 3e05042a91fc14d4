"""Files of a run folder: JSONL that only grows, files that are there whole or not at all, and locks."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hound_plugin.errors import DataError, SettingsError

Row = dict[str, Any]


def read_rows(path: str | Path) -> Iterator[Row]:
    """Rows of a JSONL file, none if there is no file; a last line without its end (a killed run) is left out.

    Raises:
        DataError: another line is no JSON object.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115 (closed below)
    except FileNotFoundError:
        return
    with file:
        for number, line in enumerate(file, 1):
            whole = line.endswith(b"\n")
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                if not whole:
                    return
                raise DataError(f"{path}, line {number}: expected a JSON object: {error}.") from error
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number}: expected a JSON object, got {line[:100]!r}.")
            if b"\\ud" in line.lower():  # half a surrogate pair, which could not be written again
                row = json.loads(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace"))
            yield row


def append_rows(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add rows and wait until they are on disk. Call with the folder's lock held: a torn last line is cut off."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if not text:
        return
    with open(path, "ab+") as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            if file.read(1) != b"\n":
                _cut_torn_line(file, size)
        file.write(text.encode("utf-8", "replace"))
        file.flush()
        os.fsync(file.fileno())


def _cut_torn_line(file: Any, size: int) -> None:
    position = size
    while position > 0:
        step = min(65536, position)
        file.seek(position - step)
        found = file.read(step).rfind(b"\n")
        if found >= 0:
            file.truncate(position - step + found + 1)
            return
        position -= step
    file.truncate(0)


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    path = Path(path)
    data = content.encode("utf-8", "replace") if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def write_json(path: str | Path, value: Any) -> None:
    """The same as JSON."""
    write_whole(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


@contextlib.contextmanager
def locked(folder: Path, name: str, say: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Hold a lock of the folder; waits for another run that has it. It is free when its process ends, however."""
    with open(folder / f".{name}.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another run is at `{name}` in {folder}; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def open_folder(path: str | Path) -> Path:
    """The run folder, made if need be.

    Raises:
        SettingsError: nothing can be written there.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / ".writable", str(time.time()))
        (folder / ".writable").unlink()
    except OSError as error:
        raise SettingsError(
            f"folder: expected a folder that can be written, got {folder}: {error.strerror}."
        ) from error
    return folder
