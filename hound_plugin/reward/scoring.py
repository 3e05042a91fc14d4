"""Scores: k judgements of each answer through the ledger, then ``scores.jsonl`` from the ledger.

The ledger is the source of truth; the file is written from it and can be rewritten. Judgements of the same texts are
one request, whatever their ids.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hound_plugin.errors import DataError
from hound_plugin.judge.backends import JudgeBackend
from hound_plugin.judge.parsing import Scale
from hound_plugin.judge.settings import JudgeSettings
from hound_plugin.judge.verdicts import stated_reason
from hound_plugin.llm.ledger import Ledger
from hound_plugin.llm.ledger_tables import Entry
from hound_plugin.llm.redaction import cut
from hound_plugin.llm.replies import why_missing
from hound_plugin.llm.requests import OK, Request
from hound_plugin.records.files import append_rows
from hound_plugin.records.jsonl import read_objects
from hound_plugin.records.questions import Question
from hound_plugin.records.run_folders import locked
from hound_plugin.reward.run_folder import SCORES, Row

NO_ANSWER = "unanswered"
LONGEST_REASON = 2000  # characters; the ledger has whole replies


def make_requests(
    questions: Sequence[Question],
    candidates: Mapping[str, Mapping[int, Row]],
    judge: JudgeBackend,
    settings: JudgeSettings,
    digests: Mapping[str, str] | None = None,
) -> Iterator[Request]:
    """One request for each answer and draw, in the order of the questions; generated one by one.

    Args:
        questions, candidates: what to judge.
        judge: makes the requests.
        settings: ``k``, ``seed`` and ``reference`` of the judge.
        digests: hash of each question's clip, if requests show it.
    """
    for question in questions:
        for candidate, row in sorted(candidates.get(question.id, {}).items()):
            fields = question.fields(row["answer"], settings.reference)
            for draw in range(settings.k):
                seed = None if settings.seed is None else settings.seed + 1000 * draw
                digest = None if digests is None else digests[question.id]
                yield judge.request(question.id, candidate, draw, fields, question.paths, seed, digest)


def write_scores(
    folder: Path, requests: Iterator[Request], ledger: Ledger, judge: JudgeBackend, name: str = SCORES
) -> dict[str, int]:
    """Append a row for each answer whose score is new or has changed; returns counts.

    Returns:
        ``scored`` and ``missing`` answers, and judgements by status.
    """
    counts: dict[str, int] = {"scored": 0, "missing": 0}
    with locked(folder, "scores"):
        existing = latest(folder / name)
        rows: list[Row] = []
        for (question, candidate), draws in _grouped(requests):
            entries = [ledger.entry(request.key) for request in draws]
            for entry in entries:
                status = entry.status if entry else NO_ANSWER
                counts[status] = counts.get(status, 0) + 1
            row = score_row(question, candidate, draws, entries, ledger, judge)
            counts["scored" if row["score"] is not None else "missing"] += 1
            if not _is_known(row, existing.get((question, candidate))):
                rows.append(row)
            if len(rows) >= 1000:
                append_rows(folder / name, rows)
                rows.clear()
        append_rows(folder / name, rows)
    return counts


def _is_known(row: Row, existing: Row | None) -> bool:
    """Whether a row is there already; one of an earlier version has no ``reasons``."""
    if existing is None or "reasons" in existing:
        return row == existing
    return {name: value for name, value in row.items() if name != "reasons"} == existing


def _grouped(requests: Iterator[Request]) -> Iterator[tuple[tuple[str, int], list[Request]]]:
    group: list[Request] = []
    for request in requests:
        if group and (request.id, request.candidate) != (group[0].id, group[0].candidate):
            yield (group[0].id, group[0].candidate), group
            group = []
        group.append(request)
    if group:
        yield (group[0].id, group[0].candidate), group


def score_row(
    question: str,
    candidate: int,
    requests: Sequence[Request],
    entries: Sequence[Entry | None],
    ledger: Ledger,
    judge: JudgeBackend,
) -> Row:
    """A row of ``scores.jsonl``: mean, single scores with their reasons, spread (highest minus lowest), and what is
    missing and why.
    """
    read = [entry for entry in entries if entry and entry.status == OK and isinstance(entry.value, int)]
    scores = [int(entry.value or 0) for entry in read]
    missing = []
    for request, entry in zip(requests, entries, strict=True):
        if entry is None:
            kind, message = ledger.last_failure(request.key) or ("", "not sent yet")
            missing.append({"draw": request.draw, "status": NO_ANSWER, "reason": f"{kind} {message}".strip()})
        elif entry.status != OK:
            why = {"why": reason} if (reason := why_missing(entry)) else {}
            missing.append({"draw": request.draw, "status": entry.status, "raw": cut(entry.raw), **why})
    recorded = [entry for entry in entries if entry]
    return {
        "id": question,
        "candidate": candidate,
        "score": round(statistics.fmean(scores), 6) if scores else None,
        "scores": scores,
        "reasons": [stated_reason(entry.raw, judge.scale)[:LONGEST_REASON] for entry in read],
        "spread": max(scores) - min(scores) if scores else None,
        "k": len(requests),
        "missing": missing,
        "judge": {
            **judge.record,
            "reported_models": sorted({entry.model for entry in recorded if entry.model}),
            "fingerprints": sorted({entry.fingerprint for entry in recorded if entry.fingerprint}),
        },
    }


def latest(path: str | Path) -> dict[tuple[str, int], Row]:
    """The last row of each answer, which is the one that counts.

    Raises:
        DataError: a row without id or candidate, or with an invalid score.
    """
    rows: dict[tuple[str, int], Row] = {}
    for number, row in enumerate(read_objects(path), 1):
        score = row.get("score")
        if "id" not in row or not isinstance(row.get("candidate"), int) or "score" not in row:
            raise DataError(f"{path}, row {number}: expected id, candidate and score.")
        scale = _scale(row, f"{path}, row {number}")
        if score is not None and (isinstance(score, bool) or not isinstance(score, int | float) or score not in scale):
            raise DataError(f"{path}, row {number}: expected a score from {scale} or null, got {score!r}.")
        rows[str(row["id"]), row["candidate"]] = row
    return rows


def _scale(row: Row, where: str) -> Scale:
    judge = row.get("judge")
    bounds = judge.get("scale", [1, 5]) if isinstance(judge, dict) else [1, 5]
    if not isinstance(bounds, list) or len(bounds) != 2 or not all(type(bound) is int for bound in bounds):
        raise DataError(f"{where}: expected two whole numbers as the judge's scale, got {bounds!r}.")
    return Scale(*bounds)


def scale_of(rows: Mapping[tuple[str, int], Row], where: str | Path) -> Scale:
    """The one scale of all these scores; 1 to 5 if none is recorded.

    Raises:
        DataError: there are two.
    """
    scales = {_scale(row, str(where)) for row in rows.values()}
    if len(scales) > 1:
        names = " and ".join(sorted(map(str, scales)))
        raise DataError(f"{where} has scores on {names}. Judge all answers on one scale.")
    return scales.pop() if scales else Scale()


def judge_of(rows: Mapping[tuple[str, int], Row], where: str | Path) -> Row:
    """The one judge of all these scores.

    Raises:
        DataError: there are two.
    """
    names = ("backend", "endpoint", "model", "protocol", "smoke_test")
    judges = {
        tuple((name, str(row["judge"][name])) for name in names if name in row.get("judge", {}))
        for row in rows.values()
    }
    if len(judges) > 1:
        texts = sorted(" ".join(value for _, value in judge) for judge in judges)
        raise DataError(
            f"{where} has scores of {len(judges)} judges ({'; '.join(texts)}). Judge all answers with one of them."
        )
    return dict(judges.pop()) if judges else {}
