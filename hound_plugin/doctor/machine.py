"""Disk space, memory, and locks that a killed run left behind."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from .report import OK, WARN, Check

CHECKPOINT_GIB = 15.0  # the 7B language model and both towers in bfloat16

_GIB = float(2**30)
_BUILD_SECONDS = 1800.0  # an extension is built in a few minutes


def check_machine() -> list[Check]:
    """Room for one checkpoint on the disk of the hub's cache, and in memory; interrupted builds."""
    return [_check_disk(), _check_memory(), *_check_builds()]


def hub_cache() -> Path:
    """The folder into which the hub's client downloads, by the same variables that it reads."""
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub")).expanduser()


def _check_disk() -> Check:
    folder = hub_cache()
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free / _GIB
    found = f"{free:.0f} GiB free for {folder}"
    expected = f"{2 * CHECKPOINT_GIB:.0f} GiB for one 7B checkpoint and one result"
    if free < 2 * CHECKPOINT_GIB:
        return Check("disk", WARN, found, expected, "Set HF_HOME to a folder on a larger disk.")
    return Check("disk", OK, found, expected)


def _check_memory() -> Check:
    memory = _memory_limit() / _GIB
    expected = f"{CHECKPOINT_GIB:.0f} GiB to load a 7B checkpoint"
    if memory < CHECKPOINT_GIB:
        fix = "The demo needs 2 GiB. For the 7B model use a larger machine, or `quantization_bit: 4` on a GPU."
        return Check("memory", WARN, f"{memory:.0f} GiB", expected, fix)
    return Check("memory", OK, f"{memory:.0f} GiB", expected)


def _memory_limit() -> float:
    total = float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return total
    return min(total, float(limit)) if limit.isdigit() else total


def _check_builds() -> list[Check]:
    """Locks of torch's extension builds (DeepSpeed's operators) whose builder was killed.

    torch waits silently and without a limit (``torch.utils.file_baton``), so every later run hangs.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "torch_extensions"
    folder = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or cache)
    stale = []
    for lock in (*folder.glob("*/lock"), *folder.glob("*/*/lock")):
        try:
            if time.time() - lock.stat().st_mtime > _BUILD_SECONDS:
                stale.append(str(lock))
        except FileNotFoundError:  # that build has just ended
            continue
    if not stale:
        return []
    fix = f"If no build is running, delete what a killed one left: rm {' '.join(sorted(stale))}"
    return [Check("extension builds", WARN, f"{len(stale)} lock(s) of over 30 minutes", "none", fix)]
