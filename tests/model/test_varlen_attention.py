"""Packed rows as sequences of flash attention: the arithmetic, on a CPU, with a plain function for flash-attn's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hound_plugin.model import shared_attention, varlen_attention
from hound_plugin.model.packed_rows import PADDING, PROMPT
from hound_plugin.model.shared_attention import answers_mask, shared_prompt_attention
from hound_plugin.model.varlen_attention import PackedSequences
from tests.model.test_shared_prompts import CASES, batch_of, model, separate, shared  # noqa: F401  (a fixture)
from tests.model.varlen import flash_attn_varlen_func

SEGMENTS = torch.tensor(
    [
        [0, 0, 0, 0, 1, 1, 2, 2, 2, 3],
        [0, 0, -1, -1, 1, 1, 1, 2, -1, -1],
        [-1, -1, -1, -1, 1, 1, 1, 1, 1, -1],
    ]
)
LAYER = SimpleNamespace(config=SimpleNamespace())


@pytest.fixture
def flash(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a GPU and flash-attn, as far as this package asks."""
    monkeypatch.setattr(varlen_attention, "varlen_function", lambda: flash_attn_varlen_func)
    monkeypatch.setattr(shared_attention, "takes_sequences", lambda config, device: True)


def test_sequences_of_packed_rows() -> None:
    sequences = PackedSequences.of(SEGMENTS, PROMPT, PADDING)
    assert sequences.queries.tolist() == [*range(10), 10, 11, 14, 15, 16, 17, 24, 25, 26, 27, 28]
    assert sequences.query_bounds.tolist() == [0, 4, 6, 9, 10, 12, 15, 16, 21]
    prompt, short = [0, 1, 2, 3], [10, 11]
    keys = [prompt, [*prompt, 4, 5], [*prompt, 6, 7, 8], [*prompt, 9], short, [*short, 14, 15, 16], [*short, 17]]
    assert sequences.keys.tolist() == [*(key for part in keys for key in part), 24, 25, 26, 27, 28]
    assert sequences.key_bounds.tolist() == [0, 4, 10, 17, 22, 24, 29, 32, 37]
    assert sequences.longest == (5, 7)


@pytest.mark.parametrize("key_heads", [4, 2, 1])
def test_attention_is_that_of_the_mask(key_heads: int, flash: None) -> None:
    """Outputs and gradients, in float64; padding gets zeros."""
    draw = torch.Generator().manual_seed(5)

    def heads(number: int) -> torch.Tensor:
        return torch.randn(3, number, 10, 6, generator=draw, dtype=torch.float64, requires_grad=True)

    parts = heads(4), heads(key_heads), heads(key_heads)
    attended = SEGMENTS != PADDING
    weights = torch.randn(3, 10, 4, 6, generator=draw, dtype=torch.float64) * attended[:, :, None, None]
    sequences = PackedSequences.of(SEGMENTS, PROMPT, PADDING)
    results = []
    for mask, given in ((answers_mask(SEGMENTS, 4), None), (None, sequences)):
        output, _ = shared_prompt_attention(LAYER, *parts, mask, scaling=0.3, prompt_width=4, sequences=given)
        results.append((output[attended], *torch.autograd.grad((output * weights).sum(), parts)))
        assert given is None or not output[~attended].any()
    torch.testing.assert_close(results[1], results[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_a_model_with_sequences_gives_what_separate_rows_give(name: str, model: Any, flash: None) -> None:  # noqa: F811
    rows, groups, _ = CASES[name](model)
    batch = batch_of(rows, model, "right")
    torch.testing.assert_close(shared(model, batch, groups), separate(model, batch), rtol=2e-6, atol=2e-6)


def test_gradients_of_a_model_with_sequences(model: Any, flash: None) -> None:  # noqa: F811
    rows, groups, _ = CASES["pairs of unequal prompts"](model)
    batch = batch_of(rows, model, "right")
    gradients = []
    for log_probs in (separate(model, batch), shared(model, batch, groups)):
        model.zero_grad()
        log_probs.sum().backward()
        gradients.append({key: value.grad.clone() for key, value in model.named_parameters() if value.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for key in gradients[0]:
        torch.testing.assert_close(gradients[1][key], gradients[0][key], rtol=1e-4, atol=2e-5)


def test_flash_attention_is_taken_on_a_gpu_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, other = (SimpleNamespace(_attn_implementation=name) for name in ("flash_attention_2", "sdpa"))
    for installed in (True, False):
        monkeypatch.setattr(varlen_attention, "is_flash_attn_2_available", lambda installed=installed: installed)
        assert varlen_attention.takes_sequences(chosen, torch.device("cuda")) is installed
        assert not varlen_attention.takes_sequences(chosen, torch.device("cpu"))
        assert not varlen_attention.takes_sequences(other, torch.device("cuda"))
