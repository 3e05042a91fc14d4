"""What the web pages keep between two visits, and what they hand to the engine."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import gradio
import pytest
from llamafactory.chat import ChatModel
from llamafactory.webui import common
from llamafactory.webui.components.chatbot import create_chat_box
from llamafactory.webui.components.top import create_top
from llamafactory.webui.engine import Engine

from hound_plugin.host.serve.web_pages import CUTOFF, room_for_a_clip


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


@pytest.fixture
def page(local: ChatModel, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The host's page with its sliders, talking to a model whose recipe is greedy."""
    engine = Engine(pure_chat=False)
    with gradio.Blocks():
        engine.manager.add_elems("top", create_top())
        engine.manager.add_elems("infer", create_chat_box(engine)[2])
    monkeypatch.setattr(engine.chatter, "engine", local.engine)
    monkeypatch.setattr(engine.chatter, "_loop", local._loop, raising=False)
    return engine


def answers(page: Engine, number: int, **moved: float) -> set[str]:
    """Different answers to one question, with sliders moved or where they begin."""
    names = ("max_new_tokens", "top_p", "temperature")
    sliders = [moved.get(name, page.manager.get_elem_by_id(f"infer.{name}").value) for name in names]
    question = [{"role": "user", "content": "What moves?"}]
    found = set()
    for _ in range(number):
        *_, (_, conversation) = page.chatter.stream(
            [], question, "en", "", "", None, None, None, *sliders, True, False, False
        )
        found.add(conversation[-1]["content"])
    return found


def test_the_page_is_as_greedy_as_its_recipe_until_a_slider_is_moved(page: Engine, local: ChatModel) -> None:
    want = local.chat([{"role": "user", "content": "What moves?"}])[0].response_text
    assert answers(page, 3, max_new_tokens=12) == {want}
    assert len(answers(page, 3, max_new_tokens=12, temperature=1.0)) > 1
    assert len(answers(page, 3, max_new_tokens=12, top_p=1.0)) > 1
    assert answers(page, 3, max_new_tokens=12, temperature=0.01) == {want}
    assert len(answers(page, 1, max_new_tokens=3, temperature=1.0)) == 1


def test_the_page_samples_as_its_recipe_does_until_a_slider_is_moved(
    page: Engine, local: ChatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host's first slider values would turn a recipe of a low temperature into one of 0.95."""
    want = local.chat([{"role": "user", "content": "What moves?"}])[0].response_text
    recipe = {**local.engine.generating_args, "do_sample": True, "temperature": 0.011, "top_p": 1.0}
    monkeypatch.setattr(local.engine, "generating_args", recipe)
    assert answers(page, 3, max_new_tokens=12) == {want}
    monkeypatch.setitem(recipe, "temperature", 1.9)
    assert want not in answers(page, 3, max_new_tokens=12)


def test_the_cutoff_length_has_room_for_a_clip() -> None:
    """Choosing our template raises the field of both tabs, and no other template touches it."""
    from llamafactory.webui.interface import create_ui

    demo = create_ui()
    events = [event for event in demo.fns.values() if event.fn is room_for_a_clip]
    assert [event.targets[0][1] for event in events] == ["change", "change"]
    for event in events:
        template, cutoff = event.inputs
        assert event.outputs == [cutoff]
        assert cutoff.value < CUTOFF, "the host's own value"
        assert "llava_hound" in [name for name, _ in template.choices]
    assert room_for_a_clip("llava_hound", 2048) == 4096
    assert room_for_a_clip("llava_hound", 8192) == 8192
    assert room_for_a_clip("vicuna", 2048) == 2048
