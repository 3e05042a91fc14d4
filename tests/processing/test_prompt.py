"""Tokens and labels against the recordings of the original, and what it masks or breaks by accident."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoTokenizer

from hound_plugin.errors import PlaceholderError
from hound_plugin.processing.chat_template import CHAT_TEMPLATE, chat_template
from hound_plugin.processing.prompt import (
    SYSTEM,
    Turn,
    add_placeholder_tokens,
    encode_conversation,
    expand_prompt,
    normalise_question,
    shield,
)
from tests.goldens import IMAGE_ID, SFT, VIDEO_ID, load_json

CONVERSATIONS = load_json("b_sft_tokenization.json")
PAIRS = load_json("b_dpo_tokenization.json")
PROMPTS = load_json("b_inference_prompt_ids.json")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    tokenizer = AutoTokenizer.from_pretrained(SFT)
    add_placeholder_tokens(tokenizer, 2000)
    return tokenizer


def flat(tokenizer: Any, turns: list[Turn]) -> tuple[list[int], list[int]]:
    """Ids with the original's placeholder ids, and labels."""
    names = {tokenizer.convert_tokens_to_ids("<image>"): IMAGE_ID, tokenizer.convert_tokens_to_ids("<video>"): VIDEO_ID}
    ids: list[int] = []
    labels: list[int] = []
    for source, target in encode_conversation(tokenizer, turns):
        ids += source + target
        labels += [-100] * len(source) + target
    return [names.get(token, token) for token in ids], labels


def turns_of(conversation: list[dict[str, str]]) -> list[Turn]:
    texts = [turn["value"] for turn in conversation if turn is not conversation[0] or turn["from"] == "human"]
    return [Turn(question, answer) for question, answer in zip(texts[0::2], texts[1::2], strict=True)]


@pytest.mark.parametrize("case", CONVERSATIONS, ids=lambda case: case["name"])
def test_sft_conversations_have_the_recorded_tokens(case: dict[str, Any], tokenizer: Any) -> None:
    ids, labels = flat(tokenizer, turns_of(case["normalized"]))
    if case["name"] == "answer_contains_eos_text":  # the original parses it as a control token; corrected
        assert tokenizer.eos_token_id not in ids[:-1]
        return
    assert ids == case["input_ids"]
    if case["printed"] and case["name"] != "video_empty_answer":  # masked by accident; corrected
        assert tokenizer.decode([label for label in labels if label != -100]).startswith(
            case["normalized"][-1]["value"].split()[0]
        )
    else:
        assert labels == case["labels"]


@pytest.mark.parametrize("side", ["chosen", "rejected"])
@pytest.mark.parametrize("case", PAIRS, ids=lambda case: case["id"])
def test_pairs_have_the_recorded_tokens(case: dict[str, Any], side: str, tokenizer: Any) -> None:
    question = case["prompt_normalized"]
    head, _, rest = question.partition("\n")
    ids, labels = flat(tokenizer, [Turn(head + "\n" + shield(rest, "<image>"), case[side])])
    assert ids == case[f"{side}_input_ids"]
    if not (case["printed"] and case[side].find(" ASSISTANT: ") >= 0):  # masked by accident; corrected
        assert labels == case[f"{side}_labels"]


@pytest.mark.parametrize("case", PROMPTS, ids=lambda case: f"{case['modal_type']} {case['question']!r}")
def test_prompts_have_the_recorded_tokens(case: dict[str, Any], tokenizer: Any) -> None:
    question = case["question"]
    if "<video>" in question or "<image>" in question:
        question = question.replace("<video>", "").replace("<image>", "").strip()
    token = {"VIDEO": "<video>\n", "IMAGE": "<image>\n"}.get(case["modal_type"], "")
    ids, labels = flat(tokenizer, [Turn(token + question)])
    assert ids == case["input_ids"]
    assert set(labels) == {-100}


@pytest.mark.parametrize("case", [case for case in CONVERSATIONS if case["has_X"]], ids=lambda case: case["name"])
def test_questions_are_normalised_as_recorded(case: dict[str, Any]) -> None:
    token = f"<{case['has_X']}>"
    for given, expected in zip(case["conversations"], case["normalized"], strict=True):
        if given["from"] == "human":
            assert normalise_question(given["value"], (token,)) == expected["value"]


@pytest.mark.parametrize("literal", ["</s>", "<video>", "<image>", "<s>", "<unk>"])
@pytest.mark.parametrize("text", ["{}", "say {} twice {}", "ends with {}", "{} begins", "a{}b", "new\n{}\nline"])
def test_control_tokens_in_a_text_are_ordinary_characters(literal: str, text: str, tokenizer: Any) -> None:
    answer = text.format(literal, literal)
    for turns in ([Turn("Q?", answer)], [Turn("Q?", "A."), Turn(shield("Q " + literal, literal), answer)]):
        pairs = encode_conversation(tokenizer, turns)
        target = pairs[-1][1]
        control = {0, 1, 2, 2000, 2001}
        assert not control & set(target[:-1])
        assert target[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(target[:-1]).strip() == answer.strip()
        assert not control - {1} & set(pairs[-1][0])


def test_whole_prompts_are_encoded_chunk_by_chunk(tokenizer: Any) -> None:
    (source, _), *_ = encode_conversation(tokenizer, [Turn("<video>\nWhat moves?")])
    text = f"{SYSTEM} USER: <video>\nWhat moves? ASSISTANT:"
    ids = expand_prompt(tokenizer, text, {"<video>": [1], "<image>": []}).ids
    assert ids == source
    many = expand_prompt(tokenizer, "USER: <video>\n<image>\nQ", {"<video>": [3], "<image>": [2]}).ids
    assert many.count(2001) == 3
    assert many.count(2000) == 2


def test_the_chat_template_gives_the_same_tokens(tokenizer: Any) -> None:
    messages = [
        {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "How many?"}]},
        {"role": "assistant", "content": "Three."},
        {"role": "user", "content": "Sure?"},
    ]
    text = tokenizer.apply_chat_template(messages, chat_template=CHAT_TEMPLATE, tokenize=False)
    ids = expand_prompt(tokenizer, text, {"<video>": [1], "<image>": []}).ids
    pairs = encode_conversation(tokenizer, [Turn("<video>\nHow many?", "Three."), Turn("Sure?")])
    assert ids == [token for pair in pairs for side in pair for token in side]


@pytest.mark.parametrize("system", ["Be brief.", 'Say "yes" {{ 1 }}\n{% if %}', "Café 中 😀 \\n", ""])
def test_the_chat_template_takes_any_system_prompt(tokenizer: Any, system: str) -> None:
    """As the template's own, in a message of text, and in one of parts."""
    question = {"role": "user", "content": "Q?"}
    given = [{"role": "system", "content": system}, question]
    parts = [{"role": "system", "content": [{"type": "text", "text": system}]}, question]
    expected = f"<s>{system} USER: Q? ASSISTANT:" if system else "<s>USER: Q? ASSISTANT:"
    own = chat_template(system)
    for messages, template in (([question], own), (given, own if not system else CHAT_TEMPLATE), (parts, own)):
        assert tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False) == expected


def test_a_placeholder_without_a_clip_is_refused(tokenizer: Any) -> None:
    with pytest.raises(PlaceholderError, match=r"has 2 <video> placeholder\(s\) for 1 item"):
        expand_prompt(tokenizer, "<video> and <video>", {"<video>": [8], "<image>": []})


def test_a_short_tokenizer_is_filled_up_to_the_vocabulary() -> None:
    tokenizer = AutoTokenizer.from_pretrained(SFT)
    assert add_placeholder_tokens(tokenizer, 2016) == (2016, 2017)
    assert add_placeholder_tokens(tokenizer, 2016) == (2016, 2017)
