"""Encodes messages so that only the chat template's own control tokens act as control tokens.

A text that is judged may contain ``</s>``, ``<|im_end|>`` or ``[INST]``. A tokenizer would encode those as the end of a
message, and the model could take what follows for a system message. Here such text is encoded by its characters; all
other text is encoded as the tokenizer does it anyway.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from typing import Any

from hound_plugin.llm.requests import Message, RejectedError

_MARKUP = re.compile(r"[<\[◁].*\w.*[>\]▷]", re.DOTALL)


def encode_chat(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """The ids of a conversation up to where the reply begins.

    Args:
        tokenizer: with a chat template.
        messages: contents are texts.

    Raises:
        RejectedError: a text contains a control token that cannot be told from the template's with this tokenizer or
            template.
    """
    text = _render(tokenizer, messages)
    control = control_tokens(tokenizer)
    if not any(token in str(message["content"]) for message in messages for token in control):
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    if not tokenizer.is_fast:
        raise RejectedError("a text contains a control token of the model, and its tokenizer has no fast version")
    spans = _content_spans(tokenizer, messages, text)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids: list[int] = []
    for token, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
        inside = token in control.values() and any(low < end and start < high for low, high in spans)
        ids += _as_text(tokenizer, text[start:end], control) if inside else [token]
    return ids


def control_tokens(tokenizer: Any) -> dict[str, int]:
    """Text to id of the tokens that control a model: special ones, and others that look like markup (``<think>``)."""
    ids = {}
    for number, token in tokenizer.added_tokens_decoder.items():
        if token.content.strip() and (token.special or _MARKUP.fullmatch(token.content)):
            ids[token.content] = int(number)
    return ids


def _render(tokenizer: Any, messages: Sequence[Message]) -> str:
    return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))


def _content_spans(tokenizer: Any, messages: Sequence[Message], text: str) -> list[tuple[int, int]]:
    """Start and end of each message's content in the rendered text."""
    marks = [f"x{secrets.token_hex(12)}x" for _ in messages]
    frame = _render(tokenizer, [{**message, "content": mark} for message, mark in zip(messages, marks, strict=True)])
    spans, position, rest = [], 0, frame
    for mark, message in zip(marks, messages, strict=True):
        before, has_mark, rest = rest.partition(mark)
        position += len(before)
        content = next((c for c in _forms(message) if text.startswith(c, position)), None)
        if not has_mark or content is None:
            break
        spans.append((position, position + len(content)))
        position += len(content)
    else:
        if text[position:] == rest:
            return spans
    raise RejectedError("a text contains a control token of the model, and the chat template changes texts")


def _forms(message: Message) -> tuple[str, str]:
    """A content unchanged and as templates strip it; the longer one first."""
    content = str(message["content"])
    return content, content.strip()


def _as_text(tokenizer: Any, text: str, control: dict[str, int]) -> list[int]:
    """The ids of a text without any control token, as if other text came before it."""
    ids = _after_a_line_break(tokenizer, text)
    if len(text) > 1 and not set(ids).isdisjoint(control.values()):  # tokens that are not special are never split
        return _as_text(tokenizer, text[0], control) + _as_text(tokenizer, text[1:], control)
    return ids


def _after_a_line_break(tokenizer: Any, text: str) -> list[int]:
    """Encoded after a line break, because SentencePiece puts a space before the first character of a text."""
    plain = {"add_special_tokens": False, "split_special_tokens": True}
    before, both = (list(tokenizer(words, **plain)["input_ids"]) for words in ("\n", "\n" + text))
    if both[: len(before)] == before:
        return both[len(before) :]
    return list(tokenizer(text, **plain)["input_ids"])
