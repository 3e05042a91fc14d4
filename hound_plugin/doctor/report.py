"""One check of the doctor, as text and as JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass

OK = "ok"
WARN = "warn"
FAIL = "fail"

_MARKS = {OK: "ok  ", WARN: "warn", FAIL: "FAIL"}
_WIDTH = 100
NAME_WIDTH = 22
"""Of the column of names while checks are still running; a longer name shifts its line."""


@dataclass(frozen=True)
class Check:
    """One check and its result.

    Attributes:
        name: What was checked.
        status: ``"ok"``, ``"warn"`` (works, with a drawback) or ``"fail"`` (training or inference will not work).
        found: What is there.
        expected: What should be there, or "".
        fix: What to do about it, or "".
    """

    name: str
    status: str
    found: str
    expected: str = ""
    fix: str = ""


def exit_code(checks: Sequence[Check]) -> int:
    """1 if any check failed, else 0; warnings do not count."""
    return int(any(check.status == FAIL for check in checks))


def to_json(checks: Sequence[Check]) -> str:
    """``{"status": worst, "checks": [{name, status, found, expected, fix}, ...]}``."""
    return json.dumps({"status": _worst(checks), "checks": [asdict(check) for check in checks]}, indent=2)


def to_text(checks: Sequence[Check]) -> str:
    """A table with the fix under each problem and a closing line."""
    width = max((len(check.name) for check in checks), default=0)
    lines = [line for check in checks for line in to_lines(check, width)]
    return "\n".join([*lines, "", closing_line(checks)])


def to_lines(check: Check, width: int = NAME_WIDTH) -> list[str]:
    """One check as lines of the table, with its fix under it if it is a problem.

    Args:
        check: the check.
        width: of the column of names.
    """
    text = check.found
    if check.status != OK and check.expected:
        text += f" (expected {check.expected})"
    indent = " " * (width + 8)
    lines = textwrap.wrap(
        f"{_MARKS[check.status]}  {check.name:<{width}}  {text}", _WIDTH, subsequent_indent=indent,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    if check.status != OK and check.fix:
        lines += textwrap.wrap(
            f"-> {check.fix}", _WIDTH, initial_indent=indent, subsequent_indent=indent + "   ",
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
    return lines


def closing_line(checks: Sequence[Check]) -> str:
    """The verdict on all checks."""
    failed = sum(check.status == FAIL for check in checks)
    warned = sum(check.status == WARN for check in checks)
    if failed:
        return f"{failed} problem(s) to solve, {warned} warning(s)."
    return f"Ready, with {warned} warning(s)." if warned else "Ready."


def _worst(checks: Sequence[Check]) -> str:
    present = {check.status for check in checks}
    return next((status for status in (FAIL, WARN) if status in present), OK)
