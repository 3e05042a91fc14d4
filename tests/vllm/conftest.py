"""What the tests of vLLM share: a small demo, our model, and one engine in this process."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.vllm.serving import Server

IS_HERE = find_spec("vllm") is not None
collect_ignore_glob = [] if IS_HERE else ["test_*.py"]
QUESTIONS = 96
"""Of the held-out ones; 480 with ``HOUND_DEMO``, the folder of a demo that was trained."""
FEATURES = 5e-4
LOG_PROBS = 1e-3

if IS_HERE:
    for name, value in {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": "WARNING",
        # threads that are bound to cores, and wait for each other there, are slow on a machine that does other work too
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
    }.items():
        os.environ.setdefault(name, value)


@dataclass(frozen=True)
class Demo:
    """A checkpoint and questions about held-out clips."""

    folder: Path
    model: Path
    rows: list[dict[str, Any]]

    def clip(self, row: dict[str, Any]) -> str:
        return str(self.folder / "clips" / (row.get("video") or row["image"]))

    @property
    def asked(self) -> list[tuple[str, str]]:
        return [(row["prompt"], self.clip(row)) for row in self.rows]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The trained demo in ``HOUND_DEMO``, or a small one whose weights are random."""
    trained = os.environ.get("HOUND_DEMO")
    if trained:
        folder = Path(trained)
        model, limit = folder / "runs" / "dpo", None
    else:
        from hound_plugin.demo.build import build_demo
        from hound_plugin.demo.model import write_model

        paths = build_demo(
            tmp_path_factory.mktemp("vllm") / "demo",
            train_clips=4,
            held_out_clips=QUESTIONS // 2,
            progress=False,
            write_model=write_model,
        )
        folder, model, limit = paths.folder, paths.model, QUESTIONS
    lines = (folder / "data" / "held_out_questions.jsonl").read_text(encoding="utf-8").splitlines()
    return Demo(folder, model, [json.loads(line) for line in lines][:limit])


@pytest.fixture(scope="session")
def ours(demo: Demo) -> Any:
    """The checkpoint as this package runs it."""
    import hound_plugin

    return hound_plugin.load(str(demo.model), "cpu", "float32")


@pytest.fixture(scope="session")
def engine(demo: Demo) -> Any:
    """The checkpoint in vLLM's engine."""
    from hound_plugin.vllm.engine import VllmModel

    return VllmModel(
        str(demo.model),
        "float32",
        engine={"enforce_eager": True, "allowed_local_media_path": str(demo.folder)},
    )


@pytest.fixture(scope="session")
def server(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """``vllm serve``, allowed to read the demo's folder."""
    with Server(demo.model, demo.folder, tmp_path_factory.mktemp("serve") / "log") as running:
        yield running
