"""The demo's tokenizer loads as vicuna's does and keeps the properties that the prompt relies on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from transformers import AutoTokenizer

from hound_plugin.demo.questions import PHRASINGS
from hound_plugin.demo.tokenizer import VOCAB_SIZE, write_tokenizer
from hound_plugin.processing.prompt import SYSTEM


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("demo") / "tokenizer")


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def test_files_and_special_tokens(folder: Path, tokenizer: Any) -> None:
    assert {file.name for file in folder.iterdir()} == {
        "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
    }  # fmt: skip
    assert type(tokenizer).__name__.startswith("Llama")
    assert len(tokenizer) == VOCAB_SIZE
    assert (tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert tokenizer.pad_token == "<unk>"
    assert tokenizer.padding_side == "right"
    assert tokenizer.model_max_length == 4096


def test_training_is_deterministic(folder: Path, tmp_path: Path) -> None:
    again = write_tokenizer(tmp_path / "again")
    assert all((again / file.name).read_bytes() == file.read_bytes() for file in folder.iterdir())


def test_user_is_two_pieces_behind_a_space_and_one_without(tokenizer: Any) -> None:
    assert tokenizer.tokenize("USER") == ["▁US", "ER"]
    assert tokenizer.tokenize("</s>USER: a")[:3] == ["</s>", "USER", ":"]


def test_digits_line_breaks_and_other_scripts(tokenizer: Any) -> None:
    assert tokenizer.tokenize("12\n") == ["▁", "1", "2", "<0x0A>"]
    assert tokenizer.tokenize("é") == ["▁", "<0xC3>", "<0xA9>"]
    for text in ("Wie viele? 🎬 3.5", "~`{}|\\^"):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert 0 not in ids
        assert tokenizer.decode(ids) == text


def test_prompts_are_short(tokenizer: Any) -> None:
    assert len(tokenizer.tokenize(SYSTEM)) == 29  # a piece for each word and mark
    for phrasing in (phrasing for forms in PHRASINGS.values() for phrasing in forms):
        assert len(tokenizer.tokenize("\n" + phrasing)) <= 10


def test_it_agrees_with_sentencepiece(folder: Path, tokenizer: Any) -> None:
    reference = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    for text in (SYSTEM, "USER: What colour is shown? ASSISTANT: The colour is red.", "A red ring, then é\n42"):
        assert tokenizer(text, add_special_tokens=False).input_ids == reference.encode(text)
