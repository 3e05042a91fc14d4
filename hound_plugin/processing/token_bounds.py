"""How many tokens a text has at least, known from its length: megabytes need no tokeniser to be too long."""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterable
from typing import Any

# Steps before the model that never make a text shorter. Whatever else a tokenizer has may drop or merge characters.
_LENGTHENING = {None, "Prepend", "Metaspace", "ByteLevel"}
_longest: weakref.WeakKeyDictionary[Any, tuple[int, int | None]] = weakref.WeakKeyDictionary()


def fewest_tokens(tokenizer: Any, texts: Iterable[str]) -> int:
    """A number of tokens that texts have at the very least; 0 where the tokenizer does not tell.

    Each token stands for at most as many characters as the longest piece of the vocabulary has.

    Args:
        tokenizer: a fast one.
        texts: encoded one by one or together.
    """
    longest = _characters_per_token(tokenizer)
    return 0 if longest is None else sum(map(len, texts)) // longest


def _characters_per_token(tokenizer: Any) -> int | None:
    size = len(tokenizer)
    known = _longest.get(tokenizer)
    if known is None or known[0] != size:
        known = _longest[tokenizer] = (size, _longest_piece(tokenizer))
    return known[1]


def _longest_piece(tokenizer: Any) -> int | None:
    """None: a token may stand for any number of characters."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    model, steps = content["model"], [content["normalizer"], content["pre_tokenizer"]]
    merges_unknown = not model.get("byte_fallback") and model.get("fuse_unk") and model.get("unk_token") is not None
    if model["type"] != "BPE" or merges_unknown or not all(map(_keeps_length, steps)):
        return None
    pieces = [*model["vocab"], *(token["content"] for token in content["added_tokens"])]
    return max(map(len, pieces), default=1)


def _keeps_length(step: dict[str, Any] | None) -> bool:
    kind = None if step is None else step["type"]
    if step is None or kind in _LENGTHENING:
        return True
    if kind == "Sequence":
        return all(map(_keeps_length, step.get("normalizers") or step.get("pretokenizers") or []))
    if kind == "Replace":
        return len(step["content"]) >= len(step["pattern"].get("String", step["content"] + "?"))
    return False
