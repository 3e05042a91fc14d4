"""What happened in a run folder, as one dict from which Markdown, plots and page are made."""

from __future__ import annotations

import itertools
import json
import math
import statistics as means
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hound_plugin.errors import DataError
from hound_plugin.judge.agreement import kappa, spearman
from hound_plugin.judge.lexical import SMOKE_TEST
from hound_plugin.judge.parsing import Scale
from hound_plugin.pages.charts import histogram
from hound_plugin.records.jsonl import read_objects
from hound_plugin.records.questions import Question
from hound_plugin.records.words import words_of
from hound_plugin.reward.candidates import read_candidates
from hound_plugin.reward.run_folder import CANDIDATES, SCORES, Row
from hound_plugin.reward.scoring import latest, scale_of

Key = tuple[str, int]


def summarise(
    folder: Path, questions: Sequence[Question], pair_file: Path, k: int, second: str | None = None
) -> dict[str, Any]:
    """Counts, distributions, correlations and agreement of a run.

    Raises:
        DataError: there are no scores, or a second judge's file has none of these answers.
    """
    known = {question.id: question for question in questions}
    candidates = {name: rows for name, rows in read_candidates(folder).items() if name in known}
    scores = {key: row for key, row in latest(folder / SCORES).items() if key[0] in known}
    if not scores:
        raise DataError(f"{folder}: there are no scores to report on. Run `hound reward judge` first.")
    pairs = list(read_objects(pair_file))
    answers = {(name, number): row for name, rows in candidates.items() for number, row in rows.items()}
    scored = {key: row for key, row in scores.items() if row["score"] is not None and key in answers}
    scale = scale_of(scores, folder / SCORES)
    middles, edges = score_bins(scale)
    judges = [row.get("judge", {}) for row in scores.values()]
    return {
        "smoke_test": SMOKE_TEST if any("smoke_test" in judge for judge in judges) else None,
        "judges": sorted({json.dumps(judge, sort_keys=True) for judge in judges}),
        "counts": {
            "questions": len(questions),
            "answers": len(answers),
            "duplicates": sum(row.get("duplicate_of") is not None for row in answers.values()),
            "cut at the limit of tokens": sum(row.get("finish") == "length" for row in answers.values()),
            "scored": len(scored),
            "missing": len(answers) - len(scored),
            "pairs": len(pairs),
        },
        "missing_by_reason": dict(Counter(m["status"] for row in scores.values() for m in row.get("missing", []))),
        "scores": {
            "middles": middles,
            "edges": edges,
            "counts": histogram([row["score"] for row in scored.values()], edges),
        },
        "length_score": _length_score(answers, scored),
        "pairs": _pair_numbers(pairs, scale),
        "sources": _sources(known, answers, scored, pairs),
        "agreement": _draws(scored, k, scale),
        "second": None if second is None else _second(scored, answers, second, scale),
    }


def score_bins(scale: Scale) -> tuple[list[float], list[float]]:
    """Middles and edges of the bins of scores: half a point wide, or one point if the scale is wider than ten."""
    width = 0.5 if scale.highest - scale.lowest <= 10 else 1.0
    count = round((scale.highest - scale.lowest) / width) + 1
    middles = [scale.lowest + width * index for index in range(count)]
    return [int(m) if m == int(m) else m for m in middles], [*(m - width / 2 for m in middles), middles[-1] + width / 2]


def words(text: str) -> int:
    """Length of an answer in words; in scripts without spaces each letter is one."""
    return len(words_of(text))


def _length_score(answers: Mapping[Key, Row], scored: Mapping[Key, Row]) -> dict[str, Any]:
    lengths = [words(answers[key]["answer"]) for key in scored]
    scores = [row["score"] for row in scored.values()]
    within = []  # the same within each question, which removes the effect of its difficulty
    groups = itertools.groupby(sorted(scored), key=lambda key: key[0])
    for _, group in groups:
        keys = list(group)
        value = spearman([words(answers[key]["answer"]) for key in keys], [scored[key]["score"] for key in keys])
        if not math.isnan(value):
            within.append(value)
    return {
        "points": [[length, score] for length, score in zip(lengths, scores, strict=True)][:5000],
        "spearman": _number(spearman(lengths, scores)),
        "spearman_within_questions": _number(means.fmean(within)) if within else None,
    }


def _pair_numbers(pairs: Sequence[Row], scale: Scale) -> dict[str, Any]:
    middles, edges = score_bins(scale)
    lengths = [(words(p["chosen"]), words(p["rejected"])) for p in pairs]
    chosen = [p["chosen_score"] for p in pairs if p["chosen_score"] is not None]
    return {
        "lengths": lengths,
        "mean_words": [_number(means.fmean(side)) for side in zip(*lengths, strict=True)] if lengths else [None, None],
        "chosen_longer": sum(a > b for a, b in lengths),
        "chosen_scores": histogram(chosen, edges),
        "rejected_scores": histogram([p["rejected_score"] for p in pairs], edges),
        "middles": middles,
    }


def _sources(
    known: Mapping[str, Question], answers: Mapping[Key, Row], scored: Mapping[Key, Row], pairs: Sequence[Row]
) -> list[dict[str, Any]]:
    names = {question.id: question.source or "(none)" for question in known.values()}
    table = []
    for source in sorted(set(names.values())):
        source_scores = [row["score"] for key, row in scored.items() if names.get(key[0]) == source]
        table.append(
            {
                "source": source,
                "questions": sum(name == source for name in names.values()),
                "answers": sum(names.get(key[0]) == source for key in answers),
                "scored": len(source_scores),
                "mean_score": _number(means.fmean(source_scores)) if source_scores else None,
                "pairs": sum((pair.get("source") or "(none)") == source for pair in pairs),
            }
        )
    return table


def _draws(scored: Mapping[Key, Row], k: int, scale: Scale) -> dict[str, Any] | None:
    """Agreement of the first two judgements of each answer, and the mean spread of all."""
    if k < 2:
        return None
    both = [row["scores"] for row in scored.values() if len(row["scores"]) >= 2]
    one, two = [row[0] for row in both], [row[1] for row in both]
    spread = means.fmean(row["spread"] for row in scored.values()) if scored else math.nan
    return {**_agreement(one, two, scale), "mean_spread": _number(spread)}


def _second(scored: Mapping[Key, Row], answers: Mapping[Key, Row], path: str, scale: Scale) -> dict[str, Any]:
    if not Path(path).is_file():
        raise DataError(f"report.second: expected the scores.jsonl of another judge, but {path} does not exist.")
    other = latest(path)
    if scale_of(other, path) != scale:
        raise DataError(f"report.second: {path} has scores on {scale_of(other, path)}; this run has scores on {scale}.")
    keys = [key for key in scored if key in other and other[key]["score"] is not None]
    if not keys:
        raise DataError(f"report.second: {path} has no scores for any of the {len(scored)} answers scored here.")
    known = _check_same_answers(keys, answers, Path(path))
    first, second = [scored[key]["score"] for key in keys], [other[key]["score"] for key in keys]
    return {**_agreement(first, second, scale), "file": path, **known}


def _check_same_answers(keys: Sequence[Key], answers: Mapping[Key, Row], path: Path) -> dict[str, str]:
    """Refuse a second judge's scores of other answers; what the report says if that cannot be known."""
    file = path.with_name(CANDIDATES)
    theirs = read_candidates(path.parent) if file.is_file() else {}
    if not theirs:
        return {"were_the_answers_the_same": f"unknown: {file} is not there"}
    other = [key for key in keys if theirs.get(key[0], {}).get(key[1], {}).get("answer") != answers[key]["answer"]]
    if other:
        raise DataError(
            f"report.second: {len(other)} of the {len(keys)} scores of {path} are of other answers ({file}) than those "
            f"of this run, such as that of question {other[0][0]!r}, answer {other[0][1]}. Agreement is of two judges "
            "on the same answers: give the second run this run's candidates.jsonl by `sample.backend: given`."
        )
    return {}


def _agreement(one: Sequence[float], two: Sequence[float], scale: Scale) -> dict[str, Any]:
    """Numbers of agreement; kappa is None where a mean of several judgements is not a whole number."""
    labels = range(scale.lowest, scale.highest + 1)
    is_whole = all(score in labels for score in (*one, *two))
    first, second = ([int(score) for score in side] if is_whole else [] for side in (one, two))
    return {
        "answers": len(one),
        "same": sum(a == b for a, b in zip(one, two, strict=True)),
        "spearman": _number(spearman(one, two)),
        "kappa": _number(kappa(first, second, labels)),
        "weighted_kappa": _number(kappa(first, second, labels, weighted=True)),
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)
