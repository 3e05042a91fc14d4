"""What the fuzzer begins with, and whatever it once failed on. Fuzzing itself is ``make fuzz``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS, seeds

CRASHES = [path for path in sorted((Path(__file__).parent / "crashes").rglob("*")) if path.is_file()]


@pytest.mark.parametrize("target", TARGETS)
def test_seeds(target: str) -> None:
    inputs = seeds(target)
    assert len(inputs) >= 3
    for data in inputs:
        TARGETS[target](data)
    TARGETS[target](b"")


@pytest.mark.parametrize("path", CRASHES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_an_input_that_once_failed(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())
