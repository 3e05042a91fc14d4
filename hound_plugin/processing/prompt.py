"""The prompt ``vicuna_v1`` and its tokens, exactly as the checkpoints were trained with.

A conversation is ``system + " " + "USER: " + question + " ASSISTANT:" + " " + answer + "</s>" + "USER: " ...``. The
original splits this text at the media placeholders and tokenises each chunk on its own, which leaves an extra "▁"
before and after a placeholder, and inside a chunk, text after ``</s>`` gets no leading "▁". Both are reproduced here
by encoding whole chunks; encoding message by message differs from the second turn on.

Literal control tokens in a text (``</s>``, ``<video>`` in an answer ...) are encoded as ordinary characters. The
original parses them as control tokens and then masks or breaks the whole sample.
Source: llava/conversation.py, llava/mm_utils.py and llava/train/train.py of github.com/RifleZhang/LLaVA-Hound-DPO.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hound_plugin.errors import CheckpointError, PlaceholderError
from hound_plugin.records.media_paths import is_image_path
from hound_plugin.records.placeholders import IMAGE_TOKEN, VIDEO_TOKEN

RESERVED = "<reserved_{}>"
"""Tokens that fill a tokenizer up to the model's vocabulary."""

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
PLACEHOLDER = re.compile("<(?:image|video)>")
_SHIELD = "\ue000"  # private use: marks a placeholder's name in a question as ordinary text


@dataclass(frozen=True)
class Turn:
    """One question and its answer; an empty answer leaves the prompt open for generation."""

    question: str
    answer: str = ""


def normalise_question(text: str, tokens: Sequence[str] = (VIDEO_TOKEN, IMAGE_TOKEN)) -> str:
    """Move placeholders to the front: ``"Look at <video> now"`` -> ``"<video>\\nLook at  now"``.

    A text without any is returned as it is, trailing spaces included; else all occurrences are removed, the rest is
    stripped and each kind appears once in front, in order of first appearance.
    Source: ``preprocess_multimodal`` of llava/train/train.py.
    """
    found = sorted((token for token in tokens if token in text), key=text.index)
    if not found:
        return text
    for token in found:
        text = text.replace(token, "")
    return ("\n".join(found) + "\n" + text.strip()).strip()


def with_placeholder(question: str, token: str, count: int = 1) -> str:
    """A question of one turn with the placeholder of its one clip or image in front.

    Args:
        question: a placeholder in it is moved to the front, and none is needed.
        token: of the clip or image; empty if there is none.
        count: how often the placeholder is repeated.
    """
    text = PLACEHOLDER.sub("", question).strip() if PLACEHOLDER.search(question) else question
    return f"{token * count}\n{text}" if token else text


def medium_of(clip: Any) -> str:
    """``image`` for the path of a picture and a PIL image, ``video`` for everything else."""
    return "image" if is_image_path(clip) or hasattr(clip, "convert") else "video"


def unshield(text: str) -> str:
    """A text without the marks of :func:`shield`."""
    return text.replace(_SHIELD, "")


def place_placeholders(questions: Sequence[str], media: Mapping[str, Sequence[Any]]) -> list[str]:
    """Questions of one conversation with the placeholders of each in front of it, as the model was trained.

    ``<video>`` is ordinary text in a question of a conversation that has images but no clips, and the other way round.

    Args:
        questions: texts of the user, in order.
        media: for ``<video>`` and ``<image>``, the items of the conversation.

    Raises:
        PlaceholderError: placeholders and media differ in number.
    """
    placed = list(questions)
    for token, items in media.items():
        if not items and any(media.values()):
            placed = [shield(question, token) for question in placed]
    placed = [_in_front(question) for question in placed]
    for token, items in media.items():
        if sum(question.count(token) for question in placed) > len(items):
            # a question that names its one clip twice, as the original takes it
            placed = [normalise_question(question, (token,)) for question in placed]
        count = sum(question.count(token) for question in placed)
        if count != len(items):
            raise PlaceholderError(
                f"Expected one {token} for each of the {len(items)} item(s) {_names(items)}, found {count} in the "
                f"question(s) {[question[:200] for question in placed]}. Correct the record."
            )
    return placed


_PREPENDED = re.compile(r"(?:<video>|<image>)+(?!\s|<video>|<image>)")


def _in_front(text: str) -> str:
    """Placeholders in front, as in training.

    The host's chat engine glues them to the question; then the question itself has none, and the original leaves such
    a question's spaces alone.
    """
    glued = _PREPENDED.match(text)
    if glued is not None and not PLACEHOLDER.search(text[glued.end() :]):
        return "\n".join(PLACEHOLDER.findall(glued.group())) + "\n" + text[glued.end() :]
    tokens = PLACEHOLDER.findall(text)
    if len(tokens) > 1 and len(set(tokens)) < len(tokens):  # several clips in one question: keep all of them
        return ("\n".join(tokens) + "\n" + PLACEHOLDER.sub("", text).strip()).strip()
    return normalise_question(text)


def _names(items: Sequence[Any]) -> str:
    shown = [item if isinstance(item, str) else type(item).__name__ for item in items]
    return f"{shown[:3]}" + ("" if len(shown) <= 3 else f" and {len(shown) - 3} more")


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
        names = [RESERVED.format(index) for index in range(missing)] + [IMAGE_TOKEN, VIDEO_TOKEN]
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
        lead = "" if first else self.eos  # after a control token there is no leading "▁"
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
        system: the system prompt, without the space after it.

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


@dataclass(frozen=True)
class ExpandedPrompt:
    """A prompt as tokens.

    Attributes:
        ids: token ids, a placeholder's once for each visual token.
        offsets: for each token, where it is in the given text: ``(start, end)``.
        replacements: ``(placeholder, start, count)`` for each occurrence in the text.
    """

    ids: list[int]
    offsets: list[tuple[int, int]]
    replacements: list[tuple[str, int, int]]


def expand_prompt(
    tokenizer: Any, text: str, counts: Mapping[str, Sequence[int]], add_special_tokens: bool = True
) -> ExpandedPrompt:
    """Tokens of a ready prompt: chunks between placeholders encoded one by one, placeholders repeated.

    Args:
        tokenizer: as in :func:`encode_conversation`.
        text: a whole prompt, as it is given to the model; control tokens in it count as such.
        counts: for ``<image>`` and ``<video>``, how many visual tokens each occurrence becomes, in order.
        add_special_tokens: put BOS in front where the text does not begin with it.

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
    has_bos = text.startswith(tokenizer.bos_token)
    position = len(tokenizer.bos_token) if has_bos else 0
    expanded = ExpandedPrompt([], [], [])
    if has_bos or add_special_tokens:
        expanded.ids.append(tokenizer.bos_token_id)
        expanded.offsets.append((0, position))
    for part in re.split("(<image>|<video>)", text[position:]):
        if PLACEHOLDER.fullmatch(part):
            count = next(remaining[part])
            expanded.replacements.append((part, position, count))
            expanded.ids.extend([tokenizer.convert_tokens_to_ids(part)] * count)
            expanded.offsets.extend([(position, position + len(part))] * count)
        elif part:
            encoded = tokenizer(part, add_special_tokens=False, return_offsets_mapping=True)
            expanded.ids.extend(encoded["input_ids"])
            expanded.offsets.extend((start + position, end + position) for start, end in encoded["offset_mapping"])
        position += len(part)
    return expanded
