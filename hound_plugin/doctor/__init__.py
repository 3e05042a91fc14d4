"""``hound doctor``: is this environment fit, is the plugin active in the host, and what to do if not.

Everything that could break is read from package metadata or tried in a child process with a time limit, so that the
doctor itself works where torch or LLaMA-Factory are missing or broken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from .activation import check_activation, check_switches
from .machine import check_machine
from .report import FAIL, OK, WARN, Check, closing_line, exit_code, to_json, to_lines, to_text
from .runtime import check_decoders, check_tokenizer, check_torch
from .serving import check_serving
from .versions import check_versions

__all__ = ["FAIL", "OK", "WARN", "Check", "closing_line", "examine", "exit_code", "to_json", "to_lines", "to_text"]

_SECTIONS: tuple[tuple[str, Callable[[], Iterable[Check]]], ...] = (
    ("versions", check_versions),
    ("switches", check_switches),
    ("plugin", check_activation),
    ("torch", check_torch),
    ("tokenizer", check_tokenizer),
    ("decoders", check_decoders),
    ("machine", check_machine),
)


def examine(serve: Sequence[str] = (), show: Callable[[Check], None] | None = None) -> list[Check]:
    """Run every check; a check that itself fails is one failed line, not an exception.

    Args:
        serve: a YAML file for chat, API or web chat, and ``key=value`` overrides, to be checked as well.
        show: called with each check as soon as it is known, so not in the order of the result; from several threads.

    Returns:
        All checks, in the order of the sections.
    """
    sections = (*_SECTIONS, ("serving", lambda: check_serving(serve))) if serve else _SECTIONS

    def run(section: tuple[str, Callable[[], Iterable[Check]]]) -> list[Check]:
        checks: list[Check] = []
        for check in _guarded(*section):
            checks.append(check)
            if show is not None:
                show(check)
        return checks

    with ThreadPoolExecutor(max_workers=2) as pool:  # the slow ones wait for child processes
        return [check for checks in pool.map(run, sections) for check in checks]


def _guarded(name: str, function: Callable[[], Iterable[Check]]) -> Iterable[Check]:
    try:
        yield from function()
    except Exception as error:
        found = f"the check itself failed: {type(error).__name__}: {error}"
        yield Check(name, FAIL, found, fix="Please report this line to the authors of hound-plugin.")
