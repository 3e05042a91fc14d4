"""The command as a process of its own, against the stand-in of the hub."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.corpus.hub import Hub, serving, small_hub

REPO = Path(__file__).resolve().parents[2]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving(small_hub()) as running:
        yield running


# Highest resident memory of this process in kB; getrusage would count the parent's from before exec.
PEAK = "next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM'))"


def environment(hub: Hub | None = None, **extra: str) -> dict[str, str]:
    """Of a process that talks to the stand-in, or to nothing."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    paths = os.pathsep.join([str(REPO), *filter(None, [os.environ.get("PYTHONPATH")])])
    hub_words = {"HF_ENDPOINT": hub.address} if hub else {"HF_HUB_OFFLINE": "1"}
    return {**kept, "PYTHONPATH": paths, "HF_HUB_DISABLE_TELEMETRY": "1", **hub_words, **extra}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """``run("list", hub=hub)``: ``hound corpus list`` in ``tmp_path``."""

    def call(*arguments: object, hub: Hub | None = None, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "hound_plugin.cli", "corpus", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd=tmp_path,
            env=environment(hub, HF_HOME=str(tmp_path / "hf"), **extra),
        )

    return call
