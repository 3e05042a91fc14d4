"""Predictions of a model on a server, through a ledger: no answer is paid for twice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hound_plugin.evaluation.items import Prediction, Question
from hound_plugin.evaluation.prediction import Say, bind_predictor
from hound_plugin.evaluation.run_folder import PREDICTOR_LEDGER, append_predictions, load_run
from hound_plugin.evaluation.settings import EvaluationSettings
from hound_plugin.llm.ledger import Ledger
from hound_plugin.llm.ledger_tables import Entry
from hound_plugin.llm.limits import Limits
from hound_plugin.llm.replies import finish_of, why_missing
from hound_plugin.llm.requests import FINAL, OK, Request
from hound_plugin.llm.runner import run_requests
from hound_plugin.llm.sampling_server import (
    PROMPT_ID,
    make_sampler,
    sampler_identity,
    sampling_parameters,
    sampling_request,
)
from hound_plugin.llm.server_settings import make_limits, output_token_limit
from hound_plugin.llm.usage import estimate_answers, finished_usage
from hound_plugin.records.placeholders import IMAGE_TOKEN

ATTEMPTS = 3
"""Replies without a text after which a question counts as unanswered."""


def server_limits(settings: EvaluationSettings) -> Limits:
    """How hard to try, and what it may cost."""
    return make_limits(
        settings.predict,
        attempts=ATTEMPTS,
        output_tokens=output_token_limit(sampling_parameters(settings.predict)),
        price=settings.prices.get(settings.model),
        max_cost=settings.max_cost,
    )


def prediction_requests(questions: Sequence[Question], settings: EvaluationSettings) -> Iterator[Request]:
    """One request for each question."""
    identity = sampler_identity(settings.predict)
    seed = settings.seed if settings.predict.temperature else None
    for question in questions:
        medium = ("image" if IMAGE_TOKEN in question.prompt else "video") if question.media else ""
        yield sampling_request(
            identity, question.id, 0, question.question, medium, list(question.media), question.shown, seed
        )


def predict_with_server(
    folder: Path, settings: EvaluationSettings, say: Say, also: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Ask for every prediction that is missing.

    Args:
        folder: an evaluation with its questions.
        settings: the server and how it is asked.
        say: receives lines for the user.
        also: what determines an answer besides the settings of the server.

    Returns:
        ``added``, and ``usage``: requests, tokens, cost, and how the run ended.

    Raises:
        LedgerError: the folder has predictions of another model or of other settings.
        JudgeError: the server refuses every request.
    """
    bind_predictor(folder, {**sampler_identity(settings.predict), **(also or {})})
    run = load_run(folder)
    missing = [question for question in run.questions if question.id not in run.predictions]
    client = make_sampler(settings.predict)
    with Ledger(folder / PREDICTOR_LEDGER, PROMPT_ID) as ledger:
        limits = server_limits(settings)
        try:
            outcome = run_requests(prediction_requests(missing, settings), client, ledger, limits, say)
        finally:  # what came before an error or Ctrl-C is in the file too
            rows = list(_predictions(missing, settings, ledger))
            append_predictions(folder, rows)
        usage = finished_usage(ledger, limits.price, outcome, say)
    return {"added": len(rows), "usage": usage}


def _predictions(questions: Sequence[Question], settings: EvaluationSettings, ledger: Ledger) -> Iterator[Prediction]:
    """Questions that are settled: a text, or a reason why there will be none."""
    for request in prediction_requests(questions, settings):
        entry = ledger.entry(request.key)
        if entry is None:
            continue
        if entry.status == OK:
            yield Prediction(request.id, str(entry.value), finish=finish_of(entry))
        elif entry.status in FINAL or entry.attempt + 1 >= ATTEMPTS:
            yield Prediction(request.id, None, _reason(entry))


def _reason(entry: Entry) -> str:
    return why_missing(entry) or f"{entry.status}: {entry.raw[:300]}".rstrip(": ")


def estimate_predicting(questions: Sequence[Question], settings: EvaluationSettings, say: Say) -> dict[str, Any]:
    """What asking a server would take; nothing is sent."""
    texts = [question.question for question in questions]
    return estimate_answers(texts, settings.model, server_limits(settings), "predicting", say)
