"""Reasoning in the text of an answer: found whichever way a model marks it, and nowhere else."""

from __future__ import annotations

import pytest

from hound_plugin.llm.reasoning import has_reasoning, without_end
from hound_plugin.llm.sampling_server import SamplingPrompt

WITH = [
    "<think>Is it a dog?</think>\n\nA dog.",
    "Is it a dog?\n</think>\n\nA dog.",
    "\n<thinking>\nIt may be",
    "[THINK]Is it?[/THINK]A dog.",
    "◁think▷Is it?◁/think▷A dog.",
    "<|channel|>analysis<|message|>Is it?<|end|><|start|>assistant<|channel|>final<|message|>A dog.",
    "<|channel|>final<|message|>A dog.",
    "<|START_THINKING|>Is it?<|END_THINKING|>A dog.",
    "Well.<seed:think>Is it?</seed:think>A dog.",
]
WITHOUT = [
    "A dog.",
    "A man sits [thinking] by the sea.",
    "He says: I think it is <b>red</b>.",
    "The sign says <think> in white letters.",
    "Analysis: the ball moves left, </b> and stops.",
    "reasoning",
]


@pytest.mark.parametrize("text", WITH)
def test_an_answer_with_reasoning_in_it_is_none(text: str) -> None:
    prompt = SamplingPrompt("none")
    assert has_reasoning(text)
    assert prompt.parse(text) is None
    assert "reasoning in it; start the server so that it sends that apart" in prompt.why_missing(text)


@pytest.mark.parametrize("text", WITHOUT)
def test_other_texts_are_answers(text: str) -> None:
    assert SamplingPrompt("none").parse(f" {text}\n") == text
    assert SamplingPrompt("none").why_missing("  ") == "it is empty"


ENDS = ["</s>", "<|im_end|>", "<|eot_id|>\n", "<end_of_turn>", " <|endoftext|><|im_end|>", "<eos>"]


@pytest.mark.parametrize("end", ENDS)
def test_tokens_that_leaked_at_the_end_are_not_part_of_an_answer(end: str) -> None:
    """A judge, a training and an exact match would take them for words."""
    assert SamplingPrompt("none").parse(f" It moves < 5 m | s.{end}") == "It moves < 5 m | s."
    assert without_end(f"A dog.{end}") == "A dog."


@pytest.mark.parametrize("text", ["A dog.", "A dog.\n", "", "x <b>", "a | b |"])
def test_texts_without_such_tokens_stay_as_they_are(text: str) -> None:
    assert without_end(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "A dog.<|im_end|>\n<|im_start|>user\nAnd then?", "A dog.</s> USER: And then?",
        "A dog.<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nA cat.",
    ],
)  # fmt: skip
def test_an_answer_with_another_turn_in_it_is_none(text: str) -> None:
    prompt = SamplingPrompt("none")
    assert prompt.parse(text) is None
    assert "a token of a chat template, in it: the model wrote on" in prompt.why_missing(text)
