"""What the web pages keep between two visits."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from llamafactory.webui import common


def test_the_pages_memory_is_never_read_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Choosing a model has the host save and read it in two threads at once."""
    monkeypatch.setattr(common, "DEFAULT_CACHE_DIR", str(tmp_path))
    common.save_config("en", model_name="first", model_path="x" * 5_000)  # a file that takes its time
    problems: list[Any] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            found = common.load_config()
            if not isinstance(found, dict) or "first" not in found.get("path_dict", {}):
                problems.append(found)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(60):
        common.save_config("en", model_name=f"model {number}", model_path="y" * 100)
    done.set()
    for reader in readers:
        reader.join()
    assert not problems
    assert len(common.load_config()["path_dict"]) == 61
