"""Implicit reward: how much more likely an answer is under the policy than under the reference.

Source: Rafailov et al., 2023 (arXiv 2305.18290), equation 5 without the term that depends only on the question.
``reward = beta * (log p_policy(answer) - log p_reference(answer))``, summed over the answer's tokens, or per token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from hound_plugin.errors import DataError, SettingsError
from hound_plugin.records.files import write_rows
from hound_plugin.records.questions import Question
from hound_plugin.records.run_folders import locked
from hound_plugin.reward.run_folder import RANKED, Row


class LogProbs(Protocol):
    """A model that computes the log-probabilities of given answers."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """The model and its fingerprint."""

    def log_probs(self, items: Sequence[tuple[str, str, Any]]) -> list[tuple[float, int]]:
        """Sum of the answer's token log-probabilities and number of tokens, for each (question, answer, clip)."""


def log_probs_of(
    model: LogProbs, items: Sequence[tuple[Question, int, str]], batch_size: int = 8
) -> list[tuple[float, int]]:
    """Log-probabilities of answers, in batches.

    Raises:
        DataError: a value is not finite.
    """
    results: list[tuple[float, int]] = []
    for start in range(0, len(items), batch_size):
        chunk = items[start : start + batch_size]
        for (question, candidate, _), (value, tokens) in zip(
            chunk, model.log_probs([(q.text, answer, q.paths) for q, _, answer in chunk]), strict=True
        ):
            if not math.isfinite(value) or tokens < 1:
                raise DataError(
                    f"question {question.id}, answer {candidate}: log-probability {value} of {tokens} tokens."
                )
            results.append((value, tokens))
    return results


def implicit_rewards(
    policy: Sequence[tuple[float, int]],
    reference: Sequence[tuple[float, int]],
    beta: float = 1.0,
    per_token: bool = False,
) -> list[float]:
    """``beta`` times the difference of log-probabilities, divided by the number of tokens if ``per_token``.

    Raises:
        SettingsError: ``beta`` is not above 0, or both models count tokens differently.
    """
    if not beta > 0:
        raise SettingsError(f"beta: expected a number above 0; got {beta!r}.")
    rewards = []
    for (policy_log_prob, tokens), (reference_log_prob, reference_tokens) in zip(policy, reference, strict=True):
        if tokens != reference_tokens:
            raise SettingsError(
                f"Policy and reference encode an answer as {tokens} and {reference_tokens} tokens: they need the same "
                "tokenizer."
            )
        rewards.append(beta * (policy_log_prob - reference_log_prob) / (tokens if per_token else 1))
    return rewards


def rank_answers(
    items: Sequence[tuple[Question, int, str]],
    rewards: Sequence[float],
    policy: Sequence[tuple[float, int]],
    reference: Sequence[tuple[float, int]],
) -> list[Row]:
    """Rows with ``reward`` and ``rank`` (1 is best; ties by number of the answer), in the order of the questions."""
    groups: dict[str, list[int]] = {}
    for index, (question, _, _) in enumerate(items):
        groups.setdefault(question.id, []).append(index)
    rows = []
    for name, indices in groups.items():
        ordered = sorted(indices, key=lambda index: (-rewards[index], items[index][1]))
        for rank, index in enumerate(ordered, 1):
            rows.append(
                {
                    "id": name,
                    "candidate": items[index][1],
                    "answer": items[index][2],
                    "reward": rewards[index],
                    "rank": rank,
                    "policy_log_prob": policy[index][0],
                    "reference_log_prob": reference[index][0],
                    "tokens": policy[index][1],
                }
            )
    return rows


def rank_file(
    folder: Path,
    items: Sequence[tuple[Question, int, str]],
    make_policy: Callable[[], LogProbs],
    make_reference: Callable[[], LogProbs],
    beta: float,
    per_token: bool,
    batch_size: int,
) -> list[Row]:
    """Rank answers with one model in memory at a time, and write ``ranked.jsonl``."""
    if not items:
        raise DataError(f"{folder}: there are no answers to rank. Run `hound reward sample` first.")
    with locked(folder, "rank"):
        model = make_policy()
        names = {"policy": dict(model.identity)}
        policy = log_probs_of(model, items, batch_size)
        del model
        model = make_reference()
        names["reference"] = dict(model.identity)
        reference = log_probs_of(model, items, batch_size)
        rewards = implicit_rewards(policy, reference, beta, per_token)
        rows = rank_answers(items, rewards, policy, reference)
        shown = [{**row, "beta": beta, "per_token": per_token, **names} for row in rows]
        write_rows(folder / RANKED, shown)
    return rows


def agreement_with_scores(rows: Sequence[Row], scores: Mapping[tuple[str, int], Row]) -> dict[str, Any]:
    """How often the implicit reward and the judge order two answers the same way, over pairs of different scores."""
    by_question: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        score = scores.get((row["id"], row["candidate"]), {}).get("score")
        if score is not None:
            by_question.setdefault(row["id"], []).append((row["reward"], score))
    alike = total = 0
    for answers in by_question.values():
        for number, (reward, score) in enumerate(answers):
            for other_reward, other_score in answers[number + 1 :]:
                if score != other_score and reward != other_reward:
                    total += 1
                    alike += (reward > other_reward) == (score > other_score)
    return {"pairs": total, "alike": alike, "share": alike / total if total else None}


def best_of_n(rows: Sequence[Row]) -> list[Row]:
    """The best answer of each question."""
    return [row for row in rows if row["rank"] == 1]
