"""Which token comes next: penalties, biases, and draws that depend only on their own seed.

These are logits processors for ``model.generate``. The last of them leaves one token per row, so generation itself
stays greedy: nothing is drawn from torch's global generator, which concurrent requests would share.
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
    """Choose one token for each row of ``logits`` ``[N, vocabulary]``: ``[N]``, int64.

    One uniform number per row and step is taken from the row's own generator, on the CPU, and looked up in the
    cumulative probabilities in the order of token ids. GPU and CPU thus draw the same, and tokens of nearly the same
    probability, whose order depends on rounding, do not swap places.

    Args:
        logits: float32.
        draws: a generator for each row.
        temperature: 0 means the most probable token.
        top_p: tokens are drawn from the smallest non-empty set with at least this probability, in [0, 1].
        top_k: number of most probable tokens to draw from; 0: all.
    """
    uniform = torch.stack([torch.rand((), generator=draw) for draw in draws]).to(logits.device)
    if temperature == 0:
        return logits.argmax(-1)
    probabilities = (logits / temperature).softmax(-1, dtype=torch.float64)
    ordered, order = probabilities.sort(stable=True, dim=-1, descending=True)
    if top_k:  # `top_p` is a share of these
        ordered = ordered[:, :top_k] / ordered[:, :top_k].sum(-1, keepdim=True)
    is_candidate = ordered.cumsum(-1) - ordered < top_p
    is_candidate[:, 0] = True
    candidates = (
        torch.zeros_like(probabilities).scatter(1, order[:, : is_candidate.shape[1]], is_candidate.double())
        * probabilities
    )
    summed = candidates.cumsum(-1)
    position = torch.searchsorted(summed, uniform[:, None] * summed[:, -1:], right=True).squeeze(1)
    last = candidates.shape[1] - 1 - (candidates > 0).int().flip(-1).argmax(-1)
    return position.minimum(last)


def row_generators(seed: int | None, rows: int) -> list[torch.Generator]:
    """A generator for each of several answers to one request.

    Args:
        seed: of the request, from which each answer's own seed is derived. None: random.
        rows: number of answers.
    """
    base = secrets.randbits(64) if seed is None else seed
    return [torch.Generator().manual_seed(random.Random(f"{base}/{row}").getrandbits(63)) for row in range(rows)]


class SeededChoice(LogitsProcessor):
    """Leaves one token per row, drawn by :func:`pick`; must be the last processor.

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

    A token that occurs in the answer ``c`` times loses ``presence + c * frequency`` (nothing if c is 0). The question
    does not count.

    Args:
        prompt: tokens before the answer.
        presence, frequency: -2 to 2; negative values favour repetition.
        bias: added to the scores of single tokens, by id.
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
    """Records the model's own log-probabilities of the current step; must be the first processor.

    Attributes:
        latest: float32 ``[B, vocabulary]``, before penalties, temperature and top_p.
    """

    latest: torch.Tensor

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """``scores``, unchanged."""
        self.latest = scores.float().log_softmax(-1)
        return scores
