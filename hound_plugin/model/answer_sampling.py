"""Several sampled answers to each of some prompts: clip and prompt are encoded and prefilled only once.

The answers of a prompt are tokens of one row: each sees the prompt and itself, so that keys and values of the prompt
are there once, and read once for all of them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hound_plugin.model.inference import HoundModel
from hound_plugin.model.releases import cache_of
from hound_plugin.model.token_choice import pick
from hound_plugin.processing.prompt import Turn, encode_conversation

_MASKED = ("sdpa", "eager")  # attention that takes a mask of every pair of tokens


@dataclass(frozen=True)
class SampledAnswer:
    """One answer; ``finish`` is ``stop``, or ``length`` if it reached the token limit."""

    text: str
    finish: str
    tokens: int


def sample_answers(
    hound: HoundModel,
    question: str,
    clip: Any,
    seeds: Sequence[int],
    *,
    temperature: float = 1.0,
    top_p: float = 0.95,
    max_new_tokens: int = 512,
    batch_size: int = 8,
) -> list[SampledAnswer]:
    """One answer for each seed; see :func:`sample_many`."""
    return sample_many(
        hound,
        [(question, clip)],
        [seeds],
        temperature=temperature,
        top_p=top_p,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
    )[0]


@torch.inference_mode()
def sample_many(
    hound: HoundModel,
    asked: Sequence[tuple[str, Any]],
    seeds: Sequence[Sequence[int]],
    *,
    temperature: float = 1.0,
    top_p: float = 0.95,
    max_new_tokens: int = 512,
    batch_size: int = 8,
) -> list[list[SampledAnswer]]:
    """Answers to several questions side by side, one for each seed of each question.

    An answer depends only on its question and its own seed, not on the others (up to rounding).

    Args:
        hound: the loaded model.
        asked: question and clip of each. In the question a placeholder is moved to the front, and may be omitted; a
            clip or image as :meth:`HoundModel.chat_many` takes it, or None. The same path is read and encoded once.
        seeds: of each question; they need not be as many.
        temperature: 0 means greedy.
        top_p: tokens are drawn from the smallest set with at least this probability, in (0, 1].
        max_new_tokens: limit for each answer.
        batch_size: answers generated at the same time, at least one for each question.
    """
    if not asked:
        return []
    batch = hound.batch([(question, "", clip) for question, clip in asked], "left")
    batch.pop("labels")
    first = hound.model(**batch, use_cache=True, logits_to_keep=1)
    answers: list[list[SampledAnswer]] = [[] for _ in asked]
    width = max(1, batch_size // len(asked))
    for start in range(0, max(map(len, seeds), default=0), width):
        chunks = [list(own[start : start + width]) for own in seeds]
        count = max(map(len, chunks))
        draws = [torch.Generator().manual_seed(seed) for own in chunks for seed in (own + [0] * count)[:count]]
        logits = first.logits[:, -1].repeat_interleave(count, 0)
        continuing = _Continuation(hound, copy.deepcopy(cache_of(first)), batch["attention_mask"], count)
        tokens = _continue(hound, continuing, logits, draws, temperature, top_p, max_new_tokens)
        for number, own in enumerate(chunks):
            rows = tokens[number * count : number * count + len(own)]
            answers[number] += [_to_answer(hound, row, max_new_tokens) for row in rows]
    return answers


class _Continuation:
    """The next tokens of ``count`` answers to each prompt.

    Args:
        hound: the loaded model.
        cache: keys and values of the prompts; it is changed.
        attended: ``[B, P]``, where the prompts have tokens.
        count: answers of each prompt.
    """

    def __init__(self, hound: HoundModel, cache: Any, attended: torch.Tensor, count: int) -> None:
        self.hound, self.cache, self.count = hound, cache, count
        self.steps = 0
        self.shares = hound.model.config.text_config._attn_implementation in _MASKED
        self.lengths = attended.sum(-1, keepdim=True)
        self.prompts = attended.bool()
        self.mask = attended.repeat_interleave(count, 0)
        if not self.shares:
            self.cache.batch_repeat_interleave(count)

    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits ``[B * count, vocabulary]`` behind one more token ``[B * count]`` of each answer."""
        if self.shares:
            rows = tokens.view(-1, self.count)
            inputs = {"attention_mask": self._mask(), "position_ids": (self.lengths + self.steps).expand_as(rows)}
        else:
            rows = tokens[:, None]
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(rows), 1)], dim=1)
            inputs = {"attention_mask": self.mask}
        self.steps += 1
        output = self.hound.model(input_ids=rows, cache=self.cache, use_cache=True, **inputs)
        logits: torch.Tensor = output.logits.flatten(0, 1)
        return logits

    def _mask(self) -> torch.Tensor:
        """What the answers' newest tokens see: ``[B, 1, count, P + count * steps]``, 0 or the lowest number."""
        own = torch.eye(self.count, dtype=torch.bool, device=self.prompts.device).repeat(1, self.steps + 1)
        rows = len(self.prompts)
        seen = torch.cat([self.prompts[:, None].expand(-1, self.count, -1), own.expand(rows, -1, -1)], dim=-1)
        dtype = self.hound.model.dtype
        return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)[
            :, None
        ]


def _continue(
    hound: HoundModel,
    continuing: _Continuation,
    logits: torch.Tensor,
    draws: Sequence[torch.Generator],
    temperature: float,
    top_p: float,
    max_new_tokens: int,
) -> list[list[int]]:
    """Token ids of each answer, including the end token, from ``logits`` ``[N, vocabulary]`` after the prompt."""
    end = hound.processor.tokenizer.eos_token_id
    rows: list[list[int]] = [[] for _ in draws]
    for step in range(max_new_tokens):
        chosen = pick(logits.float(), draws, temperature, top_p)
        for row, token in zip(rows, chosen.tolist(), strict=True):
            if not row or row[-1] != end:
                row.append(token)
        if step + 1 == max_new_tokens or all(row[-1] == end for row in rows):
            break
        logits = continuing.logits(chosen)
    return rows


def _to_answer(hound: HoundModel, tokens: list[int], limit: int) -> SampledAnswer:
    ended = bool(tokens) and tokens[-1] == hound.processor.tokenizer.eos_token_id
    text = hound.processor.decode(tokens, skip_special_tokens=True).strip()
    return SampledAnswer(text, "stop" if ended or len(tokens) < limit else "length", len(tokens))


def answer_log_probs(hound: HoundModel, items: Sequence[tuple[str, str, Any]]) -> list[tuple[float, int]]:
    """Sum of log-probabilities over an answer's tokens, including ``</s>``, and the number of those tokens."""
    tokenizer = hound.processor.tokenizer
    counts = [len(encode_conversation(tokenizer, [Turn("", answer)])[0][1]) for _, answer, _ in items]
    return list(zip(hound.log_probs(items).tolist(), counts, strict=True))
