"""The run folder: made, checked, and locked; its files have their home in :mod:`hound_plugin.records`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from hound_plugin.errors import SettingsError
from hound_plugin.records import files
from hound_plugin.records.files import append_rows as append_rows
from hound_plugin.records.files import write_json as write_json
from hound_plugin.records.files import write_whole as write_whole
from hound_plugin.records.jsonl import read_objects as read_rows

__all__ = ["Row", "append_rows", "locked", "open_folder", "read_rows", "write_json", "write_whole"]

Row = dict[str, Any]


def locked(folder: Path, name: str, say: Callable[[str], None] = lambda _: None) -> AbstractContextManager[None]:
    """Hold a lock of the folder; waits for another run that has it. It is free when its process ends, however."""
    message = f"another run is at `{name}` in {folder}; waiting for it"
    return files.locked(folder / f".{name}.lock", lambda: say(message))


def open_folder(path: str | Path) -> Path:
    """The run folder, made if need be.

    Raises:
        SettingsError: nothing can be written there.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / ".writable", "")
        (folder / ".writable").unlink()
    except OSError as error:
        raise SettingsError(
            f"folder: expected a folder that can be written, got {folder}: {error.strerror}."
        ) from error
    return folder
