"""The same prompt tokens, features, answers and log-probabilities in vLLM as by this package."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hound_plugin.processing.prompt import SYSTEM
from tests.vllm.conftest import FEATURES, LOG_PROBS, Demo
from tests.vllm.conversations import conversations, ids_of_ours, log_probs_of
from tests.vllm.recording import greedy_tokens

ANSWER = 24  # tokens


def ids_of(
    engine: Any, messages: list[dict[str, Any]], answer: int = 1, **settings: Any
) -> tuple[list[int], list[int]]:
    """The prompt's tokens as vLLM's engine gets them, and those of its greedy answer."""
    from vllm import SamplingParams

    greedy = SamplingParams(temperature=0, max_tokens=answer)
    (output,) = engine._llm.chat(messages, greedy, use_tqdm=False, **settings)
    return list(output.prompt_token_ids), list(output.outputs[0].token_ids)


@pytest.mark.parametrize("case", [
    "text alone", "a clip", "an image", "a clip behind its question", "two clips", "a clip and an image",
    "several turns", "control tokens as text",
])  # fmt: skip
def test_the_same_prompt_tokens_and_answer(case: str, demo: Demo, ours: Any, engine: Any) -> None:
    messages = conversations(demo)[case]
    assert ids_of(engine, messages, ANSWER) == ids_of_ours(ours, messages, ANSWER)


def test_an_answer_that_goes_on(demo: Demo, ours: Any, engine: Any) -> None:
    messages = [*conversations(demo)["a clip"], {"role": "assistant", "content": "A red"}]
    settings = {"continue_final_message": True}
    expected = ours.processor.apply_chat_template(messages, tokenize=True, return_tensors=None, **settings)
    prompt, _ = ids_of(engine, messages, add_generation_prompt=False, **settings)
    assert prompt == expected[0]


def test_a_prompt_as_text(demo: Demo, ours: Any, engine: Any) -> None:
    from vllm import SamplingParams

    clip = demo.clip(demo.rows[0])
    text = f"{SYSTEM} USER: <video>\nWhat moves? ASSISTANT:"
    request = {"prompt": text, "multi_modal_data": {"video": clip}}
    (output,) = engine._llm.generate([request], SamplingParams(max_tokens=1), use_tqdm=False)
    assert list(output.prompt_token_ids) == ours.processor(text=text, videos=clip)["input_ids"][0].tolist()


def test_the_same_features(demo: Demo, ours: Any, engine: Any) -> None:
    clip = ours.processor.read_video(next(demo.clip(row) for row in demo.rows if "video" in row))
    image = ours.processor.read_image(next(demo.clip(row) for row in demo.rows if "image" in row))
    with torch.inference_mode():
        expected = {
            "pixel_values_videos": ours.model.get_video_features(clip[None])[0],
            "pixel_values_images": ours.model.get_image_features(image[None])[0],
        }
        for name, pixels in (("pixel_values_videos", clip), ("pixel_values_images", image)):
            ((theirs,),) = engine._llm.apply_model(
                lambda model, name=name, pixels=pixels: model.embed_multimodal(**{name: pixels[None]})
            )
            difference = (theirs - expected[name]).abs()
            assert difference.max() <= FEATURES, f"{name}: {difference.max():.2e}, mean {difference.mean():.2e}"
            assert expected[name].std() > 0.01


def test_the_same_answers_token_by_token(demo: Demo, ours: Any, engine: Any) -> None:
    from vllm import SamplingParams

    requests = []
    for (question, clip), shown in zip(demo.asked, engine._read([clip for _, clip in demo.asked]), strict=True):
        prompt = engine._prompt(question, clip, shown, ANSWER)
        requests.append({"prompt_token_ids": prompt.ids, "multi_modal_data": {prompt.kind: [prompt.media]}})
    outputs = engine._llm.generate(requests, SamplingParams(temperature=0, max_tokens=ANSWER), use_tqdm=False)
    different = {}
    for number, ((question, clip), output) in enumerate(zip(demo.asked, outputs, strict=True)):
        ids, expected = greedy_tokens(ours, question, clip, ANSWER)
        assert list(output.prompt_token_ids) == ids
        if list(output.outputs[0].token_ids) != expected:
            different[number] = (list(output.outputs[0].token_ids), expected)
    assert not different, f"{len(different)} of {len(requests)}: {dict(list(different.items())[:3])}"
    assert len({tuple(output.outputs[0].token_ids) for output in outputs}) > 5


def test_the_same_texts(demo: Demo, ours: Any, engine: Any) -> None:
    asked = demo.asked[:32]
    answers = engine.answer(asked, [[0]] * len(asked), temperature=0.0, max_new_tokens=ANSWER)
    expected = ours.chat_many(*map(list, zip(*asked, strict=True)), do_sample=False, max_new_tokens=ANSWER)
    assert [own[0].text for own in answers] == expected


def test_the_same_log_probabilities_of_given_answers(demo: Demo, ours: Any, engine: Any) -> None:
    items = [(q, f"The {word} shape moves, then it stops.", clip) for (q, clip), word in zip(
        demo.asked[:12], ("red", "blue", "green") * 4, strict=True
    )]  # fmt: skip
    difference = (torch.tensor(log_probs_of(engine, items)) - ours.log_probs(items)).abs()
    assert difference.max() <= LOG_PROBS, f"{difference.max():.2e}, mean {difference.mean():.2e}"
