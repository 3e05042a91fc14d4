"""Child processes that never outlive their parent."""

from __future__ import annotations

import functools
import os
import signal
import threading
from multiprocessing import connection, parent_process


def follow_parent() -> None:
    """Make a worker end with its parent, even if that is killed, and at once on Ctrl-C; call it first.

    Otherwise a worker of ``concurrent.futures`` whose parent was killed waits forever.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    end_with_parent()


def end_with_parent() -> None:
    """Make a process of ``multiprocessing`` end when its parent has; nothing in any other process, or a second time."""
    _follow(os.getpid())  # a forked process has the cache of its parent, but not the thread


@functools.cache
def _follow(_: int) -> None:
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
