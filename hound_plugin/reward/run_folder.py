"""The folder of a run: names of its files, its locks; files are written by :mod:`hound_plugin.records.files`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from hound_plugin.errors import SettingsError
from hound_plugin.records import files
from hound_plugin.records.files import write_whole
from hound_plugin.records.jsonl import read_objects

CANDIDATES, SCORES, RANKED, EXCLUDED = "candidates.jsonl", "scores.jsonl", "ranked.jsonl", "excluded.jsonl"
LEDGER, SAMPLER_LEDGER = "ledger.sqlite", "sampler.sqlite"

Row = dict[str, Any]


def locked(folder: Path, name: str, say: Callable[[str], None] = lambda _: None) -> AbstractContextManager[None]:
    """Lock one job of the folder; waits for another run that has it. The end of a process frees its locks."""
    message = f"another run is at `{name}` in {folder}; waiting for it"
    return files.locked(folder / f".{name}.lock", lambda: say(message))


def open_folder(path: str | Path) -> Path:
    """The run folder, created if necessary.

    Raises:
        SettingsError: it is not writable.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / ".writable", "")
        (folder / ".writable").unlink()
    except OSError as error:
        raise SettingsError(f"folder: expected a writable folder, got {folder}: {error.strerror}.") from error
    return folder


def excluded_ids(folder: Path) -> frozenset[str]:
    """Ids of pairs that were dropped by hand; the last row of an id counts."""
    state = {str(row["id"]): bool(row.get("excluded", True)) for row in read_objects(folder / EXCLUDED) if "id" in row}
    return frozenset(name for name, is_out in state.items() if is_out)
