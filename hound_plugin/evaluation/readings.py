"""From a judge's replies to judgements: strictly, or as the original reads them. Nothing is requested here."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from hound_plugin.evaluation.items import FAILED, JUDGED, UNREADABLE, Judgement
from hound_plugin.evaluation.original import original_protocol, original_verdict
from hound_plugin.judge.backends import JudgeBackend
from hound_plugin.judge.parsing import read_score
from hound_plugin.judge.prompts import JudgePrompt
from hound_plugin.judge.verdicts import read_verdict, stated_reason
from hound_plugin.llm.ledger import Ledger
from hound_plugin.llm.ledger_tables import Entry
from hound_plugin.llm.redaction import cut
from hound_plugin.llm.replies import why_missing
from hound_plugin.llm.requests import EMPTY, OK, REFUSED, TRUNCATED, UNPARSED, Request

LONGEST_REASON = 2_000  # characters; the ledger has whole replies
CORRECT_FROM = 3.0
"""Lowest score of a right answer on the scale from 1 to 5."""


class ReadingSettings(Protocol):
    """How replies are read: the part of the ``judge`` block that only an evaluation has."""

    @property
    def parsing(self) -> str: ...
    @property
    def correct_from(self) -> float | None: ...


@dataclass(frozen=True)
class OriginalPrompt(JudgePrompt):
    """A prompt that takes every reply, cut ones too: the original's parsers always find something to do with it."""

    keeps_truncated: bool = True

    def parse(self, text: str) -> int | str | None:
        """The reply itself."""
        return text


def read_reply(
    request: Request, entry: Entry | None, backend: JudgeBackend, judge: ReadingSettings, ledger: Ledger
) -> Judgement:
    """One judgement; ``correct`` and ``score`` only if the reply states them."""
    if entry is None:
        kind, message = ledger.last_failure(request.key) or ("", "not sent yet")
        return Judgement(request.id, FAILED, reason=f"{kind} {message}".strip())
    if judge.parsing == "original" and entry.status in (OK, UNPARSED, EMPTY, TRUNCATED):
        score, correct = original_verdict(original_protocol(backend.verdict), entry.raw)
        status = UNREADABLE if score is None and correct is None else JUDGED
        return Judgement(request.id, status, correct, score, raw=entry.raw)
    if entry.status in (OK, UNPARSED):
        return _strict(request.id, entry.raw, backend, judge)
    if entry.status in (EMPTY, TRUNCATED, REFUSED):
        why = f"{entry.status} {why_missing(entry)}".strip()
        return Judgement(request.id, UNREADABLE, reason=why, raw=cut(entry.raw))
    return Judgement(request.id, FAILED, reason=f"{entry.status}: {entry.raw}"[:500], raw=cut(entry.raw))


def _strict(id: str, raw: str, backend: JudgeBackend, judge: ReadingSettings) -> Judgement:
    reason, shown = stated_reason(raw, backend.scale)[:LONGEST_REASON], cut(raw)
    if backend.verdict:
        verdict = read_verdict(raw, backend.scale)
        if verdict.correct is None:
            return Judgement(id, UNREADABLE, reason=verdict.why, raw=shown)
        return Judgement(id, JUDGED, verdict.correct, verdict.score, reason, shown)
    reading = read_score(raw, backend.scale)
    if reading.score is None:
        return Judgement(id, UNREADABLE, reason=reading.why, raw=shown)
    return Judgement(id, JUDGED, reading.score >= threshold_of(judge), reading.score, reason, shown)


def threshold_of(judge: ReadingSettings) -> float:
    return CORRECT_FROM if judge.correct_from is None else judge.correct_from


def join_draws(readings: Sequence[Judgement], has_verdict: bool, threshold: float) -> Judgement:
    """Several draws as one: the mean score, and the majority of verdicts; a tie has none and is unreadable."""
    judged = [reading for reading in readings if reading.status == JUDGED]
    if not judged:
        return next((reading for reading in readings if reading.status == UNREADABLE), readings[0])
    score = statistics.fmean(reading.score for reading in judged if reading.score is not None)
    yes = sum(bool(reading.correct) for reading in judged)
    if has_verdict and 2 * yes == len(judged):
        why = f"{yes} of {len(judged)} judgements say yes"
        return replace(judged[0], status=UNREADABLE, correct=None, score=None, reason=why)
    correct = 2 * yes > len(judged) if has_verdict else score >= threshold
    agreeing = next((reading for reading in judged if reading.correct == correct), judged[0])
    return replace(agreeing, correct=correct, score=round(score, 6))
