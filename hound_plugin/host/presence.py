"""Which releases of the host are supported, and is one installed? Without it, nothing can be trained or served."""

from __future__ import annotations

from importlib.util import find_spec

from hound_plugin.errors import EnvironmentMismatchError

# Package -> first supported release, first unsupported one; setup.cfg repeats them for the installer.
SUPPORTED = {"llamafactory": ("0.9.5", "0.10"), "transformers": ("5.5", None)}


def requirement(package: str) -> str:
    """The supported releases of ``package``, as pip takes them."""
    lowest, beyond = SUPPORTED[package]
    return f"{package}>={lowest}" + (f",<{beyond}" if beyond else "")


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
