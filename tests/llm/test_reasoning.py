"""Reasoning in the text of an answer: found whichever way a model marks it, and nowhere else."""

from __future__ import annotations

import pytest

from hound_plugin.llm.reasoning import has_reasoning
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
