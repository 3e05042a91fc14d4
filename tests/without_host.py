"""A pytest plugin for ``make compat``: the model side without LLaMA-Factory, on the transformers of the overlay.

Tests that need the host are skipped because they import it, wherever they stand.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest

HOST = "llamafactory"
OVERLAY = os.environ["HOUND_OVERLAY"]
_HALTED = re.compile(f"ModuleNotFoundError: (?:import of |No module named '){HOST}")
sys.modules[HOST] = None  # type: ignore[assignment]  # importing it fails from here on


def pytest_configure() -> None:
    import transformers

    if not os.path.realpath(str(transformers.__file__)).startswith(os.path.realpath(OVERLAY) + os.sep):
        raise pytest.UsageError(f"Expected transformers from {OVERLAY}, found {transformers.__file__}.")


def pytest_report_header() -> str:
    import transformers

    return f"transformers {transformers.__version__} from {OVERLAY}, without {HOST}"


def _needs_host(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == HOST:
            return True
        error = error.__cause__ or error.__context__
    return False


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    report: Any = yield
    if report.outcome == "failed" and _HALTED.search(str(report.longrepr)):
        report.outcome, report.longrepr = "skipped", (str(collector.path), 0, f"Skipped: it imports {HOST}")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    try:
        return (yield)
    except BaseException as error:
        if _needs_host(error):
            pytest.skip(f"it imports {HOST}")
        raise
