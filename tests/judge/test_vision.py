"""Frames as images, and what makes two such requests the same."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hound_plugin.judge.prompts import JudgePrompt, read_template
from hound_plugin.judge.vision import VisionClient
from hound_plugin.llm.frames import frame_parts
from hound_plugin.llm.ledger import Ledger
from hound_plugin.llm.openai_client import Endpoint
from hound_plugin.llm.runner import run_requests
from hound_plugin.records.media_identity import media_digest
from tests.goldens import ROOT
from tests.llm.conftest import FAST, FaultServer, make_requests
from tests.llm.fault_server import grade

CLIP = str(ROOT / "media" / "clip_short.mp4")


def opened(part: dict[str, dict[str, str]]) -> Image.Image:
    url = part["image_url"]["url"]
    return Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/jpeg;base64,"))))


def test_frames_are_those_of_the_clip_in_order() -> None:
    from hound_plugin.media.decode import read_clip

    parts = frame_parts(CLIP, 4, 4096)
    frames = read_clip(CLIP, num_frames=4).frames
    assert len(parts) == 4
    for part, frame in zip(parts, frames, strict=True):
        difference = np.abs(np.asarray(opened(part), dtype=float) - frame)
        assert difference.mean() < 12  # JPEG


def test_large_frames_are_made_smaller() -> None:
    assert max(opened(frame_parts(CLIP, 1, 48)[0]).size) == 48
    assert len(frame_parts(str(ROOT / "media" / "img_wide.jpg"), 8, 512)) == 1
    assert len(frame_parts(str(ROOT / "frames" / "clip_short"), 3, 512)) == 3


def test_the_digest_is_of_the_content(tmp_path: Path) -> None:
    one = tmp_path / "a.mp4"
    one.write_bytes(b"x" * 100)
    before = media_digest(str(one))
    one.write_bytes(b"x" * 99 + b"y")
    assert media_digest(str(one)) != before
    assert media_digest(str(ROOT / "frames" / "clip_short")) != media_digest(str(ROOT / "frames" / "clip_long"))


@pytest.mark.parametrize("clip", [CLIP, str(ROOT / "media" / "no-such.mp4")])
def test_the_server_gets_images_and_text(server: FaultServer, tmp_path: Path, clip: str) -> None:
    protocol = read_template("vision")
    (request,) = make_requests(1)
    request = replace(request, media=clip)
    with Ledger(tmp_path / "ledger.sqlite", protocol.id) as ledger:
        client = VisionClient(Endpoint("tiny", base_url=server.base_url), JudgePrompt(protocol, ledger.salt), 3, 64)
        run_requests([request], client, ledger, FAST)
        entry = ledger.entry(request.key)
    assert entry is not None
    if clip != CLIP:
        assert (entry.status, entry.value) == ("rejected", None)
        assert "the clip cannot be read" in entry.raw
        return
    assert entry.value == grade(0)
    system, user = server.stats()["bodies"][0]["body"]["messages"]
    assert [part["type"] for part in user["content"]] == ["image_url"] * 3 + ["text"]
    assert "Frames of it" in system["content"]
    assert "A dog runs" not in user["content"][3]["text"], "no caption where the judge sees the clip"
