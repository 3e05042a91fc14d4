"""Processes that work for us and never outlive us."""

from __future__ import annotations

import os
import signal
import threading
from multiprocessing import connection, parent_process


def follow_parent() -> None:
    """Run first in a worker: it then ends with its parent, also when that is killed, and at once with Ctrl-C.

    A worker of ``concurrent.futures`` whose parent was killed waits for ever otherwise.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
