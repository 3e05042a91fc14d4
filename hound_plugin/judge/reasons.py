"""The reason that a judge gives next to its score, for people to read; nothing is decided by it."""

from __future__ import annotations

from hound_plugin.judge.parsing import split_reply, visible

KEYS = ("reason", "reasons", "reasoning", "explanation", "justification", "rationale")
LONGEST = 2000
CUT = " [...]"


def reason_of(reply: str) -> str:
    """The judge's reason in a reply.

    It is the text under ``reason`` (or a like key) of its JSON object, or else what comes before its score; never what
    the judge thought aloud. Longer ones than :data:`LONGEST` characters are cut, and say so at the end.

    Args:
        reply: the whole text, with or without a score.

    Returns:
        The reason, or an empty text if the reply has none.
    """
    value, before = split_reply(visible(reply))
    named = {name.strip().lower(): text for name, text in (value or {}).items() if isinstance(text, str)}
    reason = next((named[key] for key in KEYS if named.get(key, "").strip()), before)
    reason = reason.strip().removesuffix("```json").removesuffix("```").strip()
    if not any(map(str.isalpha, reason)):  # a bare number
        return ""
    return reason if len(reason) <= LONGEST else reason[:LONGEST] + CUT
