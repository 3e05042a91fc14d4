"""Markup in a judge's reply: tags and entities of HTML, commands of LaTeX."""

from __future__ import annotations

import html
import re

_MARKED_UP = re.compile(
    r"<\s{0,4}(?:/\s{0,4})?(?P<tag>[A-Za-z][\w:-]{0,30})(?:[\s/][^<>]*+)?>|<!--[^<>]*+>"  # HTML
    r"|&(?:#\d{1,4}|#x[0-9A-F]{1,4}|[A-Z]{2,8});|\\{1,4}[A-Z]{1,12}\s{0,4}(?=\{)",  # an entity; a command of LaTeX
    re.IGNORECASE,
)
_CLOSED = re.compile(r"<\s{0,4}/\s{0,4}([A-Za-z][\w:-]{0,30})")
_NEVER_CLOSED = frozenset(("b", "br", "em", "font", "hr", "i", "img", "li", "mark", "p", "span", "strong", "td", "u"))
"""Tags that writers leave open; any other name is a placeholder (``SCORE: <N>``) unless it is closed somewhere."""


def without_markup(text: str) -> str:
    """A text with its markup replaced by as many spaces, and entities by what they mean."""
    closed = _NEVER_CLOSED.union(name.lower() for name in _CLOSED.findall(text))

    def shown(match: re.Match[str]) -> str:
        whole, name = match[0], match["tag"]
        if name is not None and name.lower() not in closed:
            return whole
        return (html.unescape(whole)[:1] if whole[0] == "&" else "").ljust(len(whole))

    return _MARKED_UP.sub(shown, text)
