"""A small LLaMA-style tokenizer for the demo, in the files that vicuna's folder has.

SentencePiece BPE with byte fallback, identity normalisation and a leading "▁", <unk> = 0, <s> = 1, </s> = 2 and no
padding piece. It keeps the property that the original's label mask relies on: "▁USER" is the two pieces "▁US" and
"ER", while "USER" is one piece.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

from hound_plugin.demo.clips import COLOURS, DIRECTIONS, SHAPES
from hound_plugin.demo.questions import NUMBERS, PHRASINGS, SENTENCES
from hound_plugin.processing.prompt import SYSTEM
from hound_plugin.records.files import write_whole

VOCAB_SIZE = 768
MODEL_MAX_LENGTH = 4096

# Every printable ASCII character is a piece of its own, so that only other characters fall back to bytes.
_ASCII = "".join(chr(code) for code in range(33, 127))


def corpus() -> Iterator[str]:
    """The sentences that the tokenizer is trained on: the demo's own texts, the same in every run.

    "USER" appears only after a bracket and "US" only after a space; so the pieces "USER" and "▁US" arise, but
    "▁USER" does not. Words that begin a question follow a bracket too: in a prompt a line break precedes them.
    """
    words = [*COLOURS, *SHAPES, *DIRECTIONS, *NUMBERS.values()]
    for _ in range(200):
        yield SYSTEM
        yield "(USER: (USER: US US US US ASSISTANT: ASSISTANT: (ASSISTANT:"
    for _ in range(40):
        for topic, phrasings in PHRASINGS.items():
            for phrasing in phrasings:
                yield f"{phrasing} ({phrasing}"
            for word in words:
                yield SENTENCES[topic].format(word)
        for word in words:
            yield f"{word} A {word} and a {word}, then a {word}. {word.capitalize()} {word}s {word}es."
    for _ in range(4):
        yield " ".join(_ASCII)


def write_tokenizer(folder: str | os.PathLike[str]) -> Path:
    """Train the tokenizer and write ``tokenizer.model``, ``tokenizer_config.json``, ``special_tokens_map.json``.

    There is no randomness in it: one thread, a fixed corpus, no sampling; the result is ``VOCAB_SIZE`` pieces.

    Returns:
        The folder, made if it was missing.
    """
    import sentencepiece

    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=corpus(),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCAB_SIZE,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=True,
        split_digits=True,
        character_coverage=1.0,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    write_whole(target / "tokenizer.model", model.getvalue())
    _write_json(target / "special_tokens_map.json", _special_tokens())
    _write_json(target / "tokenizer_config.json", _config())
    return target


def _special_tokens() -> dict[str, object]:
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return {
        **{name: {"content": content, **plain} for name, content in named.items()},
        "pad_token": "<unk>",
    }


def _config() -> dict[str, object]:
    return {
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<s>",
        "clean_up_tokenization_spaces": False,
        "eos_token": "</s>",
        "legacy": False,
        "model_max_length": MODEL_MAX_LENGTH,
        "pad_token": "<unk>",
        "padding_side": "right",
        "sp_model_kwargs": {},
        "spaces_between_special_tokens": False,
        "tokenizer_class": "LlamaTokenizer",
        "unk_token": "<unk>",
        "use_default_system_prompt": False,
    }


def _write_json(path: Path, value: object) -> None:
    write_whole(path, json.dumps(value, indent=2, sort_keys=True) + "\n")
