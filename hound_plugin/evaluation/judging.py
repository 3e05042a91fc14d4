"""Judging: predictions of a run -> ``judgements.jsonl``, by a language model or by offline measures.

Requests, replies and retries are those of :mod:`hound_plugin.llm`; the ledger is the source of truth, and the file is
written from it. A reply is read again each time, so that another ``parsing`` costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from hound_plugin.errors import DataError, LedgerError, SettingsError
from hound_plugin.evaluation.items import FAILED, JUDGED, UNANSWERED, UNREADABLE, Judgement, Question, count_statuses
from hound_plugin.evaluation.metrics import METRICS, VERDICTS, measure
from hound_plugin.evaluation.readings import OriginalPrompt, ReadingSettings, join_draws, read_reply, threshold_of
from hound_plugin.evaluation.run_folder import LEDGER, PREDICTIONS, EvaluationRun, write_judgements
from hound_plugin.judge.backends import (
    JudgeBackend,
    gives_verdict,
    judge_limits,
    judge_price,
    make_judge,
    required_fields,
    run_judge,
    scale_of,
    template_id,
)
from hound_plugin.judge.estimate import estimate_judging, ledger_of_dry_run, unknown_answer
from hound_plugin.judge.parsing import Scale
from hound_plugin.judge.prompts import JudgePrompt
from hound_plugin.judge.settings import JudgeSettings
from hound_plugin.llm.ledger import Ledger
from hound_plugin.llm.ledger_tables import Entry
from hound_plugin.llm.prices import Prices
from hound_plugin.llm.requests import Request
from hound_plugin.llm.usage import finished_usage, ledger_usage
from hound_plugin.records.media_identity import media_digest
from hound_plugin.records.words import words_of

SHOWN = 3


class EvaluationJudge(ReadingSettings, Protocol):
    """The part of the ``judge`` block that only an evaluation has."""

    @property
    def max_words(self) -> int | None: ...
    @property
    def metric(self) -> str: ...


class JudgingSettings(Protocol):
    """What judging reads of the recipe; ``judge`` is a :class:`JudgeSettings` and an :class:`EvaluationJudge`."""

    @property
    def judge(self) -> Any: ...
    @property
    def prices(self) -> Prices: ...
    @property
    def max_cost(self) -> float | None: ...


@dataclass(frozen=True)
class JudgeResult:
    """The judgements of a run and where they come from.

    Attributes:
        judgements: one for each question, in order.
        record: for ``run.json``: who judged, by which prompt, how replies were read, and what the server reported.
        counts: questions by status.
        usage: requests, tokens and cost; None where nothing is requested.
    """

    judgements: list[Judgement]
    record: dict[str, Any]
    counts: dict[str, int]
    usage: dict[str, Any] | None = None

    @property
    def complete(self) -> bool:
        """Whether no judgement failed and the run did not stop early; unreadable replies are complete."""
        return not self.counts[FAILED] and not (self.usage or {}).get("stopped")


# --- before any request


def check_judging(questions: Sequence[Question], settings: JudgingSettings) -> None:
    """Every check that needs no request.

    Raises:
        SettingsError: settings that do not go together, a bad prompt template, no verdict on a scale of its own.
        DataError: questions without what the judge reads.
    """
    judge = settings.judge
    if judge.parsing == "original" and (judge.backend == "lexical" or judge.k > 1):
        what = "backend lexical has no replies" if judge.backend == "lexical" else f"k is {judge.k}, and it knows 1"
        raise SettingsError(f"judge.parsing: `original` reads a judge's replies, but {what}.", "judge.parsing")
    scale, scores_alone = scale_of(judge), judge.backend != "lexical" and not gives_verdict(judge)
    if judge.correct_from is not None and not scores_alone:
        who = "backend lexical" if judge.backend == "lexical" else judge.template
        raise SettingsError(
            f"judge.correct_from: {who} says itself what is right; leave it out.",
            "judge.correct_from",
        )
    if scores_alone and judge.correct_from is None and scale != Scale():
        raise SettingsError(
            f"judge.correct_from: must be given, because the protocol's scale is {scale}: the lowest score of a right "
            "answer.",
            "judge.correct_from",
        )
    if judge.correct_from is not None and judge.correct_from not in scale:
        raise SettingsError(f"judge.correct_from: expected a number from {scale}; got {judge.correct_from:g}.")
    needed = required_fields(judge)
    if "reference" in needed and not judge.reference:
        raise SettingsError(f"judge.reference: {judge.template} compares with the reference and cannot do without.")
    if judge.backend == "lexical":
        without = [question.id for question in questions if not words_of(question.reference)]
        _refuse_without(without, questions, "a reference with words", "judge.backend lexical")
        return
    for name, field in (("reference", "reference"), ("caption", "evidence")):
        without = [question.id for question in questions if name in needed and not getattr(question, field)]
        _refuse_without(without, questions, f"a `{name}`", f"judge.protocol {judge.template}")
    if judge.backend == "vision":
        _refuse_without([q.id for q in questions if not q.media], questions, "a clip or image", "judge.backend vision")


def _refuse_without(without: Sequence[str], questions: Sequence[Question], what: str, who: str) -> None:
    if without:
        raise DataError(
            f"{who}: expected {what} in every question; {len(without)} of {len(questions)} have none; the first is "
            f"{without[0]!r}. Choose another judge, or add what is missing."
        )


def open_judge(folder: Path, settings: JudgingSettings) -> None:
    """Check what judging needs besides questions, before a model spends hours on predictions; sends nothing.

    Raises:
        SettingsError: no API key, or a bad address.
        LedgerError: the folder's ledger was made with another protocol.
    """
    if settings.judge.backend == "lexical":
        return
    try:
        with Ledger(folder / LEDGER, template_id(settings.judge)) as ledger:
            make_judge(settings.judge, ledger, lambda _: None, probe_server=False)
    except LedgerError as error:
        raise LedgerError(
            f"{error} The same predictions can be judged under another name: name=NEW predict.backend=given "
            f"predict.answers={folder / PREDICTIONS}."
        ) from error


def cut_words(text: str, most: int | None) -> str:
    """The first ``most`` words joined by single spaces, as in the original; a shorter text stays as it is."""
    words = text.split()
    return text if most is None or len(words) <= most else " ".join(words[:most])


# --- judging


def judge_run(
    run: EvaluationRun, settings: JudgingSettings, say: Callable[[str], None] = lambda _: None, spent: float = 0.0
) -> JudgeResult:
    """Judge every prediction that has no judgement yet, and write ``judgements.jsonl``, also before an error goes on.

    Args:
        run: with predictions; questions without one count as unanswered.
        settings: of the evaluation; ``judge.protocol`` is the suite's unless the user chose one.
        say: receives lines for the user.
        spent: what other stages have cost, which counts for ``max_cost``.

    Raises:
        DataError: nothing is predicted yet, or as :func:`check_judging`.
        SettingsError: as :func:`check_judging`, or no API key.
        JudgeError: no request will get a reply; replies so far are kept.
        LedgerError: the folder's ledger was made with another protocol.
    """
    check_judging(run.questions, settings)
    if not run.predictions:
        raise DataError(f"{run.folder}: there are no predictions to judge. Run `hound eval predict` first.")
    result = _offline(run, settings.judge) if settings.judge.backend == "lexical" else _ask(run, settings, say, spent)
    counts = result.counts
    say(
        f"judge: {counts[JUDGED]} judged, {counts[UNREADABLE]} unreadable, {counts[FAILED]} failed, "
        f"{counts[UNANSWERED]} unanswered"
    )
    failed = [judgement for judgement in result.judgements if judgement.status == FAILED]
    if failed:
        listed = "; ".join(f"{judgement.id}: {judgement.reason[:120]}" for judgement in failed[:SHOWN])
        say(f"warning: the judge failed on {len(failed)} questions, which have no judgement ({listed})")
    return result


def _offline(run: EvaluationRun, judge: EvaluationJudge) -> JudgeResult:
    judgements = []
    for question in run.questions:
        measures = _measures(run, question)
        if measures is None:
            judgements.append(_unanswered(run, question))
        elif judge.metric in VERDICTS:
            correct = measures[judge.metric] == 1
            judgements.append(Judgement(question.id, JUDGED, correct, scores=measures))
        else:
            judgements.append(Judgement(question.id, JUDGED, score=measures[judge.metric], scores=measures))
    write_judgements(run.folder, judgements)
    record = {"backend": "lexical", "model": f"no judge, {judge.metric}", "metric": judge.metric, "scale": [0, 1]}
    return JudgeResult(judgements, record, count_statuses(judgements))


def _ask(run: EvaluationRun, settings: JudgingSettings, say: Callable[[str], None], spent: float) -> JudgeResult:
    judge: Any = settings.judge
    price = judge_price(judge, settings.prices)
    with Ledger(run.folder / LEDGER, template_id(judge)) as ledger:
        backend = make_judge(judge, ledger, say, make_prompt=_prompt_type(judge))
        digests = _digests(run.questions, judge)
        most = None if settings.max_cost is None else max(0.0, settings.max_cost - spent)
        limits = judge_limits(judge, settings.prices, most)
        judgements: list[Judgement] = []
        try:
            outcome = run_judge(
                lambda: (request for request, _ in _requests(run, backend, judge, digests)),
                backend, judge, ledger, limits, say,
            )  # fmt: skip
        finally:  # replies from before an error or Ctrl-C are in the file too
            judgements, reported = _from_ledger(run, backend, judge, digests, ledger)
            write_judgements(run.folder, judgements)
        usage = finished_usage(ledger, price, outcome, say)
    record = {**backend.record, "scale": [backend.scale.lowest, backend.scale.highest]}
    record |= {"verdict": backend.verdict, **reported, **_reading(judge)}
    return JudgeResult(judgements, record, count_statuses(judgements), usage)


def judge_usage(run: EvaluationRun, settings: JudgingSettings) -> dict[str, Any] | None:
    """What the folder's judge has used so far, for a run that ended with an error; None if nothing was requested."""
    if settings.judge.backend == "lexical" or not (run.folder / LEDGER).is_file():
        return None
    with Ledger(run.folder / LEDGER, template_id(settings.judge)) as ledger:
        return ledger_usage(ledger, judge_price(settings.judge, settings.prices))


def dry_run(run: EvaluationRun, settings: JudgingSettings, say: Callable[[str], None]) -> dict[str, Any]:
    """What judging would send and roughly cost; nothing is sent. Predictions that do not exist yet count in full.

    Raises:
        DataError, SettingsError: as :func:`check_judging`.
    """
    check_judging(run.questions, settings)
    judge: Any = settings.judge
    if judge.backend == "lexical":
        say(f"judge: no requests: {judge.metric} of {len(run.questions)} questions is computed offline")
        return {"requests": 0, "known": 0, "prompt_tokens": 0, "output_tokens": 0, "cost": 0.0}
    with ledger_of_dry_run(run.folder / LEDGER, template_id(judge)) as ledger:
        backend = make_judge(judge, ledger, lambda _: None, probe_server=False, make_prompt=_prompt_type(judge))
        requests = _requests(run, backend, judge, _digests(run.questions, judge), planned=True)
        return estimate_judging(requests, backend, ledger, judge, settings.prices, say)


def _prompt_type(judge: EvaluationJudge) -> type[JudgePrompt]:
    return OriginalPrompt if judge.parsing == "original" else JudgePrompt


def _digests(questions: Sequence[Question], judge: JudgeSettings) -> Mapping[str, str] | None:
    """Hash of each question's clip if requests show it."""
    if judge.backend != "vision":
        return None
    return {question.id: media_digest(question.shown) for question in questions}


def _requests(
    run: EvaluationRun, backend: JudgeBackend, judge: Any, digests: Mapping[str, str] | None, planned: bool = False
) -> Iterator[tuple[Request, bool]]:
    """One request for each prediction and draw, with whether the prediction exists; ``planned``: of all questions."""
    for question in run.questions:
        prediction = run.predictions.get(question.id)
        text = prediction.text if prediction else None
        if text is None and not (planned and prediction is None):
            continue
        answer = cut_words(unknown_answer(question.reference) if text is None else text, judge.max_words)
        reference = question.reference if judge.reference else ""
        fields = {
            "caption": question.evidence, "question": question.question, "reference": reference, "answer": answer,
        }  # fmt: skip
        for draw in range(judge.k):
            seed = None if judge.seed is None else judge.seed + 1000 * draw
            digest = None if digests is None else digests[question.id]
            request = backend.request(question.id, 0, draw, fields, question.shown, seed, digest)
            yield request, text is not None


# --- from the ledger to judgements


def _from_ledger(
    run: EvaluationRun, backend: JudgeBackend, judge: Any, digests: Mapping[str, str] | None, ledger: Ledger
) -> tuple[list[Judgement], dict[str, Any]]:
    """Judgements in the order of the questions, and what the server reported of itself."""
    draws: dict[str, list[tuple[Request, Entry | None]]] = {}
    for request, _ in _requests(run, backend, judge, digests):
        draws.setdefault(request.id, []).append((request, ledger.entry(request.key)))
    judgements = []
    for question in run.questions:
        if question.id not in draws:
            judgements.append(_unanswered(run, question))
            continue
        readings = [read_reply(request, entry, backend, judge, ledger) for request, entry in draws[question.id]]
        joined = readings[0] if len(readings) == 1 else join_draws(readings, backend.verdict, threshold_of(judge))
        judgements.append(replace(joined, scores=_measures(run, question) or {}))
    entries = [entry for group in draws.values() for _, entry in group if entry]
    reported = {
        "reported_models": sorted({entry.model for entry in entries if entry.model}),
        "fingerprints": sorted({entry.fingerprint for entry in entries if entry.fingerprint}),
    }
    return judgements, reported


def _measures(run: EvaluationRun, question: Question) -> dict[str, float] | None:
    """Offline measures of a prediction, the best of all accepted answers; None without a prediction."""
    prediction = run.predictions.get(question.id)
    if prediction is None or prediction.text is None:
        return None
    measured = [measure(prediction.text, answer) for answer in (question.reference, *question.accepted)]
    for number, answer in enumerate(question.accepted, 1):
        if question.reference.startswith(f"{answer}. ") and measured[number].get("exact_match") != 1:
            measured[number] = {}  # the letter of a choice is an answer, but not a word of one: "A" in "a dog"
    return {name: max(values[name] for values in measured if values) for name in METRICS if any(measured)}


def _unanswered(run: EvaluationRun, question: Question) -> Judgement:
    prediction = run.predictions.get(question.id)
    return Judgement(question.id, UNANSWERED, reason=prediction.error if prediction else "no prediction")


def _reading(judge: EvaluationJudge) -> dict[str, Any]:
    return {"parsing": judge.parsing, "max_words": judge.max_words, "correct_from": judge.correct_from}
