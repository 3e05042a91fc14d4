"""Judging: k judgements of each answer through the ledger, then ``scores.jsonl`` from what the ledger holds.

The ledger is the truth; the file is written from it and can be written again. Judgements of the same texts are one
request, whatever ids they come under.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hound_plugin.errors import DataError
from hound_plugin.llm.requests import OK, Client, Task, request_key
from hound_plugin.llm.ledger import Ledger
from hound_plugin.judge.parsing import Scale
from hound_plugin.llm.ledger_tables import Entry
from hound_plugin.llm.runner import why_missing
from hound_plugin.records.files import append_rows
from hound_plugin.records.jsonl import read_objects
from hound_plugin.reward.questions import Question
from hound_plugin.reward.settings import JudgeSettings
from hound_plugin.reward.run_folder import Row, locked

LEDGER = "ledger.sqlite"
FILE = "scores.jsonl"
NO_ANSWER = "unanswered"


@dataclass(frozen=True)
class Judge:
    """A client with what makes its requests: everything in ``determines`` is part of every request's key."""

    client: Client
    protocol: str
    determines: Mapping[str, Any]
    scale: Scale = Scale()  # noqa: RUF009 - frozen

    @property
    def record(self) -> Row:
        """What is written with every score; the scale where it is not 1 to 5."""
        scale = {} if self.scale == Scale() else {"scale": [self.scale.lowest, self.scale.highest]}
        return {**self.client.identity, "protocol": self.protocol, **scale}


def make_tasks(
    questions: Sequence[Question],
    candidates: Mapping[str, Mapping[int, Row]],
    judge: Judge,
    settings: JudgeSettings,
    media_digest: Mapping[str, str] | None = None,
) -> Iterator[Task]:
    """One task for each answer and draw, in the order of the questions; nothing is held in memory."""
    for question in questions:
        for candidate, row in sorted(candidates.get(question.id, {}).items()):
            fields = question.fields(row["answer"], settings.reference)
            for draw in range(settings.k):
                seed = None if settings.seed is None else settings.seed + 1000 * draw
                parts = {**judge.determines, "protocol": judge.protocol, "fields": fields, "draw": draw, "seed": seed}
                if media_digest is not None:
                    parts["media"] = media_digest[question.id]
                yield Task(request_key(parts), question.id, candidate, draw, fields, question.paths, seed)


def write_scores(folder: Path, tasks: Iterator[Task], ledger: Ledger, judge: Judge, name: str = FILE) -> dict[str, int]:
    """Append a row for each answer whose score is new or has changed; gives counts.

    Returns:
        ``scored`` and ``missing`` answers, and judgements by status.
    """
    counts: dict[str, int] = {"scored": 0, "missing": 0}
    with locked(folder, "scores"):
        held = latest(folder / name)
        rows: list[Row] = []
        for (question, candidate), drawn in _grouped(tasks):
            entries = [ledger.entry(task.key) for task in drawn]
            for entry in entries:
                status = entry.status if entry else NO_ANSWER
                counts[status] = counts.get(status, 0) + 1
            row = score_row(question, candidate, drawn, entries, ledger, judge)
            counts["scored" if row["score"] is not None else "missing"] += 1
            if held.get((question, candidate)) != row:
                rows.append(row)
            if len(rows) >= 1000:
                append_rows(folder / name, rows)
                rows.clear()
        append_rows(folder / name, rows)
    return counts


def _grouped(tasks: Iterator[Task]) -> Iterator[tuple[tuple[str, int], list[Task]]]:
    group: list[Task] = []
    for task in tasks:
        if group and (task.id, task.candidate) != (group[0].id, group[0].candidate):
            yield (group[0].id, group[0].candidate), group
            group = []
        group.append(task)
    if group:
        yield (group[0].id, group[0].candidate), group


def score_row(
    question: str, candidate: int, tasks: Sequence[Task], entries: Sequence[Entry | None], ledger: Ledger, judge: Judge
) -> Row:
    """A row of ``scores.jsonl``: mean, single scores, spread (largest less smallest), and what is missing and why."""
    scores = [entry.value for entry in entries if entry and entry.status == OK and isinstance(entry.value, int)]
    missing = []
    for task, entry in zip(tasks, entries, strict=True):
        if entry is None:
            kind, message = ledger.last_failure(task.key) or ("", "not asked yet")
            missing.append({"draw": task.draw, "status": NO_ANSWER, "reason": f"{kind} {message}".strip()})
        elif entry.status != OK:
            why = {"why": reason} if (reason := why_missing(entry)) else {}
            missing.append({"draw": task.draw, "status": entry.status, "raw": entry.raw, **why})
    answered = [entry for entry in entries if entry]
    return {
        "id": question,
        "candidate": candidate,
        "score": round(statistics.fmean(scores), 6) if scores else None,
        "scores": scores,
        "spread": max(scores) - min(scores) if scores else None,
        "k": len(tasks),
        "missing": missing,
        "judge": {
            **judge.record,
            "reported_models": sorted({entry.model for entry in answered if entry.model}),
            "fingerprints": sorted({entry.fingerprint for entry in answered if entry.fingerprint}),
        },
    }


def latest(path: str | Path) -> dict[tuple[str, int], Row]:
    """The last row of each answer; that is the one that counts.

    Raises:
        DataError: a row without id or candidate, or a score that is none.
    """
    found: dict[tuple[str, int], Row] = {}
    for number, row in enumerate(read_objects(path), 1):
        score = row.get("score")
        if "id" not in row or not isinstance(row.get("candidate"), int) or "score" not in row:
            raise DataError(f"{path}, row {number}: expected id, candidate and score.")
        scale = _scale(row, f"{path}, row {number}")
        if score is not None and (isinstance(score, bool) or not isinstance(score, int | float) or score not in scale):
            raise DataError(f"{path}, row {number}: expected a score from {scale} or null, got {score!r}.")
        found[str(row["id"]), row["candidate"]] = row
    return found


def _scale(row: Row, where: str) -> Scale:
    judge = row.get("judge")
    bounds = judge.get("scale", [1, 5]) if isinstance(judge, dict) else [1, 5]
    if not isinstance(bounds, list) or len(bounds) != 2 or not all(type(bound) is int for bound in bounds):
        raise DataError(f"{where}: expected two whole numbers as the judge's scale, got {bounds!r}.")
    return Scale(*bounds)


def scale_of(rows: Mapping[tuple[str, int], Row], where: str | Path) -> Scale:
    """The one scale of all these scores, 1 to 5 where none is written.

    Raises:
        DataError: there are two.
    """
    scales = {_scale(row, str(where)) for row in rows.values()}
    if len(scales) > 1:
        raise DataError(f"{where} holds scores on {' and '.join(sorted(map(str, scales)))}. Judge all on one scale.")
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
            f"{where} holds scores of {len(judges)} judges ({'; '.join(texts)}). Judge all with one of them."
        )
    return dict(judges.pop()) if judges else {}
