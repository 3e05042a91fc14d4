"""Answers as they are generated: pieces of text, log-probabilities and ends, for one prompt and any number of answers.

A server streams these events or collects them, so that both kinds of request get the same answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from transformers import LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from transformers.generation import MinNewTokensLengthLogitsProcessor, RepetitionPenaltyLogitsProcessor

from hound_plugin.model.generation import AnswerText
from hound_plugin.model.token_choice import AnswerPenalties, RawLogProbs, SeededChoice, row_generators

_UNFINISHED = "\ufffd"  # what tokenizers write for half a character
_SPACE = "\u2581"  # what SentencePiece writes for a space


@dataclass(frozen=True)
class Decoding:
    """How the answers to one request are generated.

    Attributes:
        n: number of answers; greedy ones are identical and generated once.
        temperature: 0 is greedy.
        top_p: in [0, 1]; tokens are drawn from the smallest set with at least this probability.
        top_k: number of most probable tokens to draw from; 0: all.
        seed: determines the draws; None: random.
        min_new_tokens: the model does not end an answer before it has this many tokens.
        stop: strings that end an answer and are not part of it.
        presence_penalty, frequency_penalty, logit_bias: as in :class:`AnswerPenalties`.
        repetition_penalty: divides the scores of all tokens that occurred, including the question's; 1: none.
        top_log_probs: number of most probable tokens to report with each token; None: no log-probabilities.
    """

    n: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    min_new_tokens: int = 0
    stop: tuple[str, ...] = ()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    top_log_probs: int | None = None


@dataclass(frozen=True)
class TokenLogProb:
    """A token as UTF-8 bytes, its log-probability, and the most probable tokens at its position.

    A character may span tokens; the concatenated bytes of an answer's tokens are the answer.
    """

    token: bytes
    log_prob: float
    top: tuple[TokenLogProb, ...] = ()


@dataclass(frozen=True)
class Piece:
    """The next piece of the text of answer ``index``, and the tokens that end in it."""

    index: int
    text: str
    log_probs: tuple[TokenLogProb, ...] = ()


@dataclass(frozen=True)
class End:
    """Answer ``index`` is complete; ``length`` if it reached the token limit. ``tokens`` includes ``</s>``."""

    index: int
    finish: Literal["stop", "length"]
    tokens: int


Event = Piece | End
Emit = Callable[[Event], None]


def generate_answers(
    generate: Callable[..., torch.Tensor],
    inputs: Mapping[str, Any],
    config: Any,
    tokenizer: Any,
    decoding: Decoding,
    emit: Emit,
    cancelled: threading.Event,
) -> None:
    """Generate the answers to one prompt; ``emit`` receives their events as they arise.

    Args:
        generate: ``model.generate``.
        inputs: ``input_ids`` and ``attention_mask`` ``[1, S]``, and pixels with their index as from the collator.
        config: a generation config with ``max_new_tokens``, ``eos_token_id`` (a list) and ``pad_token_id``; with
            beam search, ``decoding`` must be greedy, and the answer comes in one piece.
        tokenizer: of the model.
        decoding: how tokens are chosen.
        emit: called in this thread.
        cancelled: once it is set, generation stops after the current token.
    """
    is_greedy = decoding.temperature == 0
    rows = 1 if is_greedy else decoding.n
    prompt = inputs["input_ids"].shape[1]
    recorder = None if decoding.top_log_probs is None else RawLogProbs()
    processors = _processors(decoding, recorder, prompt, rows, config, inputs["input_ids"].device)
    skips = getattr(config, "skip_special_tokens", True)
    indices = [range(decoding.n)] if is_greedy else [range(row, row + 1) for row in range(rows)]
    answers = [_Answer(group, tokenizer, decoding, config.eos_token_id, skips, emit) for group in indices]
    has_beams = (config.num_beams or 1) > 1
    criterion = _AnswersComplete(answers, recorder, cancelled, prompt, follows=not has_beams)
    output = generate(
        **_repeated(inputs, rows),
        generation_config=config,
        logits_processor=processors,
        stopping_criteria=StoppingCriteriaList([criterion]),
    )
    if has_beams:
        for token in output[0, prompt:].tolist():
            answers[0].take(token, None)
    for answer in answers:
        answer.end("length")


def _processors(
    decoding: Decoding, recorder: RawLogProbs | None, prompt: int, rows: int, config: Any, device: Any
) -> LogitsProcessorList:
    processors = LogitsProcessorList([] if recorder is None else [recorder])
    if decoding.repetition_penalty != 1:
        processors.append(RepetitionPenaltyLogitsProcessor(decoding.repetition_penalty))
    if decoding.presence_penalty or decoding.frequency_penalty or decoding.logit_bias:
        processors.append(
            AnswerPenalties(prompt, decoding.presence_penalty, decoding.frequency_penalty, decoding.logit_bias)
        )
    if decoding.min_new_tokens:
        ends, minimum = config.eos_token_id, decoding.min_new_tokens
        processors.append(MinNewTokensLengthLogitsProcessor(prompt, minimum, ends, device=device))
    if decoding.temperature:
        draws = row_generators(decoding.seed, rows)
        processors.append(SeededChoice(draws, decoding.temperature, decoding.top_p, decoding.top_k))
    return processors


def _repeated(inputs: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """Inputs of one prompt repeated for several answers; pixels are not, so that a clip is encoded once."""
    once = ("pixel_values_images", "pixel_values_videos")
    return {
        name: value
        if name in once
        else value.repeat(rows)
        if name.endswith("_index")
        else value.repeat_interleave(rows, 0)
        for name, value in inputs.items()
    }


class _AnswersComplete(StoppingCriteria):
    """Passes each new token to its answer, and ends rows whose answer is complete."""

    def __init__(
        self,
        answers: Sequence[_Answer],
        recorder: RawLogProbs | None,
        cancelled: threading.Event,
        prompt: int,
        follows: bool,
    ) -> None:
        self.answers, self.recorder, self.cancelled = answers, recorder, cancelled
        self.prompt, self.follows = prompt, follows

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> Any:
        """For ``input_ids`` [B, S], which rows are done: bool ``[B]``."""
        if self.follows:
            log_probs: Sequence[torch.Tensor | None] = [None] * len(input_ids)
            if self.recorder is not None:
                log_probs = list(self.recorder.latest.cpu())
            for answer, token, row in zip(self.answers, input_ids[:, -1].tolist(), log_probs, strict=True):
                answer.take(token, row)
        if self.cancelled.is_set() or not self.follows:
            return torch.full((len(input_ids),), self.cancelled.is_set(), device=input_ids.device)
        return torch.tensor([answer.is_over for answer in self.answers], device=input_ids.device)


class _Answer:
    """One row of the batch: its text so far, and how much of it has been emitted."""

    def __init__(
        self, indices: range, tokenizer: Any, decoding: Decoding, ends: Sequence[int], skips: bool, emit: Emit
    ) -> None:
        self.is_over = False
        self._indices, self._tokenizer, self._ends, self._emit = indices, tokenizer, frozenset(ends), emit
        self._top = decoding.top_log_probs
        self._pieces = TokenText(tokenizer, skips)
        self._text = AnswerText(decoding.stop)
        self._tokens = 0
        self._generated = self._emitted = 0  # characters
        self._waiting: list[tuple[int, int, TokenLogProb]] = []  # first character, end, token

    def take(self, token: int, log_probs: torch.Tensor | None) -> None:
        """The next token, with the log-probabilities ``[vocabulary]`` of all tokens at its position."""
        if self.is_over:
            return
        self._tokens += 1
        if token in self._ends:
            self.end("stop")
            return
        piece = self._pieces.push(token)
        start, self._generated = self._generated, self._generated + len(piece)
        if log_probs is not None:
            self._waiting.append((start, self._generated, self._log_prob(token, log_probs)))
        text = self._text.push(piece)
        self._emit_text(text)
        if self._text.has_ended:
            self._close("stop", text_is_cut=True)

    def end(self, finish: Literal["stop", "length"]) -> None:
        """Finish: no token follows."""
        if self.is_over:
            return
        text = self._text.push(self._pieces.rest())
        self._emitted += len(text)
        rest = "" if self._text.has_ended else self._text.rest()
        self._emitted += len(rest)
        cut = self._text.has_ended
        tokens = [token for start, _, token in self._waiting if not cut or start < self._emitted]
        self._waiting = []
        self._send(text + rest, tokens)
        self._close("stop" if cut else finish, text_is_cut=cut)

    def _emit_text(self, text: str) -> None:
        self._emitted += len(text)
        done = [token for start, end, token in self._waiting if start < self._emitted and end <= self._emitted]
        self._waiting = self._waiting[len(done) :]
        self._send(text, done)

    def _send(self, text: str, tokens: Sequence[TokenLogProb]) -> None:
        if text or tokens:
            for index in self._indices:
                self._emit(Piece(index, text, tuple(tokens)))

    def _close(self, finish: Literal["stop", "length"], text_is_cut: bool) -> None:
        self.is_over = True
        if text_is_cut:  # also send the tokens that begin before the cut
            self._send("", [token for start, _, token in self._waiting if start < self._emitted])
        for index in self._indices:
            self._emit(End(index, finish, self._tokens))

    def _log_prob(self, token: int, log_probs: torch.Tensor) -> TokenLogProb:
        is_first = self._tokens == 1
        values, ids = log_probs.topk(min(self._top or 0, len(log_probs)))
        top = tuple(
            TokenLogProb(token_bytes(self._tokenizer, other, is_first), value)
            for value, other in zip(values.tolist(), ids.tolist(), strict=True)
        )
        return TokenLogProb(token_bytes(self._tokenizer, token, is_first), float(log_probs[token]), top)


class TokenText:
    """Text of tokens as they arrive; a character that spans tokens appears with its last one.

    Args:
        tokenizer: decodes the tokens.
        skips_special_tokens: ``skip_special_tokens`` of its ``decode``.
    """

    def __init__(self, tokenizer: Any, skips_special_tokens: bool = True) -> None:
        self._tokenizer, self._skips = tokenizer, skips_special_tokens
        self._ids: list[int] = []
        self._from = self._read = 0  # tokens from `_from` give the context for spaces; before `_read` they are emitted

    def push(self, token: int) -> str:
        """The text that this token completes, which may be empty."""
        self._ids.append(token)
        piece = self._new()
        if piece.endswith(_UNFINISHED):
            return ""
        self._from, self._read = self._read, len(self._ids)
        return piece

    def rest(self) -> str:
        """Text that was waiting for more tokens, once none follow."""
        piece = self._new()
        self._from = self._read = len(self._ids)
        return piece

    def _new(self) -> str:
        before = self._decode(self._ids[self._from : self._read])
        return self._decode(self._ids[self._from :])[len(before) :]

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=self._skips, clean_up_tokenization_spaces=False)
        return text


def token_bytes(tokenizer: Any, token: int, is_first: bool = False) -> bytes:
    """A token of a LLaMA tokenizer as UTF-8 bytes; the first one of an answer without the space before its word."""
    piece = str(tokenizer.convert_ids_to_tokens(token))
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return bytes([int(piece[3:5], 16)])
    text = piece.replace(_SPACE, " ")
    return (text.removeprefix(" ") if is_first else text).encode()
