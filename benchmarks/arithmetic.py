"""Floating-point operations of training steps."""

from __future__ import annotations

from typing import Any


def flops(
    config: Any, passes: float, number: int, prompt: int, answer: int, shares_prompt: bool, answers_only: bool
) -> float:
    """Operations of one step on a clip's rows, without the towers and without what is computed again.

    Args:
        config: of the language model.
        passes: in units of one forward pass: 3 with its backward pass, 1 more for a reference.
        number: of answers.
        prompt, answer: tokens.
        shares_prompt: the answers share a row.
        answers_only: the head runs where labels are.
    """
    row = prompt + answer
    tokens = prompt + number * answer if shares_prompt else number * row
    labels = number * answer if answers_only else tokens
    own = answer * prompt + answer * (answer + 1) / 2
    keys = prompt * (prompt + 1) / 2 + number * own if shares_prompt else number * row * (row + 1) / 2
    layer = 4 * config.hidden_size**2 + 3 * config.hidden_size * config.intermediate_size
    forward = config.num_hidden_layers * (2 * layer * tokens + 4 * config.hidden_size * keys)
    forward += 2 * config.hidden_size * config.vocab_size * labels
    return float(forward * passes)
