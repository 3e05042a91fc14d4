"""An error of this package ends the host's command with its one message; ``HOUND_DEBUG=1`` shows the traceback."""

from __future__ import annotations

import os
import sys
from types import TracebackType

from hound_plugin.errors import HoundError

_COMMANDS = ("llamafactory-cli", "lmf", "launcher.py")
DEBUG = "HOUND_DEBUG"


def show_messages_alone() -> None:
    """Install the hook, once, in processes that the host's command started; other programs keep their own."""
    if os.path.basename(sys.argv[0] if sys.argv else "") not in _COMMANDS or hasattr(sys.excepthook, "_hound_plugin"):
        return
    previous = sys.excepthook

    def shown(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, HoundError) and not os.environ.get(DEBUG):
            print(f"\n{kind.__name__}: {error}\n({DEBUG}=1 shows the traceback.)", file=sys.stderr)
        else:
            previous(kind, error, trace)

    shown._hound_plugin = True  # type: ignore[attr-defined]
    sys.excepthook = shown
