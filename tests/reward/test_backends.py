"""Every kind of judge through the stages: from settings to scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hound_plugin.errors import DataError
from hound_plugin.reward import stages
from hound_plugin.reward.settings import build_settings
from tests.goldens import ROOT
from tests.judge.test_local import model as model  # the tiny chat model
from tests.llm.conftest import FaultServer
from tests.llm.fault_server import grade
from tests.reward.conftest import rows, write_rows
from tests.reward.test_stages import start


@pytest.fixture
def seen(tmp_path: Path) -> dict[str, Any]:
    """Two questions on real clips, with two answers each."""
    asked = [
        {"id": f"q{n}", "video": clip, "prompt": "<video>\nWhat?", "caption": f"A dog. [item-{n}]"}
        for n, clip in enumerate(["clip_short.mp4", "clip_long.mp4"])
    ]
    given = [
        {"id": f"q{n}", "candidate": c, "answer": f"Answer {c} [item-{n}]"} for n in range(2) for c in range(2)
    ]  # fmt: skip
    return {
        "folder": str(tmp_path / "run"),
        "questions": str(write_rows(tmp_path / "q.jsonl", asked)),
        "media_dir": str(ROOT / "media"),
        "sample": {"backend": "given", "answers": str(write_rows(tmp_path / "given.jsonl", given))},
    }


@pytest.mark.parametrize("backend", ["openai", "openai-batch", "vision"])
def test_servers(seen: dict[str, Any], server: FaultServer, backend: str) -> None:
    judge = {"backend": backend, "model": "tiny", "base_url": server.base_url, "poll": 0.01, "num_frames": 2}
    prices = {"tiny": {"input": 1000, "output": 1000, "batch": 0.5}}
    settings = build_settings({**seen, "judge": judge, "prices": prices})
    run = start(settings)
    stages.sample(run)
    assert stages.judge(run)["scored"] == 4
    found = rows(run.folder / "scores.jsonl")
    assert [row["score"] for row in found] == [grade(0), grade(0), grade(1), grade(1)]
    usage = run.counts["judge_usage"]
    assert usage["requests"] == 5  # the first asks for the form of answers
    assert usage["cost"] == pytest.approx(5 * 0.22 * (0.5 if backend == "openai-batch" else 1))
    again = start(settings)
    assert stages.judge(again)["scored"] == 4
    assert again.counts["judge_usage"]["this_run"]["sent"] == 0
    assert found[0]["judge"]["protocol"].startswith("vision/" if backend == "vision" else "caption/")


def test_frames_are_not_counted_as_text(seen: dict[str, Any], server: FaultServer) -> None:
    """Their base64 would be some 30 of the currency a request, and nothing would be sent."""
    block = {"backend": "openai", "model": "tiny", "base_url": server.base_url}
    sample = {**block, "show": "frames", "num_frames": 4, "n": 1, "max_new_tokens": 20}
    prices = {"tiny": {"input": 1000, "output": 1000}}
    run = start(build_settings({**seen, "sample": sample, "judge": block, "prices": prices, "max_cost": 1.0}))
    assert stages.sample(run)["answers"] == 2
    assert run.counts["sample_usage"]["stopped"] == ""
    content = server.stats()["bodies"][0]["body"]["messages"][0]["content"]
    assert [part["type"] for part in content] == ["image_url"] * 4 + ["text"]
    assert sum(len(part["image_url"]["url"]) for part in content[:4]) / 4 * 1000 / 1e6 > 1.0


def test_single_requests_use_what_a_batch_answered(seen: dict[str, Any], server: FaultServer) -> None:
    judge = {"backend": "openai-batch", "model": "tiny", "base_url": server.base_url, "poll": 0.01}
    run = start(build_settings({**seen, "judge": judge}))
    stages.sample(run)
    stages.judge(run)
    other = start(build_settings({**seen, "judge": {**judge, "backend": "openai"}}))
    assert stages.judge(other)["scored"] == 4
    assert other.counts["judge_usage"]["this_run"]["sent"] == 0


def test_another_clip_is_another_request(seen: dict[str, Any], server: FaultServer, tmp_path: Path) -> None:
    judge = {"backend": "vision", "model": "tiny", "base_url": server.base_url, "num_frames": 2}
    media = tmp_path / "media"
    media.mkdir()
    for name in ("clip_short.mp4", "clip_long.mp4"):
        (media / name).write_bytes((ROOT / "media" / name).read_bytes())
    settings = build_settings({**seen, "media_dir": str(media), "judge": judge})
    run = start(settings)
    stages.sample(run)
    stages.judge(run)
    (media / "clip_short.mp4").write_bytes((ROOT / "media" / "clip_portrait.mp4").read_bytes())
    again = start(settings)
    stages.judge(again)
    assert again.counts["judge_usage"]["this_run"]["sent"] == 2


def test_a_local_model(seen: dict[str, Any], model: Path) -> None:
    judge = {"backend": "local", "model": str(model), "device": "cpu", "attempts": 1, "parameters": {"max_tokens": 4}}
    run = start(build_settings({**seen, "judge": judge}))
    stages.sample(run)
    counts = stages.judge(run)
    assert (counts["scored"], counts["missing"]) == (0, 4)
    assert all(
        row["missing"][0]["status"] in ("truncated", "unparsed", "empty") for row in rows(run.folder / "scores.jsonl")
    )


def test_a_judge_that_sees_needs_clips(seen: dict[str, Any], server: FaultServer) -> None:
    write_rows(Path(seen["questions"]), [{"id": "q0", "prompt": "What?"}])
    judge = {"backend": "vision", "model": "tiny", "base_url": server.base_url}
    with pytest.raises(DataError, match="1 questions have no clip; the first is q0"):
        start(build_settings({**seen, "judge": judge}))
