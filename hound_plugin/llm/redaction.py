"""Makes a server's texts fit for files and terminals: no API key, valid UTF-8, printable, short."""

from __future__ import annotations

import base64
import html
import json
import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

REMOVED = "[key]"
SHORTEST_SECRET = 8
"""Servers that need no key get a word such as ``none`` or ``EMPTY``; removing it would alter their replies."""
LONGEST_RAW = 4_000
"""Characters of a reply that are kept beside a score; the ledger has all of it."""
_SHORTEST_OTHER = 16  # of other variables of the environment: a short value may be a word
_SECRET_NAME = re.compile(r"(^|_)(API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD)$|SECRET|API_?KEY", re.IGNORECASE)
# Keys of known services, whoever they belong to; each has a length that no word of an answer has. What is less than a
# key is matched too and stays as it is, so that no text is read twice.
_WEB_TOKEN = re.compile(r"(?:\bBearer\s+)?\beyJ[\w-]{10,}+(?P<rest>\.eyJ[\w-]{10,}\.[\w-]{10,})?")
_OTHER_KEYS = (
    r"\b(?:hf_[A-Za-z0-9]{30,}|gh[a-z]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|AKIA[0-9A-Z]{16}|AIza[\w-]{35}"
    r"|xox[a-z]-[\w-]{20,}|gsk_[A-Za-z0-9]{30,}|Bearer\s+(?=\S*\d)[\w.~+/-]{20,}=*"
)
_KNOWN_KEYS = re.compile(rf"{_OTHER_KEYS}|(?P<sk>sk-[\w-]{{20,}}))")
_IN_WORDS = re.compile(f"{_OTHER_KEYS})")
_GAP = r"[\s\u00ad\u200b-\u200d\u2060\ufeff]*"  # a key may be wrapped, or written with signs of no width
_KEY_LIKE = re.compile(r"\b(?:sk|key|Bearer)[-_ ][A-Za-z0-9*_.-]{8,}")


class Redactor:
    """Removes secrets from whatever a server sent: replies, errors, headers, rows of files."""

    def __init__(self, *secrets: str, environment: Mapping[str, str] | None = None) -> None:
        """Secrets are removed wrapped, quoted for an address or a page, in base64, in either case, and by halves.

        Args:
            secrets: keys that may have been sent; those shorter than ``SHORTEST_SECRET`` are left in texts.
            environment: variables whose names are those of secrets are removed too; by default this process's.
        """
        variables = (os.environ if environment is None else environment).items()
        others = {
            value.strip()
            for name, value in variables
            if _SECRET_NAME.search(name) and len(value.strip()) >= _SHORTEST_OTHER and not value.strip().isdigit()
        }
        keys = {key for key in secrets if len(key) >= SHORTEST_SECRET} | others
        self._patterns = [re.compile(_pattern(key), re.IGNORECASE) for key in sorted(keys, key=len, reverse=True)]

    def text(self, text: str) -> str:
        """A text for a file: without the secrets, keys of known services, and halves of surrogate pairs."""
        for pattern in self._patterns:
            text = pattern.sub(REMOVED, text)
        return writable(_KNOWN_KEYS.sub(_without_key, _WEB_TOKEN.sub(_without_token, text)))

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


def _without_token(match: re.Match[str]) -> str:
    return REMOVED if match["rest"] else match[0]


def _without_key(match: re.Match[str]) -> str:
    """What is left of a match: a key that begins with ``sk-`` has digits; words without them may hold other keys."""
    words = match["sk"]
    return REMOVED if words is None or any(map(str.isdecimal, words)) else _IN_WORDS.sub(REMOVED, words)


def _pattern(key: str) -> str:
    """An expression for a key in any of its spellings, or for its first or last half with what is left of the rest."""
    forms = dict.fromkeys((key, quote(key, safe=""), html.escape(key), json.dumps(key)[1:-1]))
    whole = [_GAP.join(map(re.escape, form)) for form in forms]
    half = max(12, len(key) // 2)
    if len(key) > half:
        rest = rf"[\w-]{{0,{len(key) - half}}}"
        first, last = (_GAP.join(map(re.escape, part)) for part in (key[:half], key[-half:]))
        whole += [first + rest, rest + last]
    encoded = (base64.b64encode(b"\0" * skipped + key.encode()).decode() for skipped in range(3))
    middles = [re.escape(text[4 if skipped else 0 :].rstrip("=")[:-1]) for skipped, text in enumerate(encoded)]
    return "|".join([*whole, *(rf"[A-Za-z0-9+/]{{0,3}}{middle}[A-Za-z0-9+/]?={{0,2}}" for middle in middles)])


def cut(text: str, most: int = LONGEST_RAW) -> str:
    """The beginning and the end of a long text; a score comes at the end."""
    if len(text) <= most:
        return text
    return f"{text[: most // 3]} [...] {text[len(text) - (most - most // 3) :]}"


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
    return printable(cut(text.strip(), most))
