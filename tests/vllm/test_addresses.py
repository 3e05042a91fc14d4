"""Addresses as vLLM's connector takes them: no fragment of an image's or a clip's address is ignored."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from vllm.exceptions import VLLMValidationError

from hound_plugin.vllm.media import LlavaHoundConnector, for_our_models


@pytest.fixture
def connector(tmp_path: Path) -> Any:
    Image.new("RGB", (8, 6), "red").save(tmp_path / "a.png")
    (tmp_path / "a.mp4").write_bytes(b"clip")
    return LlavaHoundConnector(allowed_local_media_path=str(tmp_path))


def _fetch(connector: Any, how: str, url: str) -> Any:
    with for_our_models():
        if how == "sync":
            return connector.fetch_image(url)
        return asyncio.run(connector.fetch_image_async(url))


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("address", ["file://FOLDER/a.png", "https://example.org/a.png"])
@pytest.mark.parametrize("fragment", ["xywh=0,0,2,2", "t=1", "svgView()"])
def test_a_part_of_an_image_is_refused(how: str, address: str, fragment: str, connector: Any, tmp_path: Path) -> None:
    with pytest.raises(VLLMValidationError, match="the address of a whole image"):
        _fetch(connector, how, f"{address.replace('FOLDER', str(tmp_path))}#{fragment}")


@pytest.mark.parametrize("how", ["sync", "async"])
def test_a_whole_image_is_read(how: str, connector: Any, tmp_path: Path) -> None:
    (tmp_path / "a#t=1.png").write_bytes((tmp_path / "a.png").read_bytes())
    for url in ("a.png", "a.png#", "a%23t=1.png"):
        assert _fetch(connector, how, f"file://{tmp_path}/{url}").media.size == (8, 6)
    data = "data:image/png;base64," + base64.b64encode((tmp_path / "a.png").read_bytes()).decode()
    assert _fetch(connector, how, data).media.size == (8, 6)


def test_other_models_are_left_alone(connector: Any, tmp_path: Path) -> None:
    assert connector.fetch_image(f"file://{tmp_path}/a.png#xywh=0,0,2,2").media.size == (8, 6)


def test_an_escaped_number_sign_of_a_clip_belongs_to_its_name(connector: Any, tmp_path: Path) -> None:
    with for_our_models():
        assert connector.fetch_video(f"file://{tmp_path}/a.mp4#t=0,1") == f"{tmp_path}/a.mp4#t=0,1"
        with pytest.raises(VLLMValidationError, match="there is none here"):
            connector.fetch_video(f"file://{tmp_path}/a.mp4%23t=0,1")
