"""The host's own API as sampler and as (bad) judge, over HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from llamafactory.api.app import create_app
from llamafactory.chat import ChatModel

from hound_plugin.reward import stages
from hound_plugin.reward.settings import build_settings
from tests.goldens import ROOT, SFT
from tests.reward.conftest import rows, write_rows
from tests.reward.test_stages import start


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    """The application of ``llamafactory-cli api`` with the recorded model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAFE_MEDIA_PATH", str(ROOT / "media"))
        patch.setattr("llamafactory.api.common.SAFE_MEDIA_PATH", str(ROOT / "media"), raising=False)
        arguments = {"model_name_or_path": str(SFT), "template": "llava_hound", "infer_backend": "huggingface"}
        app = create_app(ChatModel({**arguments, "infer_dtype": "float32", "do_sample": False, "max_new_tokens": 8}))
        server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.05)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
        server.should_exit = True
        thread.join(10)


def test_sampler_and_bad_judge(host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    asked = [
        {"id": f"q{n}", "video": clip, "prompt": "<video>\nWhat moves?", "caption": "A dog runs."}
        for n, clip in enumerate(["clip_short.mp4", "clip_long.mp4"])
    ]
    block: dict[str, Any] = {"backend": "openai", "model": "tiny", "base_url": host, "concurrency": 2}
    values = {
        "folder": str(tmp_path / "run"),
        "questions": str(write_rows(tmp_path / "q.jsonl", asked)),
        "media_dir": str(ROOT / "media"),
        "sample": {**block, "n": 2, "max_new_tokens": 6},
        "judge": {**block, "attempts": 2, "parameters": {"temperature": 0, "max_tokens": 6}},
    }
    said: list[str] = []
    run = start(build_settings(values), said)
    assert stages.sample(run)["answers"] == 4
    assert all(row["answer"] for row in rows(run.folder / "candidates.jsonl"))
    counts = stages.judge(run)
    assert (counts["scored"], counts["missing"]) == (0, 4)
    assert "tiny: replies are requested as text" in said
    assert all(row["score"] is None and row["missing"] for row in rows(run.folder / "scores.jsonl"))
    again = start(build_settings(values))
    stages.sample(again)
    stages.judge(again)
    assert again.counts["sample_usage"]["this_run"]["sent"] == again.counts["judge_usage"]["this_run"]["sent"] == 0


def test_a_greedy_recipe_does_not_keep_requests_from_sampling(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six answers at temperature 1 are six different ones, the same six when they are sampled anew, and no warning."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    asked = [
        {"id": f"q{n}", "video": "clip_short.mp4", "prompt": f"<video>\n{text}", "reference": "A dog."}
        for n, text in enumerate(["What moves?", "Why?"])
    ]
    values = {
        "questions": str(write_rows(tmp_path / "q.jsonl", asked)),
        "media_dir": str(ROOT / "media"),
        "sample": {"backend": "openai", "model": "tiny", "base_url": host, "n": 6, "max_new_tokens": 6},
    }
    found, warnings = [], []
    for number, sample in enumerate(({}, {"concurrency": 1}, {"top_p": 1e-6})):
        said: list[str] = []
        block = {**values["sample"], **sample}  # type: ignore[dict-item]
        run = start(build_settings({**values, "sample": block, "folder": str(tmp_path / f"run{number}")}), said)
        counts = stages.sample(run)
        texts = {(row["id"], row["candidate"]): row["answer"] for row in rows(run.folder / "candidates.jsonl")}
        found.append((counts["questions_alike"], texts))
        warnings.append([line for line in said if "all alike" in line])
    (alike, first), (_, second), (narrow, _) = found
    assert (alike, narrow) == (0, 2)
    assert first == second
    assert all(len({text for (name, _), text in first.items() if name == f"q{n}"}) == 6 for n in range(2))
    assert warnings[:2] == [[], []]
    assert "2 of 2 questions" in warnings[2][0]
    assert "Check that the server samples: sample.temperature is 1.0" in warnings[2][0]
