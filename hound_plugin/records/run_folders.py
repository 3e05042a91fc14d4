"""Folders that a run writes to: opened before work starts, with one lock for each job in them, and ``run.json``."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from hound_plugin.errors import SettingsError
from hound_plugin.records import files
from hound_plugin.version import __version__

RUN = "run.json"
TRAINING_LOCK = ".hound.lock"
"""In an ``output_dir``, while a training writes to it."""
KEPT_ENTRIES = 50  # of the history


def open_folder(path: str | Path) -> Path:
    """The run folder, created if necessary.

    Raises:
        SettingsError: it is not writable, or a URL.
    """
    files.refuse_url(path)
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.write_whole(folder / ".writable", "")
        (folder / ".writable").unlink(missing_ok=True)  # another process may be trying too
    except OSError as error:
        raise SettingsError(f"folder: expected a writable folder, got {folder}: {error.strerror}.") from error
    return folder


def locked(folder: Path, name: str, say: Callable[[str], None] = lambda _: None) -> AbstractContextManager[None]:
    """Lock one job of the folder; waits for another run that has it. The end of a process frees its locks."""
    message = f"another run is at `{name}` in {folder}; waiting for it"
    return files.locked(folder / f".{name}.lock", lambda: say(message))


def read_run(folder: Path, name: str = RUN) -> dict[str, Any]:
    """What ``run.json``, or another file of one object, has; empty if there is none or it is damaged."""
    try:
        return dict(json.loads((folder / name).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return {}


def write_run(
    folder: Path, stages: Sequence[str], started: float, error: str, values: Callable[[], Mapping[str, Any]]
) -> None:
    """Write ``run.json``: versions, the command, ``values``, and what every process that worked here did.

    Args:
        folder: the run's.
        stages: what this process did.
        started: when, in seconds since 1970.
        error: what stopped it, or empty.
        values: gives the run's own values; called under the lock, so that it can take up those of the file. Never an
            API key.
    """
    with locked(folder, "run"):
        history = read_run(folder).get("history", [])
        entry = {"stages": list(stages), "started": round(started, 3), "seconds": round(time.time() - started, 3)}
        files.write_json(
            folder / RUN,
            {
                "hound_plugin": __version__,
                "python": platform.python_version(),
                "platform": platform.platform(),
                "command": sys.argv[1:],
                **values(),
                "error": error or None,
                "history": [*history[1 - KEPT_ENTRIES :], {**entry, "error": error or None}],
            },
        )
