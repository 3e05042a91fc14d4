"""Seeds that depend only on what they are for."""

from __future__ import annotations

import hashlib
from typing import Any


def make_seed(*parts: Any) -> int:
    """A seed from 0 to 2^31 - 1 that depends only on these parts."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
