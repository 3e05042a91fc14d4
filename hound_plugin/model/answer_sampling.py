"""Several sampled answers to one prompt: clip and prompt are encoded and prefilled only once."""

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


@dataclass(frozen=True)
class SampledAnswer:
    """One answer; ``finish`` is ``stop``, or ``length`` if it reached the token limit."""

    text: str
    finish: str
    tokens: int


@torch.inference_mode()
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
    """One answer for each seed.

    An answer depends only on its own seed, not on the others in its batch (up to rounding).

    Args:
        hound: the loaded model.
        question: the text; a placeholder is moved to the front, and may be omitted.
        clip: a clip or image as :meth:`HoundModel.chat_many` takes it, or None.
        seeds: one for each answer.
        temperature: 0 means greedy.
        top_p: tokens are drawn from the smallest set with at least this probability, in (0, 1].
        max_new_tokens: limit for each answer.
        batch_size: answers generated at the same time.
    """
    batch = hound.batch([(question, "", clip)], "left")
    batch.pop("labels")
    first = hound.model(**batch, use_cache=True, logits_to_keep=1)
    answers: list[SampledAnswer] = []
    for start in range(0, len(seeds), batch_size):
        chunk = list(seeds[start : start + batch_size])
        cache = copy.deepcopy(cache_of(first))
        cache.batch_repeat_interleave(len(chunk))
        draws = [torch.Generator().manual_seed(seed) for seed in chunk]
        logits = first.logits[:, -1].expand(len(chunk), -1)
        mask = batch["attention_mask"].expand(len(chunk), -1)
        tokens = _continue(hound, logits, cache, mask, draws, temperature, top_p, max_new_tokens)
        answers += [_to_answer(hound, row, max_new_tokens) for row in tokens]
    return answers


def _continue(
    hound: HoundModel,
    logits: torch.Tensor,
    cache: Any,
    mask: torch.Tensor,
    draws: Sequence[torch.Generator],
    temperature: float,
    top_p: float,
    max_new_tokens: int,
) -> list[list[int]]:
    """Token ids of each row, including the end token, from ``logits`` ``[N, vocabulary]`` after the prompt."""
    end = hound.processor.tokenizer.eos_token_id
    rows: list[list[int]] = [[] for _ in draws]
    for step in range(max_new_tokens):
        chosen = pick(logits.float(), draws, temperature, top_p)
        for row, token in zip(rows, chosen.tolist(), strict=True):
            if not row or row[-1] != end:
                row.append(token)
        if step + 1 == max_new_tokens or all(row[-1] == end for row in rows):
            break
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        output = hound.model(input_ids=chosen[:, None], attention_mask=mask, cache=cache, use_cache=True)
        logits = output.logits[:, -1]
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
