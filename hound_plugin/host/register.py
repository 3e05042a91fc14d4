"""Registration of this package with the host, one host module at a time."""

from __future__ import annotations


def register_for(name: str) -> None:
    """Register what belongs to the host module ``name``; calling it again is harmless."""
