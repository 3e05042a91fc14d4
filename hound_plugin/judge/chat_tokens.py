"""Messages to token ids in which only the chat template's own control tokens are control tokens.

A text that is judged may hold ``</s>``, ``<|im_end|>`` or ``[INST]``. A tokenizer takes those for the end of a message,
and the model what follows for one of the system's. Here the tokens of such a text are those of its characters; every
other text has the tokens that the tokenizer gives it anyway.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from typing import Any

from hound_plugin.llm.requests import Message, RejectedError

_MARKUP = re.compile(r"[<\[◁].*\w.*[>\]▷]", re.DOTALL)


def encode_chat(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """The ids of a conversation up to where the answer begins.

    Args:
        tokenizer: with a chat template.
        messages: contents are texts.

    Raises:
        RejectedError: a text holds a control token, and the tokenizer or its template does not let us tell it from the
            template's.
    """
    text = _render(tokenizer, messages)
    control = control_tokens(tokenizer)
    if not any(token in str(message["content"]) for message in messages for token in control):
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])
    if not tokenizer.is_fast:
        raise RejectedError("a text holds a control token of the model, and its tokenizer has no fast version")
    spans = _content_spans(tokenizer, messages, text)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids: list[int] = []
    for token, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
        inside = token in control.values() and any(low < end and start < high for low, high in spans)
        ids += _as_text(tokenizer, text[start:end], control) if inside else [token]
    return ids


def control_tokens(tokenizer: Any) -> dict[str, int]:
    """Text to id of the tokens that steer a model: special ones, and others that look like markup (``<think>``)."""
    found = {}
    for number, token in tokenizer.added_tokens_decoder.items():
        if token.content.strip() and (token.special or _MARKUP.fullmatch(token.content)):
            found[token.content] = int(number)
    return found


def _render(tokenizer: Any, messages: Sequence[Message]) -> str:
    return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))


def _content_spans(tokenizer: Any, messages: Sequence[Message], text: str) -> list[tuple[int, int]]:
    """Where the contents of the messages stand in the rendered text."""
    marks = [f"x{secrets.token_hex(12)}x" for _ in messages]
    frame = _render(tokenizer, [{**message, "content": mark} for message, mark in zip(messages, marks, strict=True)])
    spans, place, rest = [], 0, frame
    for mark, message in zip(marks, messages, strict=True):
        before, found, rest = rest.partition(mark)
        place += len(before)
        content = next((c for c in _forms(message) if text.startswith(c, place)), None)
        if not found or content is None:
            break
        spans.append((place, place + len(content)))
        place += len(content)
    else:
        if text[place:] == rest:
            return spans
    raise RejectedError("a text holds a control token of the model, and the chat template changes texts")


def _forms(message: Message) -> tuple[str, str]:
    """A content as it is and as templates strip it; the longer one first."""
    content = str(message["content"])
    return content, content.strip()


def _as_text(tokenizer: Any, text: str, control: dict[str, int]) -> list[int]:
    """The ids of a text with no control token among them, as if something stood before it."""
    found = _behind_a_line_break(tokenizer, text)
    if len(text) > 1 and not set(found).isdisjoint(control.values()):  # a token that is not special is never split
        return _as_text(tokenizer, text[0], control) + _as_text(tokenizer, text[1:], control)
    return found


def _behind_a_line_break(tokenizer: Any, text: str) -> list[int]:
    """Behind a line break, since SentencePiece puts a space before the first character of a text."""
    plain = {"add_special_tokens": False, "split_special_tokens": True}
    before, both = (list(tokenizer(words, **plain)["input_ids"]) for words in ("\n", "\n" + text))
    if both[: len(before)] == before:
        return both[len(before) :]
    return list(tokenizer(text, **plain)["input_ids"])
