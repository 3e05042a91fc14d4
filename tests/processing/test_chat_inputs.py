"""Chat messages to model inputs; tests/host/test_chat_messages.py compares them with the host's own encoding."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor

import hound_plugin  # noqa: F401  (registers the architecture)
from hound_plugin.errors import DataError, HoundError, MediaNotFoundError, PlaceholderError, SettingsError
from hound_plugin.processing.processor import LlavaHoundProcessor
from hound_plugin.processing.prompt import Turn, encode_conversation
from tests.goldens import SFT
from tests.processing.conversations import CLIP, CONVERSATIONS, FOLDER, FRAMES, IMAGE, answer, system, text, user

ASKED = [user({"type": "video", "path": CLIP}, text("What moves?")), answer("A disc."), user("Sure?")]


@pytest.fixture(scope="module")
def processor() -> LlavaHoundProcessor:
    return AutoProcessor.from_pretrained(SFT)


def plain(processor: LlavaHoundProcessor, messages: list[Any], **settings: Any) -> list[int]:
    (ids,) = processor.apply_chat_template(messages, tokenize=True, return_tensors=None, **settings)
    return list(ids)


def media_of(messages: list[Any]) -> dict[str, list[Any]]:
    parts = [part for message in messages if isinstance(message["content"], list) for part in message["content"]]
    shown = [(part["type"], part.get(part["type"]) or part.get("path")) for part in parts if part["type"] != "text"]
    found = {f"{kind}s": [item for name, item in shown if name == kind] for kind in ("image", "video")}
    return {kind: items for kind, items in found.items() if items}


LITERAL = ("control tokens", "a placeholder named twice", "braces")  # names of control tokens count in a ready prompt


@pytest.mark.parametrize("name", [name for name in CONVERSATIONS if name not in LITERAL])
def test_the_text_leads_to_the_same_tokens(name: str, processor: LlavaHoundProcessor) -> None:
    """As vLLM does it: first the text, then its tokens."""
    messages = CONVERSATIONS[name]
    rendered = processor.apply_chat_template(messages)
    inputs = processor(text=rendered, **media_of(messages), return_tensors=None)
    assert inputs["input_ids"] == [plain(processor, messages)]
    by_template = processor.tokenizer.apply_chat_template(
        messages, tokenize=False, chat_template=processor.chat_template
    )
    assert by_template == rendered, "the Jinja template says the same without this package"


def test_a_question_is_ready_for_its_answer(processor: LlavaHoundProcessor) -> None:
    turns = [Turn("<video>" * 392 + "\nWhat moves?", "A disc."), Turn("Sure?")]
    expected = [token for pair in encode_conversation(processor.tokenizer, turns) for side in pair for token in side]
    for settings in ({}, {"add_generation_prompt": True}):
        assert plain(processor, ASKED, **settings) == expected
        assert processor.apply_chat_template(ASKED, **settings).endswith("USER: Sure? ASSISTANT:")


@pytest.mark.parametrize("name", ["a clip", "several turns", "control tokens", "spaces around the question"])
def test_the_last_answer_may_be_continued(name: str, processor: LlavaHoundProcessor) -> None:
    messages = CONVERSATIONS[name]
    whole, begun = plain(processor, messages), plain(processor, messages, continue_final_message=True)
    assert whole == [*begun, processor.tokenizer.eos_token_id]
    rendered = processor.apply_chat_template(messages, continue_final_message=True)
    assert rendered == processor.apply_chat_template(messages).removesuffix("</s>")


def test_a_batch_is_its_conversations(processor: LlavaHoundProcessor) -> None:
    names = ["a clip", "text alone", "a clip and an image", "several turns", "a system prompt"]
    batch = [CONVERSATIONS[name] for name in names]
    inputs = processor.apply_chat_template(batch, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    alone = [
        processor.apply_chat_template(messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
        for messages in batch
    ]
    for number, single in enumerate(alone):
        length = single["input_ids"].shape[1]
        for key in ("input_ids", "attention_mask", "assistant_masks"):
            assert torch.equal(inputs[key][number, -length:], single[key][0]), (names[number], key)
            assert inputs[key].shape == inputs["input_ids"].shape
        assert inputs["attention_mask"][number].sum() == length
    videos = torch.cat([single["pixel_values_videos"] for single in alone if "pixel_values_videos" in single])
    assert torch.equal(inputs["pixel_values_videos"], videos)
    assert inputs["pixel_values_images"].shape[0] == 1
    assert processor.apply_chat_template(batch) == [processor.apply_chat_template(messages) for messages in batch]
    right = processor.apply_chat_template(
        batch, tokenize=True, return_dict=True, return_tensors="np", processor_kwargs={"padding_side": "right"}
    )
    assert isinstance(right["input_ids"], np.ndarray)
    assert right["attention_mask"][1, 0] == 1


def test_every_way_to_name_media(processor: LlavaHoundProcessor) -> None:
    frames = [Image.open(path) for path in FRAMES]
    array = np.stack([np.asarray(frame) for frame in frames])
    for parts in (
        [{"type": "video", "video": FRAMES}, {"type": "video", "video": frames}, {"type": "video", "video": array}],
        [{"type": "video", "path": FOLDER}, {"type": "video", "url": FOLDER},
         {"type": "video_url", "video_url": FOLDER}, {"type": "video_url", "video_url": {"url": FOLDER}},
         {"type": "input_video", "input_video": FOLDER}],
        [{"type": "image", "image": IMAGE}, {"type": "image", "url": IMAGE},
         {"type": "image", "image": Image.open(IMAGE)}, {"type": "image_url", "image_url": {"url": IMAGE}},
         {"type": "image", "image": np.asarray(Image.open(IMAGE))}],
    ):  # fmt: skip
        seen = []
        for part in parts:
            inputs = processor.apply_chat_template([user(part, text("What?"))], tokenize=True, return_dict=True)
            seen.append({name: value for name, value in inputs.items() if value.is_floating_point()})
            assert len(seen[-1]) == 1
        assert all(torch.equal(value, seen[0][name]) for item in seen[1:] for name, value in item.items())


def test_media_may_stand_beside_the_messages(processor: LlavaHoundProcessor) -> None:
    """As TRL's data sets have them."""
    messages = [user({"type": "video"}, text("Same?"), {"type": "video", "path": CLIP}), answer("No.")]
    named = [user({"type": "video", "video": FRAMES}, text("Same?"), {"type": "video", "path": CLIP}), answer("No.")]
    inputs = processor.apply_chat_template(
        messages, tokenize=True, return_dict=True, processor_kwargs={"videos": [FRAMES]}
    )
    expected = processor.apply_chat_template(named, tokenize=True, return_dict=True)
    assert all(torch.equal(inputs[name], expected[name]) for name in expected)
    with pytest.raises(PlaceholderError, match=r"each of 1 <video> part\(s\) that name nothing, got 0"):
        processor.apply_chat_template(messages, tokenize=True, return_dict=True)


def test_settings_of_the_call(processor: LlavaHoundProcessor) -> None:
    for settings in ({"num_frames": 16}, {"processor_kwargs": {"num_frames": 16}}):
        inputs = processor.apply_chat_template(ASKED, tokenize=True, return_dict=True, **settings)
        assert inputs["pixel_values_videos"].shape[1] == 16
        assert (inputs["input_ids"] == processor.video_token_id).sum() == 784
    padded = processor.apply_chat_template(
        [user("Hi")], tokenize=True, padding="max_length", truncation=True, max_length=100
    )
    assert padded.shape == (1, 100)
    before = copy.deepcopy(ASKED)
    processor.apply_chat_template(ASKED, tokenize=True, return_dict=True)
    assert before == ASKED


@pytest.mark.parametrize("given", ["Be brief.", 'Say "yes" {{ 1 }}', "</s> <video> <image>", "", " "])
def test_system_prompts(given: str, processor: LlavaHoundProcessor) -> None:
    from hound_plugin.processing.prompt import IMAGE_TOKEN, VIDEO_TOKEN, shield

    shielded = shield(shield(given, IMAGE_TOKEN), VIDEO_TOKEN)
    turns = [Turn("Q?", "A.")]
    pairs = encode_conversation(processor.tokenizer, turns, shielded or processor.system)
    assert plain(processor, [system(given), user("Q?"), answer("A.")]) == [*pairs[0][0], *pairs[0][1]]
    other = copy.copy(processor)
    other.tokenizer = copy.deepcopy(processor.tokenizer)
    other.set_system(given)
    own = encode_conversation(processor.tokenizer, turns, shielded)
    if "<" not in given:
        assert plain(other, [user("Q?"), answer("A.")]) == [*own[0][0], *own[0][1]]
        rendered = other.apply_chat_template([user("Q?"), answer("A.")])
        assert other(text=rendered, return_tensors=None)["input_ids"] == [[*own[0][0], *own[0][1]]]


@pytest.mark.parametrize(
    ("messages", "settings", "message"),
    [
        ([], {}, "at least one message"),
        ([system("Hm.")], {}, "a system prompt alone"),
        ([user("a"), user("b")], {}, r"messages\[1\].role: expected assistant"),
        ([answer("a")], {}, r"messages\[0\].role: expected user"),
        ([user("a"), answer("b"), system("c")], {}, r"messages\[2\].role: expected a system prompt in front"),
        ([{"role": "tool", "content": "x"}], {}, r"messages\[0\].role: expected one of"),
        ([user("a"), answer("  ")], {}, r"messages\[1\].content: expected an answer"),
        ([user({"type": "audio", "path": "x"})], {}, r"messages\[0\].content\[0\]: expected a part of type"),
        ([user("a"), {"role": "assistant", "content": [{"type": "image", "path": IMAGE}]}], {}, "media in messages of"),
        ([user({"type": "image", "path": IMAGE, "url": IMAGE})], {}, "one source of the image"),
        ([user({"type": "image", "base64": "@@"})], {}, "base64: expected Base64"),
        ([user("What does <video> mean?")], {}, r"Expected one <video> for each of the 0 item\(s\)"),
        ([user("a")], {"tools": [{}]}, "no tools"),
        ([user("a")], {"continue_final_message": True}, "expected an answer as the last message, got a question"),
        ([user("a"), answer("b")], {"add_generation_prompt": True}, "a question as the last message, got an answer"),
        (
            [user("a"), answer("b")],
            {"continue_final_message": True, "add_generation_prompt": True},
            "add_generation_prompt: expected nothing next to continue_final_message",
        ),
    ],
)
@pytest.mark.parametrize("tokenize", [True, False])
def test_what_cannot_be_honoured_is_named(
    messages: list[Any], settings: dict[str, Any], message: str, tokenize: bool, processor: LlavaHoundProcessor
) -> None:
    with pytest.raises((DataError, SettingsError), match=message):
        processor.apply_chat_template(messages, tokenize=tokenize, **settings)


def test_an_address_is_refused_by_the_media_layer(processor: LlavaHoundProcessor) -> None:
    messages = [user({"type": "video", "url": "https://example.org/clip.mp4"}, text("What?"))]
    with pytest.raises(MediaNotFoundError, match="Only local files"):
        processor.apply_chat_template(messages, tokenize=True, return_dict=True)
    assert len(plain(processor, messages)) > 392, "the tokens alone open nothing"


def test_the_template_refuses_what_was_never_trained(processor: LlavaHoundProcessor) -> None:
    for messages in ([user("a"), user("b")], [answer("a")], [user("a"), {"role": "tool", "content": "b"}]):
        with pytest.raises(Exception, match="Expected messages of user and assistant in turn"):
            processor.tokenizer.apply_chat_template(messages, tokenize=False, chat_template=processor.chat_template)


OWN = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}Q: "
    "{% for part in message['content'] %}{{ part['text'] if part['type'] == 'text' else '<' + part['type'] + '>' }}"
    "{% endfor %}{% else %}{% generation %} A: {{ message['content'][0]['text'] }}{{ eos_token }}{% endgeneration %}"
    "{% endif %}{% endfor %}"
)


def test_a_template_of_one_s_own(processor: LlavaHoundProcessor) -> None:
    messages = [user({"type": "image", "path": IMAGE}, text("What?")), answer("Red.", True)]
    rendered = processor.apply_chat_template(messages, chat_template=OWN)
    assert rendered == "<s>Q: <image>What? A: Red.</s>"
    inputs = processor.apply_chat_template(
        messages, chat_template=OWN, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    assert torch.equal(inputs["input_ids"], processor(text=rendered, images=IMAGE)["input_ids"])
    assert inputs["pixel_values_images"].shape[0] == 1
    mask = torch.as_tensor(inputs["assistant_masks"])[0].bool()
    assert processor.decode(inputs["input_ids"][0][mask]).strip() == "A: Red.</s>"


def test_errors_are_of_this_package(processor: LlavaHoundProcessor) -> None:
    messages = [user({"type": "image", "path": "/nowhere.png"})]
    with pytest.raises(HoundError, match=r"/nowhere\.png"):
        processor.apply_chat_template(messages, tokenize=True, return_dict=True)
