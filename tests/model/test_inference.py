"""Answers in Python: what is kept between questions, where answers end, and batches."""

from __future__ import annotations

import copy
import os
import pickle
import shutil
import threading
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import StoppingCriteriaList

import hound_plugin
from hound_plugin.errors import ContextLengthError, MediaError, SettingsError
from hound_plugin.media.decode import read_clip
from hound_plugin.media.pixel_cache import MemoryCache
from hound_plugin.model.generation import RoleStop, cut_roles, filter_roles, new_tokens
from hound_plugin.model.inference import CAPTION_QUESTION, HoundModel
from tests.goldens import ROOT, SFT
from tests.model.batches import media_path

LONG, SHORT = str(ROOT / "media" / "clip_long.mp4"), str(ROOT / "media" / "clip_short.mp4")
WIDE = str(ROOT / "media" / "img_wide.jpg")
GREEDY: dict[str, Any] = {"temperature": 0, "max_new_tokens": 12}


@pytest.fixture(scope="module")
def plain() -> HoundModel:
    return hound_plugin.load(str(SFT), device="cpu", memory=False)


@pytest.fixture
def hound() -> HoundModel:
    return hound_plugin.load(str(SFT), device="cpu")


class Counter:
    """Counts calls of a function that it replaces."""

    def __init__(self, owner: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self.sizes: list[int] = []
        original = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if args and torch.is_tensor(args[0]):
                self.sizes.append(len(args[0]))
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)


@pytest.fixture
def counters(hound: HoundModel, monkeypatch: pytest.MonkeyPatch) -> tuple[Counter, Counter]:
    """Clips read, and forward passes of the video tower."""
    return (
        Counter(hound.processor.video_processor, "_read", monkeypatch),
        Counter(hound.model.model.video_tower, "features", monkeypatch),
    )


def test_a_second_question_neither_decodes_nor_encodes(
    hound: HoundModel, plain: HoundModel, counters: tuple[Counter, Counter]
) -> None:
    read, encoded = counters
    first = hound.chat("What moves?", video=LONG, **GREEDY)
    history = [("What moves?", first)]
    second = hound.chat("Sure?", video=LONG, history=history, **GREEDY)
    streamed = "".join(hound.stream("Sure?", video=LONG, history=history, **GREEDY)).strip()
    assert (read.calls, encoded.calls) == (1, 1)
    assert first == plain.chat("What moves?", video=LONG, **GREEDY)
    assert second == streamed == plain.chat("Sure?", video=LONG, history=history, **GREEDY)


def test_logits_are_the_same_to_the_bit(hound: HoundModel, plain: HoundModel) -> None:
    logits = []
    for model in (plain, hound, hound):
        with torch.no_grad():
            logits.append(model.model(**model._inputs("What moves?", LONG, None, None)).logits)
    assert torch.equal(logits[0], logits[1])
    assert torch.equal(logits[0], logits[2])


def test_the_same_bytes_are_the_same_clip(hound: HoundModel, counters: tuple[Counter, Counter]) -> None:
    content = Path(LONG).read_bytes()
    for media in (content, BytesIO(content), content):
        hound.chat("What?", video=media, **GREEDY)
    frames = np.random.default_rng(0).integers(0, 255, (9, 64, 64, 3), dtype=np.uint8)
    for media in (frames, frames.copy()):
        hound.chat("What?", video=media, **GREEDY)
    assert (counters[0].calls, counters[1].calls) == (2, 2)


def test_a_changed_file_is_read_again(
    hound: HoundModel, plain: HoundModel, counters: tuple[Counter, Counter], tmp_path: Path
) -> None:
    """Also one of the same name, size and time of change; and a frame that is changed in its folder."""
    clip = tmp_path / "clip.mp4"
    size = max(os.path.getsize(LONG), os.path.getsize(SHORT))
    for source in (LONG, SHORT):
        clip.write_bytes(Path(source).read_bytes().ljust(size, b"\0"))
        os.utime(clip, (1, 1))
        assert hound.chat("What moves?", video=str(clip), **GREEDY) == plain.chat(
            "What moves?", video=str(clip), **GREEDY
        )
    assert counters[0].calls == 2
    folder = tmp_path / "frames"
    shutil.copytree(media_path("clip_long"), folder)
    hound.processor.read_video(str(folder))
    frame = sorted(folder.iterdir())[0]
    Image.new("RGB", Image.open(frame).size).save(frame)
    assert torch.equal(hound.processor.read_video(str(folder)), plain.processor.read_video(str(folder)))
    assert counters[0].calls == 4


def test_parts_of_a_clip_are_shown_and_kept_apart(
    hound: HoundModel, plain: HoundModel, counters: tuple[Counter, Counter], tmp_path: Path
) -> None:
    hound.processor.frame_cache = str(tmp_path)
    parts = [LONG, f"{LONG}#t=1,2", f"{LONG}#t=8", f"{LONG}#t=,0.3"]
    for _ in range(2):
        for part in parts:
            assert hound.chat("What moves?", video=part, **GREEDY) == plain.chat("What moves?", video=part, **GREEDY)
    assert counters[0].calls == 4
    assert len(list(tmp_path.rglob("*.npy"))) == 4
    shown = hound.processor(text="<video>\nWhat moves?", videos=parts[1:2])["pixel_values_videos"][0]
    frames = read_clip(LONG, num_frames=310).frames[25:50]
    assert torch.equal(shown, plain.processor.read_video(frames))


@pytest.mark.parametrize("damage", ["a bit", "another shape", "another type"])
def test_an_entry_of_the_frame_cache_that_is_damaged_is_not_shown(
    plain: HoundModel, tmp_path: Path, damage: str
) -> None:
    processor = copy.copy(plain.processor)
    processor.frame_cache = str(tmp_path)
    expected = plain.processor.read_video(LONG)
    assert torch.equal(processor.read_video(LONG), expected)
    (entry,) = tmp_path.rglob("*.npy")
    content = bytearray(entry.read_bytes())
    if damage == "a bit":
        content[-5000] ^= 1
        entry.write_bytes(content)
    else:
        with entry.open("wb") as file:
            np.save(file, np.zeros((2, 3, 4, 4), np.float32) if "shape" in damage else expected.double().numpy())
    for _ in range(2):
        assert torch.equal(processor.read_video(LONG), expected)


def test_settings_belong_to_the_key(hound: HoundModel, plain: HoundModel) -> None:
    other = copy.copy(plain.processor)
    for name, value in (("num_frames", 16), ("frame_sampling", "first_10s"), ("num_frames", 8)):
        for processor in (hound.processor, other):
            processor.read_video(LONG)
            setattr(processor, name, value)
        assert torch.equal(hound.processor.read_video(LONG), other.read_video(LONG))
    padded = hound.processor.read_image(WIDE)
    hound.processor.image_aspect_ratio = None if hound.processor.image_aspect_ratio else "pad"
    assert not torch.equal(hound.processor.read_image(WIDE), padded)


def _scale_data(hound: HoundModel) -> None:
    next(hound.model.model.video_tower.parameters()).data.mul_(1.5)


def _scale_projector(hound: HoundModel) -> None:
    with torch.no_grad():
        next(hound.model.model.multi_modal_projector.parameters()).mul_(1.5)


def _load_others(hound: HoundModel) -> None:
    state = {name: value * 0.5 for name, value in hound.model.state_dict().items() if "video_tower" in name}
    hound.model.load_state_dict(state, strict=False)


@pytest.mark.parametrize("change", [_scale_data, _scale_projector, _load_others])
def test_changed_weights_are_not_answered_from_memory(change: Any, hound: HoundModel) -> None:
    pixels = hound.processor.read_video(LONG)[None]
    with torch.no_grad():
        before = hound.model.get_video_features(pixels)
        change(hound)
        after = hound.model.get_video_features(pixels)
        hound.model.model.feature_cache = None
        assert torch.equal(after, hound.model.get_video_features(pixels))
    assert not torch.equal(before, after)


def test_adapters_are_not_answered_from_memory(hound: HoundModel) -> None:
    """On, off, and merged: each state has its own features."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    pixels = hound.processor.read_video(LONG)[None]
    composite = hound.model.model
    config = LoraConfig(r=2, target_modules=r".*video_tower.*\.(q_proj|v_proj)", init_lora_weights=False)
    states = []
    with torch.no_grad():
        states.append(composite.get_video_features(pixels))
        adapted = get_peft_model(hound.model, config).eval()
        states.append(composite.get_video_features(pixels))
        with adapted.disable_adapter():
            assert torch.equal(composite.get_video_features(pixels), states[0])
        adapted.merge_adapter()
        merged = composite.get_video_features(pixels)
        composite.feature_cache = None
        assert torch.equal(merged, composite.get_video_features(pixels))
    assert not torch.allclose(states[0], states[1], atol=1e-4)


def test_training_does_not_use_it(hound: HoundModel) -> None:
    memory = hound.model.model.feature_cache
    assert memory is not None
    pixels = hound.processor.read_video(LONG)[None]
    hound.model.get_video_features(pixels)  # with gradients
    hound.model.train()
    with torch.no_grad():
        hound.model.get_video_features(pixels)
    assert len(memory) == 0
    hound.model.eval()
    with torch.no_grad():
        hound.model.get_video_features(pixels)
    assert len(memory) == 1


def test_a_model_that_was_loaded_otherwise_keeps_nothing() -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    assert AutoModelForImageTextToText.from_pretrained(SFT).model.feature_cache is None
    assert AutoProcessor.from_pretrained(SFT).pixel_cache is None


def test_memory_is_bounded_and_copies_are_empty(hound: HoundModel) -> None:
    memory = MemoryCache(limit=1000)
    for number in range(20):
        memory.put(number, torch.zeros(25))  # 100 bytes
        memory.get(0)  # the one in use stays
    assert len(memory) == 10
    assert memory.size == 1000
    assert memory.get(0) is not None
    assert memory.get(1) is None
    memory.put("large", torch.zeros(1000))
    assert memory.get("large") is None
    memory.put(0, torch.zeros(50))
    assert memory.size <= 1000
    hound.chat("What?", video=LONG, **GREEDY)
    twin = copy.deepcopy(hound.model)
    assert len(twin.model.feature_cache) == 0
    assert len(pickle.loads(pickle.dumps(hound.processor.pixel_cache))) == 0


def test_a_failed_reading_is_not_kept(hound: HoundModel, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_text("no clip")
    for _ in range(2):
        with pytest.raises(MediaError):
            hound.chat("What?", video=str(clip))
    shutil.copy(LONG, clip)
    assert hound.chat("What?", video=str(clip), **GREEDY)


def test_many_questions_are_one_batch(
    hound: HoundModel, plain: HoundModel, counters: tuple[Counter, Counter], monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = ["What moves?", "Is it long?", "What is on the picture?", "Hello, who are you?", "And the other?"]
    media = [LONG, LONG, WIDE, None, SHORT]
    generated = Counter(hound.model, "generate", monkeypatch)
    passes: list[tuple[int, ...]] = []
    hook = hound.model.lm_head.register_forward_hook(lambda module, args, output: passes.append(tuple(output.shape)))
    answers = hound.chat_many(questions, media, **GREEDY)
    hook.remove()
    assert generated.calls == 1
    assert {shape[0] for shape in passes} == {5}
    assert len(passes) <= GREEDY["max_new_tokens"]
    assert counters[0].calls == 2
    single = [
        plain.chat(question, **{"image" if item == WIDE else "video": item}, **GREEDY)
        for question, item in zip(questions, media, strict=True)
    ]
    assert answers == single


def test_many_questions_and_their_clips_go_together(hound: HoundModel) -> None:
    options = {"temperature": 0, "max_new_tokens": 4}
    assert hound.chat_many([]) == []
    assert hound.chat_many(["Hello", "Why?"], **options) == [hound.chat(text, **options) for text in ("Hello", "Why?")]
    with pytest.raises(SettingsError, match=r"as many clips .* got 1 and 2"):
        hound.chat_many(["What moves?"], [media_path("clip_long"), None])
    with pytest.raises(SettingsError, match="got a single text and a single text"):
        hound.chat_many("What moves?", media_path("clip_long"))


def test_it_is_known_which_answers_were_cut(hound: HoundModel) -> None:
    """At the limit, at the end of the context, at `</s>` before either, and where a role's name ends an answer."""
    questions = ["Hello", "Why?"]
    batch = hound.batch([(question, "", None) for question in questions], "left")
    batch.pop("labels")
    prompt = batch["input_ids"].shape[1]
    one, two = hound.model.generate(**batch, do_sample=False, max_new_tokens=6)[:, prompt:].tolist()
    end = next(token for token in one if token not in two)
    options = {"do_sample": False, "max_new_tokens": 6}
    assert [answer.finish for answer in hound.answer_many(questions, **options)] == ["length", "length"]
    answers = hound.answer_many(questions, eos_token_id=end, **options)
    assert [answer.finish for answer in answers] == ["stop", "length"]
    assert [answer.text for answer in answers] == hound.chat_many(questions, eos_token_id=end, **options)
    at_limit = hound.answer_many(questions[:1], eos_token_id=end, do_sample=False, max_new_tokens=one.index(end) + 1)
    assert at_limit[0].finish == "stop"
    text = hound.model.config.get_text_config()
    text.max_position_embeddings = prompt + 3
    assert [answer.finish for answer in hound.answer_many(questions, **options)] == ["length", "length"]


@pytest.mark.parametrize(
    "history", [[{"role": "user", "content": "x"}], [("a", None)], "abc", [("a", "b", "c")]], ids=str
)
def test_a_history_is_pairs_of_texts(hound: HoundModel, history: Any) -> None:
    """A message in OpenAI's form would be unpacked to its keys."""
    with pytest.raises(SettingsError, match=r"\(question, answer\) pairs of texts"):
        hound.chat("And?", history=history)


def test_a_history_may_be_an_iterator(hound: HoundModel) -> None:
    options = {"temperature": 0, "max_new_tokens": 4}
    pairs = [("What moves?", "A dog."), ("Where?", "There.")]
    assert hound.chat("And?", history=iter(pairs), **options) == hound.chat("And?", history=pairs, **options)


@pytest.mark.parametrize(
    ("question", "options", "message"),
    [
        (None, {}, "question as text, got NoneType"),
        ("Why?", {"temperature": -1}, "0 or more, got -1"),
        ("Why?", {"temperature": 0.5, "do_sample": False}, "do_sample: expected true with temperature 0.5"),
        ("Why?", {"temperature": float("nan")}, "0 or more, got nan"),
        ("Why?", {"max_new_tokens": 0}, "at least 1, got 0"),
    ],
)
def test_what_cannot_be_asked(hound: HoundModel, question: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        hound.chat(question, **options)
    with pytest.raises(SettingsError, match=message):
        hound.chat_many([question], **options)


def test_captions(hound: HoundModel) -> None:
    assert hound.caption(LONG, max_new_tokens=12) == hound.chat(CAPTION_QUESTION, video=LONG, **GREEDY)
    assert hound.caption(image=WIDE, question="Short?", max_new_tokens=12) == hound.chat("Short?", image=WIDE, **GREEDY)
    with pytest.raises(SettingsError, match="got neither"):
        hound.caption()


# --- where answers end


def test_an_answer_stays_within_the_context(hound: HoundModel) -> None:
    """The tiny model knows no end of its own: it goes on until the context is full."""
    hound.model.config.text_config.max_position_embeddings = 480
    inputs = hound._inputs("What moves?", LONG, None, None)
    prompt = inputs["input_ids"].shape[1]
    assert hound._generation({"max_new_tokens": 1000, "temperature": 0}, prompt)["max_new_tokens"] == 480 - prompt
    output = hound.model.generate(
        **inputs, **hound._generation({"max_new_tokens": 1000, "temperature": 0}, prompt), min_new_tokens=480 - prompt
    )
    assert output.shape[1] == 480


def test_what_no_longer_fits_is_told_before_a_clip_is_opened(
    hound: HoundModel, counters: tuple[Counter, Counter]
) -> None:
    hound.model.config.text_config.max_position_embeddings = 400  # a clip takes 392
    for attempt in (
        lambda: hound.chat("What moves?", video=LONG),
        lambda: hound.stream("What moves?", video=LONG),
        lambda: hound.chat_many(["What moves?"], [LONG]),
        lambda: hound.log_probs([("What moves?", "A dog.", LONG)]),
    ):
        with pytest.raises(ContextLengthError, match=r"no longer fits: it has \d+ tokens.* holds 400"):
            attempt()
    assert counters[1].calls == 0


def test_new_tokens() -> None:
    config = hound_plugin.LlavaHoundConfig()
    context = config.get_text_config().max_position_embeddings
    assert new_tokens(config, context - 1, 512) == 1
    assert new_tokens(config, 10, 5) == 5
    assert new_tokens(config, 10) == context - 10
    assert new_tokens(config, context, at_least=0) == 0
    with pytest.raises(ContextLengthError):
        new_tokens(config, context)


TEXTS = {
    "A dog. USER: And?": "A dog.",
    "A dog.\nASSISTANT: It": "A dog.",
    "USER: again": "",
    "The MAIN USERS: all of them": "The MAIN USERS: all of them",
    "It says SUPERUSER: no": "It says SUPERUSER: no",
    "A USER sees": "A USER sees",
    "SUPERUSER: x USER: y": "SUPERUSER: x",
    "ends with US": "ends with US",
    "": "",
    "spaces  \n ": "spaces  \n ",
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
def test_role_names_are_cut(text: str, size: int) -> None:
    assert cut_roles(text) == TEXTS[text]
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    assert "".join(filter_roles(pieces)) == TEXTS[text]


def test_generation_ends_at_a_role_name(hound: HoundModel) -> None:
    tokenizer = hound.processor.tokenizer
    prompt = tokenizer("USER: Hello ASSISTANT:", return_tensors="pt")["input_ids"]
    stop = StoppingCriteriaList([RoleStop(tokenizer, prompt.shape[1])])

    def ended(answer: str) -> bool:
        ids = tokenizer(answer, add_special_tokens=False, return_tensors="pt")["input_ids"]
        return bool(stop(torch.cat([prompt, ids], dim=1), None)[0])  # type: ignore[arg-type]

    assert not ended("A dog.")
    assert ended("A dog. USER:")
    assert ended("A long answer " * 20 + "USER:")
    assert not ended("A long answer " * 20 + "SUPERUSER:")


def test_a_stream_hands_errors_on_and_ends_with_its_reader(hound: HoundModel) -> None:
    steps: list[int] = []
    counting = hound.model.lm_head.register_forward_hook(lambda *args: steps.append(1))
    reader: Any = hound.stream("What?", temperature=0, max_new_tokens=2000, min_new_tokens=2000)
    next(reader)
    reader.close()
    deadline = time.monotonic() + 30
    while any(thread.name == "generate" for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "the generation goes on without a reader"
        time.sleep(0.01)
    assert 0 < len(steps) < 2000
    counting.remove()

    def failing(*args: Any) -> None:
        raise RuntimeError("out of memory")

    hound.model.lm_head.register_forward_pre_hook(failing)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(hound.stream("What?", temperature=0))
