"""Estimates of tokens and costs, before anything is sent."""

from __future__ import annotations

import pytest

from hound_plugin.llm.prices import Price, estimate_tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 1),
        ("A dog runs to the door.", 6),
        ("一只狗跑到门口。", 8),
        ("कुत्ता दौड़ता है", 14),
        ("สุนัขวิ่งไปที่ประตู", 19),
        ("Clip 3: 一只狗。", 6),
        ("naïve", 2),
    ],
)
def test_every_script_is_counted(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == tokens


def test_a_cost_is_of_both_kinds_of_tokens() -> None:
    assert Price(input=2.0, output=10.0, batch=0.5).cost(1_000, 100) == pytest.approx(0.003)
    assert Price(input=2.0, output=10.0, batch=0.5).cost(1_000, 100, batched=True) == pytest.approx(0.0015)
