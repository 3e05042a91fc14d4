"""Fixtures for tests of activation."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.sandbox import RECORDER, Sandbox, write_metadata


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    path = tmp_path / "path"
    write_metadata(path)
    (path / "sitecustomize.py").write_text(RECORDER)
    return Sandbox(tmp_path)


@pytest.fixture
def write_script(tmp_path: Path) -> Callable[[str, str], Path]:
    def write(name: str, code: str) -> Path:
        file = tmp_path / name
        file.write_text(textwrap.dedent(code))
        return file

    return write
