"""The tests run offline; the recorded towers lie in a hub cache of their own."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest

with contextlib.suppress(ImportError):  # lmms-eval's environment has no hypothesis
    import hypothesis

    hypothesis.settings.register_profile("suite", max_examples=40, deadline=None, derandomize=True, database=None)
    hypothesis.settings.register_profile("fuzz", max_examples=2_000, deadline=None)  # `make fuzz`
    hypothesis.settings.load_profile("suite")

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["HF_HUB_CACHE"] = str(Path(__file__).parent / "golden" / "hub")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER" in os.environ:  # a worker has one core
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell's background job ignores Ctrl-C, and so would the children that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Files that start the host often, longest first: a worker that took one of them last would run on alone.
LONGEST = (
    "browser/test_webui.py",
    "e2e/test_demo.py",
    "e2e/test_distributed.py",
    "e2e/test_training.py",
    "e2e/test_recipes.py",
    "e2e/test_resuming.py",
    "host/test_autoload.py",
    "host/test_register.py",
    "corpus/test_flow.py",
    "doctor/test_doctor.py",
    "e2e/test_packing_and_streaming.py",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {str(Path(__file__).parent / name): number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(str(item.path), len(order)))
