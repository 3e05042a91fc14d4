"""One Ray cluster for all tests of a worker: two processes' worth of cores, a small object store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hound_plugin.engines.settings import EngineSettings

pytest.importorskip("ray", reason="Ray is not installed here (extra `ray`)")

from hound_plugin.engines.cluster import joined
from hound_plugin.engines.ray_data import RayEngine

MakeEngine = Callable[..., RayEngine]
STORE = 0.12  # GiB


@pytest.fixture(scope="package")
def cluster() -> Iterator[None]:
    with joined(EngineSettings(kind="ray", actors=2, decoders=1, object_store=STORE), reads_ahead=True):
        yield


@pytest.fixture
def ray_engine(cluster: None) -> MakeEngine:
    def make(**settings: Any) -> RayEngine:
        return RayEngine(EngineSettings(kind="ray", **{"actors": 2, "batch": 4, **settings}))

    return make
