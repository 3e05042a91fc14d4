"""A run that an earlier version began is continued, and ends as that version would have ended it.

``recorded_run/`` was written by the code of commit e5756ef, before ``llm/`` and ``judge/`` were two packages, against
the fault server; its ledgers are dumped as SQL. ``batch_building`` and ``batch_submitted`` were killed at those steps
of a batch of the tasks 1 to 4: task 0 is answered, task 1 has one reply that cannot be parsed, task 2 one failure.
``reward/before`` sampled 2 answers to 3 of 5 questions and judged each twice; ``reward/after`` is what that code made
of it with 3 answers to all questions. Do not record them again: the point is that they are old.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import pytest

from hound_plugin.llm.batch import BatchLimits, run_batches
from hound_plugin.llm.ledger import Ledger
from hound_plugin.reward.run import run_stages
from hound_plugin.reward.run_setup import Run, open_run
from hound_plugin.reward.settings import build_settings
from tests.llm.conftest import FAST, FaultServer, make_client, make_requests, open_ledger
from tests.llm.fault_server import grade

RECORDED = Path(__file__).parent / "recorded_run"
WRITTEN = ("candidates.jsonl", "scores.jsonl", "pairs/hound_pairs.jsonl", "pairs/dataset_info.json")


def restore(dump: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path)
    database.executescript(dump.read_text())
    database.close()


def batch_name(ledger: Ledger) -> str:
    (name,) = ledger.batches()
    return name


@pytest.mark.parametrize("killed_at", ["building", "submitted"])
def test_a_batch_is_continued(server: FaultServer, tmp_path: Path, killed_at: str) -> None:
    recorded = RECORDED / f"batch_{killed_at}"
    restore(recorded / "ledger.sql", tmp_path / "ledger.sqlite")
    with open_ledger(tmp_path) as ledger:
        name = batch_name(ledger)
    if killed_at == "building":
        (tmp_path / "batches").mkdir()
        shutil.copy(recorded / "batch.jsonl", tmp_path / "batches" / f"{name}.jsonl")
    else:  # the server has it
        file = {"file": (recorded / "batch.jsonl").read_bytes()}
        uploaded = httpx.post(f"{server.base_url}/files", files=file, data={"purpose": "batch"}).json()["id"]
        batch = {"input_file_id": uploaded, "endpoint": "/v1/chat/completions", "metadata": {"hound_batch": name}}
        assert httpx.post(f"{server.base_url}/batches", json=batch).json()["id"] == "batch_0"
    with open_ledger(tmp_path) as ledger:
        client = make_client(server, ledger)
        limits = BatchLimits(poll=0.01)
        outcome = run_batches(lambda: iter(make_requests(5)), client, ledger, FAST, limits, lambda _: None)
        entries = [ledger.entry(request.key) for request in make_requests(5)]
        assert ledger.count("SELECT COUNT(*) FROM claims") == 0
    assert [entry.value for entry in entries if entry] == [grade(item) for item in range(5)]
    assert [entry.attempt for entry in entries if entry] == [0, 1, 0, 0, 0]
    assert (outcome.answered, outcome.done_before, outcome.failed) == (4, 1, 0)
    counts = server.stats()["counts"]
    assert (counts["batches"], counts["rows"], counts.get("requests", 0)) == (1, 4, 0)


@pytest.fixture
def values(server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The recorded settings. Requests go to http://judge.test through a proxy: the address is part of their keys."""
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.setenv("http_proxy", server.url)
    before, folder = RECORDED / "reward" / "before", tmp_path / "run"
    (folder / "pairs").mkdir(parents=True)
    for name in (*WRITTEN, "run.json"):
        shutil.copy(before / name, folder / name)
    restore(before / "ledger.sql", folder / "ledger.sqlite")
    restore(before / "sampler.sql", folder / "sampler.sqlite")
    block = {"backend": "openai", "model": "tiny", "base_url": "http://judge.test/v1", "concurrency": 1}
    return {
        "folder": str(folder),
        "questions": str(RECORDED / "reward" / "questions.jsonl"),
        "sample": {**block, "n": 2, "show": "none"},
        "judge": {**block, "k": 2, "seed": 7, "attempts": 1},
        "pairs": {"policy": "all", "max_pairs": 3},
        "prices": {"tiny": {"input": 1.0, "output": 2.0}},
    }


def start(values: dict[str, Any]) -> Run:
    return open_run(build_settings(values), lambda _: None)


def texts(folder: Path) -> dict[str, str]:
    return {name: _without_later(name, (folder / name).read_text()) for name in WRITTEN}


def _without_later(name: str, text: str) -> str:
    """What the recorded version wrote: without the judge's reasons, which rows of scores have since then."""
    if name != "scores.jsonl":
        return text
    rows = [json.loads(line) for line in text.splitlines()]
    return "".join(
        json.dumps({key: value for key, value in row.items() if key != "reasons"}, ensure_ascii=False) + "\n"
        for row in rows
    )


def _known_settings(values: dict[str, Any]) -> dict[str, Any]:
    """Settings that the recorded version had: those that came since are named here, and change nothing unless given."""
    later = ("captions", "replace_dropped", "evaluation", "engine", "vllm")
    return {
        name: _known_settings(value) if name in ("pairs", "iterate", "sample") else value
        for name, value in values.items()
        if name not in later
    }


def shape(value: Any) -> Any:
    """Names and types of a JSON value."""
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items()}
    return type(value).__name__


def test_what_was_finished_is_not_repeated(server: FaultServer, values: dict[str, Any]) -> None:
    folder = Path(values["folder"])
    run_stages(start({**values, "limit": 3}), ("sample", "judge", "pairs"))
    assert server.stats()["counts"].get("requests", 0) == 0
    assert texts(folder) == texts(RECORDED / "reward" / "before")


def test_the_rest_is_done_as_before(server: FaultServer, values: dict[str, Any]) -> None:
    folder, after = Path(values["folder"]), RECORDED / "reward" / "after"
    server.control(share=1.0, kinds=["say"], text="A ring moves left. [item-5]")
    run_stages(start({**values, "sample": {**values["sample"], "n": 3}}), ("sample",))
    assert server.stats()["counts"]["requests"] == 9
    server.control(share=0.0, kinds=[])
    changed = {**values, "sample": {**values["sample"], "n": 3}, "judge": {**values["judge"], "attempts": 2}}
    run_stages(start(changed), ("judge", "pairs"))
    assert server.stats()["counts"]["requests"] == 9 + 11
    assert texts(folder) == texts(after)
    written, recorded = (json.loads((path / "run.json").read_text()) for path in (folder, after))
    assert list(written) == list(recorded)
    settings = _known_settings(written["settings"])
    assert shape(settings) == shape(recorded["settings"])
    assert list(settings) == list(recorded["settings"])
    assert written["counts"] == recorded["counts"]
    assert written["protocol"] == recorded["protocol"]
