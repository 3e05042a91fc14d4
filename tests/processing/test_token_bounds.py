"""The bound must never exceed the real number of tokens, and must be near enough to it to be of use."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from hound_plugin.errors import ContextLengthError
from hound_plugin.model.configuration import LlavaHoundConfig
from hound_plugin.model.generation import context_length, refuse_overlong
from hound_plugin.processing.token_bounds import fewest_tokens
from tests.goldens import SFT


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(str(SFT))


@pytest.mark.parametrize(
    "text",
    [
        "a" * 5000,
        " " * 5000,
        "ExtendedContext " * 400,
        "</s>" * 1000,
        "<video>" * 900,
        "\ue000" * 3000,
        "日本語" * 900,
        "é\u0301\u200d" * 900,
        "\n\t" * 1500,
        "😀" * 700,
    ],
    ids=lambda text: repr(text[:6]),
)
def test_no_text_has_fewer(tokenizer: Any, text: str) -> None:
    real = len(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert real >= fewest_tokens(tokenizer, [text]) >= len(text) // 40 > 0


def test_no_mixture_has_fewer(tokenizer: Any) -> None:
    pieces, draw = list(tokenizer.get_vocab()), random.Random(7)
    longest = sorted(pieces, key=len)[-20:]
    for _ in range(50):
        text = "".join(draw.choice(draw.choice((pieces, longest))).replace("▁", " ") for _ in range(200))
        assert fewest_tokens(tokenizer, [text]) <= len(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_a_longer_token_lowers_the_bound() -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(SFT))
    before = fewest_tokens(tokenizer, ["x" * 10000])
    tokenizer.add_tokens(["x" * 100])
    assert len(tokenizer("x" * 10000, add_special_tokens=False)["input_ids"]) <= 101
    assert fewest_tokens(tokenizer, ["x" * 10000]) == 100 < before


@pytest.mark.parametrize("kind", ["words", "unknown", "stripped", "split"])
def test_tokenizers_that_merge_or_drop_characters_tell_nothing(kind: str) -> None:
    bpe = Tokenizer(models.BPE({"a": 0, "<unk>": 1}, [], unk_token="<unk>", fuse_unk=kind == "unknown"))
    inner = Tokenizer(models.WordLevel({"<unk>": 0}, "<unk>")) if kind == "words" else bpe
    if kind == "stripped":
        inner.normalizer = normalizers.Sequence([normalizers.Replace("aa", "a"), normalizers.Strip()])
    if kind == "split":
        inner.pre_tokenizer = pre_tokenizers.Whitespace()
    assert fewest_tokens(PreTrainedTokenizerFast(tokenizer_object=inner), ["a" * 9999]) == 0


def test_what_is_too_long_by_its_length(tokenizer: Any) -> None:
    config = LlavaHoundConfig.from_pretrained(str(SFT))
    context = context_length(config)
    refuse_overlong(config, tokenizer, ["a" * 1000], visual=context - 100)
    for arguments in ({"visual": context + 1}, {"turns": context + 1}, {"visual": context - 50, "turns": 1}):
        with pytest.raises(ContextLengthError, match=r"it has at least 4\d\d\d tokens"):
            refuse_overlong(config, tokenizer, ["a" * 1000], **arguments)
