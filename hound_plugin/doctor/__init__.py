"""``hound doctor``: is this environment fit, is the plugin active in the host, and what to do if not.

Everything that could break is asked of package metadata or of a child process with a time limit, so that the doctor
itself works where torch or LLaMA-Factory are missing or broken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from .activation import check_activation, check_switches
from .machine import check_machine
from .report import FAIL, OK, WARN, Check, exit_code, to_json, to_text
from .runtime import check_decoders, check_torch
from .serving import check_serving
from .versions import check_versions

__all__ = ["FAIL", "OK", "WARN", "Check", "examine", "exit_code", "to_json", "to_text"]

_SECTIONS: tuple[tuple[str, Callable[[], list[Check]]], ...] = (
    ("versions", check_versions),
    ("switches", check_switches),
    ("plugin", check_activation),
    ("torch", check_torch),
    ("decoders", check_decoders),
    ("machine", check_machine),
)


def examine(serve: Sequence[str] = ()) -> list[Check]:
    """Run every check; a check that itself fails is one failed line, not an exception.

    Args:
        serve: a YAML file of chat, API or web chat, and ``key=value`` overrides, to be checked as well.
    """
    sections = (*_SECTIONS, ("serving", lambda: check_serving(serve))) if serve else _SECTIONS
    with ThreadPoolExecutor(max_workers=2) as pool:  # the slow ones wait for child processes
        futures = [(name, pool.submit(function)) for name, function in sections]
    checks: list[Check] = []
    for name, future in futures:
        error = future.exception()
        if error is None:
            checks += future.result()
        else:
            found = f"the check itself failed: {type(error).__name__}: {error}"
            checks.append(Check(name, FAIL, found, fix="Please report this line to the authors of hound-plugin."))
    return checks
