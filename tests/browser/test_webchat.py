"""`llamafactory-cli webchat`: a model from the command line, and nothing but the conversation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import hound_plugin
from tests.browser.board import Board
from tests.browser.conftest import Site
from tests.browser.test_webui import CLIP, QUESTION, as_shown
from tests.goldens import DPO, ROOT

PICTURE = ROOT / "media" / "img_wide.jpg"


@pytest.fixture(scope="module")
def site(chromium: Any, serve: Callable[..., Site]) -> Site:
    settings = {
        "model_name_or_path": str(DPO),
        "template": "llava_hound",
        "infer_dtype": "float32",
        "do_sample": "false",
    }
    given = [word for name, value in settings.items() for word in (f"--{name}", value)]
    return serve("webchat", *given, "--hound.num_frames", "16")


def test_a_clip_and_an_image(board: Board) -> None:
    """The answers are those of the Python interface on the same checkpoint."""
    model = hound_plugin.load(str(DPO), device="cpu", dtype="float32")
    model.processor.num_frames = 16
    options = {"temperature": 0, "max_new_tokens": 16}
    board.fill("Maximum new tokens", "16")
    board.upload("Video", CLIP)
    assert board.value("Temperature") == "0.95"  # nobody moved it: the recipe is greedy
    assert as_shown(board.ask(QUESTION)) == as_shown(model.chat(QUESTION, video=str(CLIP), **options))
    board.button("Clear history").click()
    board.page.locator("[data-testid=bot]").first.wait_for(state="detached")
    board.clear_media()
    board.short_and_likely(16)
    board.upload("Image", PICTURE)
    assert as_shown(board.ask("What is it?")) == as_shown(model.chat("What is it?", image=str(PICTURE), **options))
