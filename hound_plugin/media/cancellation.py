"""Work that ends when nobody waits for it any more: decoding, downloads, answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextvars import ContextVar

from hound_plugin.errors import ClientDisconnectedError

client_disconnected: ContextVar[threading.Event | None] = ContextVar("client_disconnected", default=None)
"""Set by whoever has work done in this context, to end it once no one is waiting for its result."""
_TICK = 0.1  # seconds between two looks at the event


def refuse_if_disconnected() -> None:
    """Nothing, as long as somebody waits for the work of this context.

    Raises:
        ClientDisconnectedError: nobody does.
    """
    event = client_disconnected.get()
    if event is not None and event.is_set():
        raise ClientDisconnectedError("Who asked for this hung up; nothing more is done for it.")


def wait_while_connected(wait: Callable[[float], bool], deadline: float = float("inf")) -> None:
    """Wait for something, in short turns.

    Args:
        wait: waits at most the given seconds; true if it has happened.
        deadline: by ``time.monotonic()``.

    Raises:
        TimeoutError: the deadline has passed.
        ClientDisconnectedError: nobody waits for it any more.
    """
    while True:
        refuse_if_disconnected()
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if wait(min(left, _TICK)):
            return
