"""Makes a server's texts fit for files and terminals: no API key, valid UTF-8, printable, short."""

from __future__ import annotations

import re
from typing import Any

REMOVED = "[key]"
SHORTEST_SECRET = 8
"""Servers that need no key get a word such as ``none`` or ``EMPTY``; removing it would alter their replies."""
_KEY_LIKE = re.compile(r"\b(?:sk|key|Bearer)[-_ ][A-Za-z0-9*_.-]{8,}")


class Redactor:
    """Removes secrets from whatever a server sent: replies, errors, headers, rows of files."""

    def __init__(self, *secrets: str) -> None:
        """``secrets``: keys that may have been sent; those shorter than ``SHORTEST_SECRET`` are left in texts."""
        self._secrets = sorted((key for key in secrets if len(key) >= SHORTEST_SECRET), key=len, reverse=True)

    def text(self, text: str) -> str:
        """A text for a file: without the secrets, and without halves of surrogate pairs."""
        for secret in self._secrets:
            text = text.replace(secret, REMOVED)
        return writable(text)

    def value(self, value: Any) -> Any:
        """A JSON value with :meth:`text` applied to every string in it, keys included.

        Raises:
            RecursionError: it is nested deeper than Python allows.
        """
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(str(name)): self.value(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self.value(item) for item in value]
        return value

    def message(self, text: str, most: int = 500) -> str:
        """A text for people: one line of at most ``most`` characters, without anything that looks like a key."""
        return printable(_KEY_LIKE.sub(REMOVED, self.text(text)))[:most]


def writable(text: str) -> str:
    """A text without halves of surrogate pairs, which JSON can express and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")


def printable(text: str) -> str:
    """A text on one line, with control characters and the like escaped, so that it cannot control a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in text)


def shortened(text: str, most: int = 240) -> str:
    """The beginning and the end of a text, printable; a score comes at the end."""
    text = text.strip()
    if len(text) > most:
        text = f"{text[: most // 3]} [...] {text[-(most - most // 3) :]}"
    return printable(text)
