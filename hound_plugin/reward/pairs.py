"""Preference pairs from scored answers. Pure: the same input and seed give the same pairs."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hound_plugin.judge.parsing import Scale
from hound_plugin.records.questions import Question
from hound_plugin.records.seeds import make_seed
from hound_plugin.records.words import overlap, words_of
from hound_plugin.reward.run_folder import Row
from hound_plugin.reward.settings import PairSettings

REFERENCE = "reference"
BY_HAND = "dropped by hand"
ONE_TO_FIVE = Scale()
_DIGITS = 9  # of a gap: means of thirds that are 1 apart differ by 0.9999999999999996


@dataclass(frozen=True)
class Answer:
    """A text that can be part of a pair; ``score`` is None for a reference, which was not judged."""

    candidate: int | str
    text: str
    score: float | None


@dataclass(frozen=True)
class Pair:
    """A preferred and a less preferred answer to one question.

    ``gap`` is the difference of their scores; for this alone, a reference counts as the best score of the scale.
    """

    question: Question
    chosen: Answer
    rejected: Answer
    gap: float

    @property
    def id(self) -> str:
        """Unique within a run, and the same in every run on the same answers."""
        return f"{self.question.id}-{self.chosen.candidate}-{self.rejected.candidate}"


@dataclass
class PairResult:
    """Pairs, and why questions and other pairs were dropped."""

    pairs: list[Pair] = field(default_factory=list)
    questions_dropped: Counter[str] = field(default_factory=Counter)
    pairs_dropped: Counter[str] = field(default_factory=Counter)


def make_pairs(
    questions: Sequence[Question],
    candidates: Mapping[str, Mapping[int, Row]],
    scores: Mapping[tuple[str, int], Row],
    settings: PairSettings,
    seed: int,
    excluded: frozenset[str] = frozenset(),
    scale: Scale = ONE_TO_FIVE,
) -> PairResult:
    """Pairs by a policy, then filters, then at most ``max_pairs`` per question, the largest gap first, ties by seed.

    A pair that was dropped by hand leaves its place empty, since the next one of its question has been seen by nobody,
    unless ``replace_dropped`` is set.

    Policies:
        threshold: chosen at or above ``threshold``; rejected below it, and below the chosen.
        best-worst: one of the best against one of the worst.
        all: any two answers of different scores.
        margin: any two answers at least ``margin`` apart.

    Args:
        questions: in the order of the result.
        candidates: rows of answers by question and number.
        scores: rows of scores by question and number.
        settings: policy and filters.
        seed: decides between pairs of the same gap.
        excluded: ids of pairs that were dropped by hand.
        scale: of the scores.
    """
    result = PairResult()
    for question in questions:
        answers, reason = _answers(question, candidates.get(question.id, {}), scores)
        possible = [] if reason else _possible(question, answers, settings, scale)
        if not possible:
            result.questions_dropped[reason or _why_none(answers, settings)] += 1
            continue
        kept = []
        for pair in possible:
            is_out = settings.replace_dropped and pair.id in excluded
            problem = BY_HAND if is_out else _problem(pair, settings)
            if problem:
                result.pairs_dropped[problem] += 1
            else:
                kept.append(pair)
        kept.sort(key=lambda pair: (-pair.gap, make_seed("pair", seed, pair.id)))
        limit = 1 if settings.policy == "best-worst" else settings.max_pairs
        result.pairs_dropped["beyond max_pairs"] += len(kept[limit:])
        selected = [pair for pair in kept[:limit] if pair.id not in excluded]
        result.pairs_dropped[BY_HAND] += len(kept[:limit]) - len(selected)
        result.pairs += selected
        if not selected:
            result.questions_dropped["every pair dropped by hand" if kept else "every pair filtered out"] += 1
    result.pairs_dropped += Counter()  # without zeros
    return result


def _answers(
    question: Question, candidates: Mapping[int, Row], scores: Mapping[tuple[str, int], Row]
) -> tuple[list[Answer], str]:
    """Scored answers, each text once, and the reason if there are none."""
    if not candidates:
        return [], "no answers sampled"
    answers = []
    for candidate, row in sorted(candidates.items()):
        score = scores.get((question.id, candidate), {}).get("score")
        if row.get("duplicate_of") is None and row["answer"].strip() and score is not None:
            answers.append(Answer(candidate, row["answer"], float(score)))
    return answers, "" if answers else "no answer has a score"


def _possible(question: Question, answers: Sequence[Answer], settings: PairSettings, scale: Scale) -> list[Pair]:
    """All pairs that the policy allows, before any filter."""
    chosen: Sequence[Answer] = answers
    if settings.chosen_from_reference:
        chosen = [Answer(REFERENCE, question.reference, None)] if question.reference else []
    pairs = []
    for one, other in itertools.product(chosen, answers):
        gap = round(_rank(one, scale) - _rank(other, scale), _DIGITS)
        if gap > 0:
            pairs.append(Pair(question, one, other, gap))
    widest = max((pair.gap for pair in pairs), default=0.0)
    return [pair for pair in pairs if _is_allowed(pair, settings, scale, widest)]


def _rank(answer: Answer, scale: Scale) -> float:
    return float(scale.highest) if answer.score is None else answer.score


def _is_allowed(pair: Pair, settings: PairSettings, scale: Scale, widest: float) -> bool:
    match settings.policy:
        case "threshold":
            return _rank(pair.chosen, scale) >= settings.threshold > _rank(pair.rejected, scale)
        case "best-worst":
            return pair.gap == widest
        case "margin":
            return pair.gap >= settings.margin
        case "all":
            return True


def _why_none(answers: Sequence[Answer], settings: PairSettings) -> str:
    scores = [answer.score or 0.0 for answer in answers]
    if settings.chosen_from_reference:
        return "no reference, or no answer below it"
    if len(answers) < 2:
        return "fewer than two different answers"
    if len(set(scores)) == 1:
        return "all answers scored alike"
    if settings.policy == "threshold" and max(scores) < settings.threshold:
        return "no answer at or above the threshold"
    if settings.policy == "threshold":
        return "no answer below the threshold"
    return "no two answers far enough apart"


def _problem(pair: Pair, settings: PairSettings) -> str:
    if pair.gap < settings.min_gap:
        return "gap below min_gap"
    chosen, rejected = pair.chosen.text, pair.rejected.text
    if settings.near_duplicate is not None and similarity(chosen, rejected) >= settings.near_duplicate:
        return "near duplicates"
    lengths = sorted(max(1, len(words_of(text))) for text in (chosen, rejected))
    if settings.max_length_ratio is not None and lengths[1] / lengths[0] > settings.max_length_ratio:
        return "lengths too different"
    return ""


def similarity(one: str, two: str) -> float:
    """Overlap of words and of pairs of neighbouring words, 0 to 1; 1 for texts with the same words in the same order.

    Neighbours count because "left of right" and "right of left" are different answers.
    """
    words = [words_of(text) for text in (one, two)]
    return overlap(*([*text, *itertools.pairwise(text)] for text in words))


def pair_row(pair: Pair, provenance: Mapping[str, Any]) -> Row:
    """A row that the host reads with ``formatting: hound`` and ``ranking: true``."""
    question = pair.question
    return {
        "id": pair.id,
        **({question.medium: question.media} if question.medium else {}),
        "prompt": question.prompt,
        "chosen": pair.chosen.text,
        "rejected": pair.rejected.text,
        "chosen_score": pair.chosen.score,
        "rejected_score": pair.rejected.score,
        "question_id": question.id,
        "chosen_candidate": str(pair.chosen.candidate),
        "rejected_candidate": str(pair.rejected.candidate),
        "source": question.source,
        **provenance,
    }
