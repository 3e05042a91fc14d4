"""The host's own chat engine, which serves `chat`, `api` and the web UI, gives the recorded answers."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
import torch
from llamafactory.chat import ChatModel

from hound_plugin.errors import HoundError, PlaceholderError, SettingsError
from tests.goldens import ROOT, SFT, load_json
from tests.model.batches import media_path

CASES = [case for case in load_json("f_generation.json") if case["model"] == "reference" and "backend" not in case]


@pytest.fixture(scope="module")
def chat() -> ChatModel:
    arguments = {
        "model_name_or_path": str(SFT),  # the original layout
        "template": "llava_hound",
        "infer_backend": "huggingface",
        "infer_dtype": "float32",
        "do_sample": False,
        "max_new_tokens": 32,
    }
    return ChatModel(arguments)


def ask(chat: ChatModel, question: str, **media: Any) -> str:
    return chat.chat([{"role": "user", "content": question}], **media)[0].response_text.strip()


@pytest.mark.parametrize("case", [case for case in CASES if case["modal_type"] == "VIDEO"], ids=lambda c: c["source"])
def test_answers_about_clips_are_the_recorded_ones(case: dict[str, Any], chat: ChatModel) -> None:
    assert ask(chat, case["question"], videos=[media_path(case["source"])]) == case["text"]
    streamed = chat.stream_chat([{"role": "user", "content": case["question"]}], videos=[media_path(case["source"])])
    assert "".join(streamed).strip() == case["text"]


def test_the_best_of_several_beams_is_streamed_in_one_piece(chat: ChatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(chat.engine.generating_args, "num_beams", 3)
    question = [{"role": "user", "content": "What moves?"}]
    whole = chat.chat(question, max_new_tokens=12)[0].response_text
    assert list(chat.stream_chat(question, max_new_tokens=12)) == [whole]


def test_a_clip_may_come_as_a_stream_of_bytes(chat: ChatModel) -> None:
    file = ROOT / "media" / "clip_short.mp4"
    assert ask(chat, "Is it short?", videos=[BytesIO(file.read_bytes())]) == ask(
        chat, "Is it short?", videos=[str(file)]
    )


def test_several_turns_and_text_alone(chat: ChatModel) -> None:
    clip = media_path("clip_long")
    first = ask(chat, "What moves?", videos=[clip])
    messages = [
        {"role": "user", "content": "What moves?"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "Sure?"},
    ]
    assert chat.chat(messages, videos=[clip])[0].response_length > 0
    assert chat.chat([{"role": "user", "content": "Hello"}])[0].response_length > 0
    assert ask(chat, "<video>\nWhat moves?")  # a name without a clip is ordinary text
    with pytest.raises(PlaceholderError, match="found 1 in the question"):
        ask(chat, "<video>\nWhat moves?", videos=[clip, clip])


def test_a_second_question_neither_decodes_nor_encodes(chat: ChatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """And gives what a model without memory gives."""
    processor, tower = chat.engine.processor, chat.engine.model.model.video_tower
    calls = []
    for owner, name in ((processor.video_processor, "_read"), (tower, "features")):
        original = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, o=original, n=name: (calls.append(n), o(*args))[1])
    chat.engine.model.model.feature_cache.clear()
    processor.pixel_cache.clear()
    clip = str(ROOT / "media" / "clip_long.mp4")
    messages = [{"role": "user", "content": "What moves?"}]
    messages += [{"role": "assistant", "content": ask(chat, "What moves?", videos=[clip])}]
    messages += [{"role": "user", "content": "Sure?"}]
    second = chat.chat(messages, videos=[clip])[0].response_text
    assert "".join(chat.stream_chat(messages, videos=[clip])).strip() == second.strip()
    assert calls == ["_read", "features"]
    monkeypatch.setattr(processor, "pixel_cache", None)
    monkeypatch.setattr(chat.engine.model.model, "feature_cache", None)
    assert chat.chat(messages, videos=[clip])[0].response_text == second


def test_the_engine_lives_on_after_an_error(chat: ChatModel) -> None:
    """In the host, an error in the generating thread of a streamed answer blocks every later question for ever."""
    clip = media_path("clip_short")
    for media in ([clip] * 11, ["nowhere.mp4"]):
        question = [{"role": "user", "content": "What?"}]
        with pytest.raises(HoundError):
            list(chat.stream_chat(question, videos=media))
        with pytest.raises(HoundError):
            chat.chat(question, videos=media)

    def failing(*args: Any) -> None:
        raise RuntimeError("out of memory")

    hook = chat.engine.model.lm_head.register_forward_pre_hook(failing)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(chat.stream_chat([{"role": "user", "content": "What?"}]))
    hook.remove()
    assert list(chat.stream_chat([{"role": "user", "content": "What?"}]))


def test_role_names_end_an_answer(chat: ChatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that goes on to play both parts: its head is made to say " A dog. USER: And" whatever is asked."""
    tokenizer = chat.engine.tokenizer
    script = tokenizer("A dog. USER: And what then? ASSISTANT: It", add_special_tokens=False)["input_ids"]
    question = [{"role": "user", "content": "What?"}]
    spoken: list[int] = []

    def say(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        forced = torch.full_like(output, -1e9)
        forced[..., script[min(len(spoken), len(script) - 1)]] = 0.0
        spoken.append(1)
        return forced

    hook = chat.engine.model.lm_head.register_forward_hook(say)
    response = chat.chat(question)[0]
    assert (response.response_text.strip(), response.finish_reason) == ("A dog.", "stop")
    assert len(spoken) < len(script)
    spoken.clear()
    assert "".join(chat.stream_chat(question)).strip() == "A dog."
    hook.remove()


def test_a_temperature_means_sampling(chat: ChatModel) -> None:
    """Where the recipe is greedy, as this one is, the host would leave it without effect."""
    question = [{"role": "user", "content": "What moves?"}]

    def answers(**options: Any) -> set[str]:
        plain = {chat.chat(question, **options)[0].response_text.strip() for _ in range(3)}
        return plain | {"".join(chat.stream_chat(question, **options)).strip()}

    greedy = answers()
    assert len(greedy) == 1
    assert answers(temperature=0.0, do_sample=True) == answers(temperature=1e-308) == greedy
    assert len(answers(temperature=1.0, top_p=1.0)) > 1
    for ask in (chat.chat, lambda *args, **options: list(chat.stream_chat(*args, **options))):
        with pytest.raises(SettingsError, match="do_sample: expected true with temperature"):
            ask(question, temperature=0.5, do_sample=False)
        with pytest.raises(SettingsError, match="temperature: expected 0 or more, got -1"):
            ask(question, temperature=-1.0)
