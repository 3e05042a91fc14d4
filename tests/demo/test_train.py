"""The environment of the demo's trainings."""

from __future__ import annotations

from pathlib import Path

import pytest

from hound_plugin.demo.build import DemoPaths
from hound_plugin.demo.train import SPIN, _environment


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)


def test_threads_sleep_soon_where_cores_are_shared(tmp_path: Path) -> None:
    assert _environment(DemoPaths(tmp_path))["GOMP_SPINCOUNT"] == SPIN


@pytest.mark.parametrize(("name", "value"), [("OMP_WAIT_POLICY", "ACTIVE"), ("GOMP_SPINCOUNT", "5")])
def test_how_threads_wait_is_the_users_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    environment = _environment(DemoPaths(tmp_path))
    assert environment[name] == value
    assert not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} - {name} & set(environment)
