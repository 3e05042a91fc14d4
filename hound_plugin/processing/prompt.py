"""The prompt ``vicuna_v1`` and its tokens, exactly as the checkpoints were trained with.

A conversation is ``system + " " + "USER: " + question + " ASSISTANT:" + " " + answer + "</s>" + "USER: " ...``. The
original splits this text at the media placeholders and tokenises each chunk on its own, which leaves an extra "▁"
before and after a placeholder, and inside a chunk, text behind ``</s>`` gets no leading "▁". Both are reproduced here
by encoding whole chunks; encoding message by message differs from the second turn on.

Literal control tokens in a text (``</s>``, ``<video>`` in an answer ...) are encoded as ordinary characters. The
original parses them as control tokens and then masks or breaks the whole sample.
Source: llava/conversation.py, llava/mm_utils.py and llava/train/train.py of github.com/RifleZhang/LLaVA-Hound-DPO.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hound_plugin.errors import CheckpointError, PlaceholderError
from hound_plugin.records.placeholders import IMAGE_TOKEN, VIDEO_TOKEN

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
PLACEHOLDER = re.compile("<(?:image|video)>")
_SHIELD = "\ue000"  # private use: marks a placeholder's name in a question as ordinary text


def chat_template(system: str = SYSTEM) -> str:
    """Jinja for ``apply_chat_template``; contents may be texts or lists of ``{"type": "text" | "image" | "video"}``.

    Args:
        system: the system prompt of conversations that bring none.
    """
    return _CHAT_TEMPLATE.replace("SYSTEM", json.dumps(system, ensure_ascii=False))


_TEXT_OF = (  # `text` of a message: its placeholders, then its texts
    "{% if message['content'] is string %}{% set text = message['content'] %}{% else %}"
    "{% set parts = namespace(text='') %}"
    "{% for part in message['content'] %}{% if part['type'] in ['image', 'video'] %}"
    "{% set parts.text = parts.text + '<' + part['type'] + '>\n' %}{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}"
    "{% set parts.text = parts.text + part['text'] %}{% endif %}{% endfor %}"
    "{% set text = parts.text %}{% endif %}"
)
_CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{% set message = messages[0] %}" + _TEXT_OF + "{{ text + ' ' }}"
    "{% set messages = messages[1:] %}{% else %}{{ SYSTEM + ' ' }}{% endif %}"
    "{% for message in messages %}" + _TEXT_OF + "{% if message['role'] == 'user' %}"
    "{{ 'USER: ' + text + ' ASSISTANT:' }}"
    "{% else %}{{ ' ' + text + eos_token }}{% endif %}"
    "{% endfor %}"
)
CHAT_TEMPLATE = chat_template()


@dataclass(frozen=True)
class Turn:
    """One question and its answer; an empty answer leaves the prompt open for generation."""

    question: str
    answer: str = ""


def normalise_question(text: str, tokens: Sequence[str] = (VIDEO_TOKEN, IMAGE_TOKEN)) -> str:
    """Move placeholders to the front: ``"Look at <video> now"`` -> ``"<video>\\nLook at  now"``.

    A text without any is returned as it is, trailing spaces included; else all occurrences are removed, the rest is
    stripped and each kind stands once in front, in order of first appearance.
    Source: ``preprocess_multimodal`` of llava/train/train.py.
    """
    found = sorted((token for token in tokens if token in text), key=text.index)
    if not found:
        return text
    for token in found:
        text = text.replace(token, "")
    return ("\n".join(found) + "\n" + text.strip()).strip()


def shield(text: str, token: str) -> str:
    """Mark every ``token`` in a question as ordinary text for :func:`encode_conversation`."""
    return text.replace(token, token[0] + _SHIELD + token[1:])


def add_placeholder_tokens(tokenizer: Any, vocab_size: int | None = None) -> tuple[int, int]:
    """Make sure that the tokenizer knows ``<image>`` and ``<video>``, above the model's vocabulary.

    Args:
        tokenizer: a fast tokenizer; changed in place.
        vocab_size: rows of the model's embedding, if known; reserved tokens fill a shorter tokenizer up to it.

    Returns:
        The ids of ``<image>`` and ``<video>``.

    Raises:
        CheckpointError: the tokenizer is not a fast one.
    """
    from tokenizers import AddedToken

    if not getattr(tokenizer, "is_fast", False):
        raise CheckpointError(
            f"Expected a fast tokenizer, got {type(tokenizer).__name__}: token offsets are needed to tell answers "
            "from questions. Remove `use_fast_tokenizer: false`."
        )
    added = tokenizer.get_added_vocab()
    if not {IMAGE_TOKEN, VIDEO_TOKEN} <= set(added):
        missing = 0 if vocab_size is None else max(0, vocab_size - len(tokenizer))
        names = [f"<reserved_{index}>" for index in range(missing)] + [IMAGE_TOKEN, VIDEO_TOKEN]
        tokenizer.add_tokens([AddedToken(name, special=True, normalized=False) for name in names], special_tokens=True)
    ids = tokenizer.convert_tokens_to_ids([IMAGE_TOKEN, VIDEO_TOKEN])
    return int(ids[0]), int(ids[1])


@dataclass
class _Encoder:
    """Encodes pieces of a chunk, telling which tokens belong to an answer."""

    tokenizer: Any

    def __post_init__(self) -> None:
        literals = sorted({*self.tokenizer.get_added_vocab(), *self.tokenizer.all_special_tokens}, key=len)[::-1]
        self.literal = re.compile("|".join(map(re.escape, literals)))
        self.eos = self.tokenizer.eos_token

    def piece(self, text: str, first: bool) -> list[tuple[int, int]]:
        """``(id, start)`` of every token of an ordinary text; ``first``: it begins a chunk."""
        if not text:
            return []
        pairs: list[tuple[int, int]] = []
        position = 0
        for match in self.literal.finditer(text):
            pairs += self._plain(text[position : match.start()], first and not position, position)
            at_start = first and match.start() == 0
            pairs += self._literal(match.group(), at_start, match.start())
            position = match.end()
        return pairs + self._plain(text[position:], first and not position, position)

    def _plain(self, text: str, first: bool, offset: int) -> list[tuple[int, int]]:
        if not text:
            return []
        lead = "" if first else self.eos  # behind a control token there is no leading "▁"
        encoded = self.tokenizer(lead + text, add_special_tokens=False, return_offsets_mapping=True)
        pairs = list(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True))[0 if first else 1 :]
        return [(token, start - len(lead) + offset) for token, (start, _) in pairs]

    def _literal(self, text: str, first: bool, offset: int) -> list[tuple[int, int]]:
        """A control token's name as ordinary characters, by the bare BPE model."""
        text = ("▁" if first else "") + text.replace(" ", "▁")
        return [(token.id, offset) for token in self.tokenizer.backend_tokenizer.model.tokenize(text)]


def encode_conversation(
    tokenizer: Any, turns: Sequence[Turn], system: str = SYSTEM
) -> list[tuple[list[int], list[int]]]:
    """Token ids of a conversation, exactly as the original makes them.

    Args:
        tokenizer: a fast tokenizer that knows the placeholders (see :func:`add_placeholder_tokens`).
        turns: questions may hold placeholders; a run of one placeholder gives as many ids. Answers never do: there,
            ``<video>`` is ordinary text. Only the last answer may be empty.
        system: the system prompt, without the space behind it.

    Returns:
        For every turn ``(source, target)``: what is masked and what is learnt. The first source begins with BOS; a
        target is the answer with ``</s>``, or empty for an empty answer.
    """
    encoder = _Encoder(tokenizer)
    pairs: list[tuple[list[int], list[int]]] = []
    source: list[int] = [tokenizer.bos_token_id]
    first = True  # the next piece begins a chunk
    for number, turn in enumerate(turns):
        lead = (system + " " if number == 0 and system else "") + ("USER: " if turn.question else "USER:")
        tail = (" " if turn.question else "") + "ASSISTANT:"
        parts = re.split("(<image>|<video>)", lead + turn.question)
        for text, token in zip(parts[0::2], [*parts[1::2], None], strict=True):
            if token is not None:
                source += [pair[0] for pair in encoder.piece(text.replace(_SHIELD, ""), first)]
                source.append(tokenizer.convert_tokens_to_ids(token))
                first = True
                continue
            # the rest of the question and the answer are of one chunk and must be encoded together
            text = text.replace(_SHIELD, "")
            question = text + tail
            answer = " " + turn.answer if turn.answer else ""
            tokens = encoder.piece(question + answer, first)
            source += [token_id for token_id, start in tokens if start < len(question)]
            target = [token_id for token_id, start in tokens if start >= len(question)]
        first = False
        if turn.answer:
            target.append(tokenizer.eos_token_id)
        pairs.append((source, target))
        source = []
    return pairs


def expand_prompt(tokenizer: Any, text: str, counts: dict[str, list[int]]) -> list[int]:
    """Token ids of a ready prompt: chunks between placeholders encoded one by one, placeholders repeated.

    Args:
        tokenizer: as in :func:`encode_conversation`.
        text: a whole prompt, as it is given to the model; control tokens in it count as such.
        counts: for ``<image>`` and ``<video>``, how many visual tokens each occurrence stands for, in order.

    Raises:
        PlaceholderError: there are more or fewer occurrences than counts.
    """
    for token, expected in counts.items():
        if text.count(token) != len(expected):
            raise PlaceholderError(
                f"The text has {text.count(token)} {token} placeholder(s) for {len(expected)} item(s): {text[:200]!r}. "
                f"Put {token} into the text once for each."
            )
    remaining = {token: iter(values) for token, values in counts.items()}
    ids: list[int] = []
    for part in re.split("(<image>|<video>)", text.removeprefix(tokenizer.bos_token)):
        if PLACEHOLDER.fullmatch(part):
            ids += [tokenizer.convert_tokens_to_ids(part)] * next(remaining[part])
        elif part:
            ids += tokenizer(part, add_special_tokens=False)["input_ids"]
    return [tokenizer.bos_token_id, *ids]
