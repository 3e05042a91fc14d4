"""`llamafactory-cli webui` by hand, in the order of a user's day: each test goes on where the one before ended."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from playwright.sync_api import expect

import hound_plugin
from hound_plugin.host.models import MODELS
from hound_plugin.host.resume import is_complete
from tests.browser.board import MODEL, Board
from tests.browser.conftest import Site
from tests.goldens import ROOT, SFT

CLIP = ROOT / "media" / "clip_long.mp4"
QUESTION = "What is moving across the screen?"
FEW = {"save_steps": 2, "logging_steps": 1, "preprocessing_num_workers": 1, "save_total_limit": 1}
FIELDS = {"Learning_rate": "1e-3", "Gradient_accumulation": 1, "Max_samples": 8}


@pytest.fixture(scope="module")
def site(chromium: Any, serve: Callable[..., Site]) -> Site:
    return serve("webui")


def saved(site: Site, name: str) -> Path:
    return site.folder / "saves" / MODEL / "lora" / name


def log(site: Site, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (saved(site, name) / "trainer_log.jsonl").read_text().splitlines()]


def losses(site: Site, name: str) -> list[float]:
    return [line["loss"] for line in log(site, name) if "loss" in line]


def test_names_template_and_datasets_appear(board: Board) -> None:
    """All four released models, their template and hub address, the data sets by stage, and what is in one."""
    assert board.options("Model name", "LLaVA-Hound") == list(MODELS)
    for name, address in MODELS.items():
        board.choose("Model name", name)
        expect(board.field("Model path").locator("textarea")).to_have_value(address)
        expect(board.field("Chat template").locator("input")).to_have_value("llava_hound")
    assert board.options("Dataset") == ["sft"]
    board.pick("Dataset", ["sft"])
    board.button("Preview dataset").click()
    board.text(QUESTION)
    assert board.value("Count") == "12"
    board.button("Close").click()
    board.choose("Stage", "DPO")
    board.page.get_by_text("RLHF configurations").wait_for()
    assert board.options("Dataset") == ["dpo"]


def test_sft_is_stopped_and_resumed(board: Board, site: Site) -> None:
    """The plot moves while it trains; after Abort the same folder is offered again and goes on at its checkpoint."""
    board.use(SFT)
    frames = {"num_frames": 16, "frame_sampling": "first_10s"}
    endless = {**FEW, "max_steps": 5000, "hound": frames}
    board.train("Supervised Fine-Tuning", "sft", "first", json.dumps(endless), **FIELDS)
    first = board.new_plot(None)
    board.new_plot(first)
    board.button("Abort").click()
    board.text("Finished.")
    complete = [path for path in saved(site, "first").glob("checkpoint-*") if is_complete(path)]
    checkpoint = max(int(path.name.split("-")[1]) for path in complete)
    stopped = len(losses(site, "first"))
    assert 2 <= checkpoint <= stopped < 5000
    assert "num_frames" in (saved(site, "first") / "training_args.yaml").read_text()

    board.reload()
    board.use(SFT)
    board.choose("Output dir", "first")
    board.text("Output dir already exists, will resume training from here.")
    expect(board.field("Learning rate").locator("textarea")).to_have_value("1e-3")
    board.page.get_by_text("Extra configurations").click()
    dotted = {f"hound.{key}": value for key, value in frames.items()}
    board.fill("Extra arguments", json.dumps({**FEW, "max_steps": checkpoint + 2, **dotted}))
    board.button("Start").click()
    board.text("Finished.")
    assert [line["current_steps"] for line in log(site, "first") if "loss" in line][stopped:] == [
        checkpoint + 1,
        checkpoint + 2,
    ]


def test_dpo_goes_on_from_the_adapter(board: Board, site: Site) -> None:
    """The stage, its loss and weight of the chosen answers from their fields; the adapter of SFT is trained on."""
    board.use(SFT, adapters=["first"])
    board.page.get_by_text("LoRA configurations").click()
    board.page.get_by_label("Create new adapter").check()  # else the reference would be the model without it: refused
    board.page.get_by_text("RLHF configurations").click()
    board.choose("Loss type", "sigmoid")
    board.fill("Ftx gamma", "0.1")
    # the page looks every two seconds: a training that ends by itself may be over before it is seen
    board.train("DPO", "dpo", "second", json.dumps({**FEW, "max_steps": 5000}), **FIELDS)
    board.new_plot(board.new_plot(None))
    board.button("Abort").click()
    board.text("Finished.")
    arguments = yaml.safe_load((saved(site, "second") / "training_args.yaml").read_text())
    assert (arguments["stage"], arguments["pref_ftx"]) == ("dpo", 0.1)
    assert arguments["adapter_name_or_path"].endswith("first")
    assert 2 <= len(losses(site, "second")) < 5000
    assert any("accuracy" in line for line in log(site, "second"))


def load(board: Board, settings: dict[str, Any]) -> None:
    """The adapter of DPO in the tab `Chat`, in single precision."""
    board.use(SFT, adapters=["first", "second"])
    board.tab("Chat")
    board.choose("Inference data type", "float32")
    board.fill("Extra arguments", json.dumps(settings))
    board.button("Load model").click()


def test_a_wrong_setting_is_named_on_the_page(board: Board) -> None:
    """The stock page says no more than "Error"."""
    load(board, {"hound": {"num_framse": 8}})
    board.status("Did you mean 'num_frames'?")


def test_chat_about_an_uploaded_clip_and_export(board: Board, site: Site) -> None:
    """Two turns about an mp4; the exported model gives the same answers outside the host."""
    load(board, {"hound.num_frames": 16})
    board.status("Model loaded, now you can chat with your model!")
    board.short_and_likely(24)
    board.upload("Video", CLIP)
    answers = [board.ask(QUESTION), board.ask("And what else?")]
    board.tab("Export")
    board.fill("Export dir", "exported")
    board.button("Export").click()
    board.status("Model exported.")

    model = hound_plugin.load(str(site.folder / "exported"), device="cpu", dtype="float32")
    model.processor.num_frames = 16
    options = {"temperature": 0, "max_new_tokens": 24}
    first = model.chat(QUESTION, video=str(CLIP), **options)
    second = model.chat("And what else?", video=str(CLIP), history=[(QUESTION, first)], **options)
    assert [as_shown(answer) for answer in answers] == [as_shown(first), as_shown(second)]
    assert first != model.chat(QUESTION, **options), "the answer does not depend on the clip"


def as_shown(text: str) -> str:
    """A page shows runs of white space as one space, and marks of Markdown as what they mean, or as they are."""
    return re.sub(r"\s+", " ", re.sub(r"[*_`]", "", text)).strip()


def test_a_clip_is_taken_away_and_a_broken_one_refused(board: Board, site: Site) -> None:
    """The conversation goes on without its clip, and after a file that is no video."""
    board.use(SFT)
    board.tab("Chat")  # the model of the test before is still loaded
    board.short_and_likely(8)
    board.upload("Video", CLIP)
    assert board.ask(QUESTION)
    board.clear_media()
    assert not board.ask("And without it?").startswith("Error")
    broken = site.folder / "broken.mp4"
    broken.write_text("this is no video")
    board.upload("Video", broken)
    assert re.search(r"Error: Cannot decode \S+broken.mp4", board.ask(QUESTION))
    board.clear_media()
    assert not board.ask("And now?").startswith("Error")
