"""Whether the host is installed; this package works without it, except where something is trained or served."""

from __future__ import annotations

from importlib.util import find_spec

from hound_plugin.errors import EnvironmentMismatchError
from hound_plugin.host.register import requirement

HOW_TO_INSTALL = f"pip install '{requirement('llamafactory')}'"


def is_installed() -> bool:
    """Whether llamafactory can be found; it is not imported."""
    try:
        return find_spec("llamafactory") is not None
    except (ImportError, ValueError):
        return False


def require_host(what: str) -> None:
    """Refuse what needs the host where it is missing.

    Args:
        what: the command, for the message.

    Raises:
        EnvironmentMismatchError: llamafactory is not installed.
    """
    if not is_installed():
        raise EnvironmentMismatchError(f"{what} needs LLaMA-Factory, which is not installed. Run: {HOW_TO_INSTALL}")
