"""Which token comes next: penalties, biases, and draws that depend on their own seed alone.

These are logits processors for ``model.generate``. The last of them leaves one token of each row, so generation itself
stays greedy: nothing is drawn from torch's global generator, which requests that run side by side would share.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Mapping, Sequence

import torch
from transformers import LogitsProcessor


def pick(
    logits: torch.Tensor, draws: Sequence[torch.Generator], temperature: float, top_p: float, top_k: int = 0
) -> torch.Tensor:
    """One token for each row of ``logits`` ``[N, vocabulary]``: ``[N]``, int64.

    One uniform number per row and step is taken from the row's own generator, on the CPU, and looked up in the
    probabilities as they are cumulated in the order of token ids. So GPU and CPU draw alike, and tokens of nearly the
    same probability, whose order depends on rounding, do not change places.

    Args:
        logits: float32.
        draws: a generator for each row.
        temperature: 0 means the most probable token.
        top_p: the smallest set of tokens with at least this probability is drawn from, in [0, 1]; never an empty one.
        top_k: only so many of the most probable tokens are drawn from; 0: all.
    """
    uniform = torch.stack([torch.rand((), generator=draw) for draw in draws]).to(logits.device)
    if temperature == 0:
        return logits.argmax(-1)
    probabilities = (logits / temperature).softmax(-1, dtype=torch.float64)
    ordered, order = probabilities.sort(stable=True, dim=-1, descending=True)
    if top_k:  # the share that `top_p` speaks of is one of these
        ordered = ordered[:, :top_k] / ordered[:, :top_k].sum(-1, keepdim=True)
    is_kept = ordered.cumsum(-1) - ordered < top_p
    is_kept[:, 0] = True
    kept = torch.zeros_like(probabilities).scatter(1, order[:, : is_kept.shape[1]], is_kept.double()) * probabilities
    summed = kept.cumsum(-1)
    place = torch.searchsorted(summed, uniform[:, None] * summed[:, -1:], right=True).squeeze(1)
    last = kept.shape[1] - 1 - (kept > 0).int().flip(-1).argmax(-1)
    return place.minimum(last)


def row_generators(seed: int | None, rows: int) -> list[torch.Generator]:
    """A generator for each of several answers to one request.

    Args:
        seed: of the request; the answers have different ones, which it determines. None: by chance.
        rows: how many.
    """
    base = secrets.randbits(64) if seed is None else seed
    return [torch.Generator().manual_seed(random.Random(f"{base}/{row}").getrandbits(63)) for row in range(rows)]


class SeededChoice(LogitsProcessor):
    """Leaves one token of each row, drawn by :func:`pick`; the last processor of all.

    Args:
        draws: a generator for each row.
        temperature, top_p, top_k: as for :func:`pick`.
    """

    def __init__(self, draws: Sequence[torch.Generator], temperature: float, top_p: float, top_k: int) -> None:
        self.draws = draws
        self.temperature, self.top_p, self.top_k = temperature, top_p, top_k

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """``scores`` [B, vocabulary] with minus infinity for every token but one of each row."""
        chosen = pick(scores.float(), self.draws, self.temperature, self.top_p, self.top_k)
        return torch.full_like(scores, -torch.inf).scatter(1, chosen[:, None], 0.0)


class AnswerPenalties(LogitsProcessor):
    """OpenAI's penalties and biases, which are added to the scores.

    A token that stands in the answer ``c`` times loses ``presence + c * frequency`` (nothing if c is 0). The question
    does not count.

    Args:
        prompt: tokens before the answer.
        presence, frequency: -2 to 2; negative ones favour what was said already.
        bias: what is added to single tokens, by id.
    """

    def __init__(self, prompt: int, presence: float, frequency: float, bias: Mapping[int, float]) -> None:
        self.prompt, self.presence, self.frequency = prompt, presence, frequency
        self.bias = dict(bias)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Changed ``scores`` [B, vocabulary] for ``input_ids`` [B, S]."""
        answer = input_ids[:, self.prompt :]
        counts = torch.zeros_like(scores).scatter_add_(1, answer, torch.ones_like(answer, dtype=scores.dtype))
        changed = scores - self.presence * (counts > 0) - self.frequency * counts
        if self.bias:
            changed[:, list(self.bias)] += torch.tensor(list(self.bias.values()), dtype=scores.dtype).to(scores.device)
        return changed


class RawLogProbs(LogitsProcessor):
    """Keeps the model's own log-probabilities of the step under way; the first processor of all.

    Attributes:
        latest: float32 ``[B, vocabulary]``, before penalties, temperature and top_p.
    """

    latest: torch.Tensor

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """``scores``, unchanged."""
        self.latest = scores.float().log_softmax(-1)
        return scores
