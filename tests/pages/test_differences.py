"""Marked words are those that only one side has, and no character of a text is lost."""

from __future__ import annotations

import random

import pytest

from hound_plugin.pages.differences import LONGEST, differences


def marked(text: str, other: str) -> list[str]:
    return [piece for piece, is_marked in differences(text, other) if is_marked]


@pytest.mark.parametrize(
    ("text", "other", "expected"),
    [
        ("It moves left.", "It moves right.", ["left."]),
        ("It moves left", "it moves left.", []),
        ("A red ring, then a blue one", "A red ring", ["then a blue one"]),
        ("", "It moves", []),
        ("It moves", "", ["It moves"]),
        ("a  b\n\nc", "a c", ["b"]),
        ("...", "!!!", ["..."]),
        ("ring\u00a0two", "ring", ["two"]),
        ("蓝色 的 环", "红色 的 环", ["蓝色"]),
    ],
)
def test_only_what_the_other_lacks_is_marked(text: str, other: str, expected: list[str]) -> None:
    assert marked(text, other) == expected


def test_pieces_are_the_text() -> None:
    source = random.Random(0)
    words = ["a", "b", " ", "  ", "\n", "\t", "left,", "Left", "é", "<b>", "\u2028", ""]
    for _ in range(300):
        one, two = ("".join(source.choices(words, k=source.randrange(12))) for _ in range(2))
        assert "".join(piece for piece, _ in differences(one, two)) == one


def test_long_texts_are_not_compared() -> None:
    text = "word " * (LONGEST + 1)
    assert differences(text, "other") == [(text, False)]
