"""What the host makes of the table of rows, for all tests of this folder."""

from __future__ import annotations

import pytest

from tests.records.loading import STAGES, Loaded


@pytest.fixture(scope="session")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    found = Loaded(tmp_path_factory.mktemp("shapes"))
    for consumer in STAGES:
        found.load_good(consumer)
    return found
