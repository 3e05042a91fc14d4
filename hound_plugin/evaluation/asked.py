"""Which questions and clips the predictions of a run are about: compared before a stage uses them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hound_plugin.evaluation.prediction import Say
from hound_plugin.evaluation.run_folder import PREDICTOR_LEDGER, EvaluationRun, load_run
from hound_plugin.evaluation.server import prediction_requests
from hound_plugin.evaluation.settings import EvaluationSettings
from hound_plugin.llm.ledger import Ledger
from hound_plugin.llm.requests import OK
from hound_plugin.llm.sampling_server import PROMPT_ID
from hound_plugin.records.asked import Asked, bind_asked


def bind_run(
    folder: Path, settings: EvaluationSettings, say: Say, instead: str = "another `name`", *, write: bool = True
) -> None:
    """Compare a run's clips with those that its predictions are about, also those that only the server's ledger has.

    A question without an answer, such as one whose clip could not be read, may have got another clip.

    Raises:
        LedgerError: a prediction is about another question or clip.
    """
    run = load_run(folder)
    asked = [Asked(question.id, question.prompt, question.shown) for question in run.questions]
    answered = {name for name, prediction in run.predictions.items() if prediction.text is not None}
    bind_asked(folder, asked, answered.union(_in_ledger(run, settings)), say, instead, write=write)


def _in_ledger(run: EvaluationRun, settings: EvaluationSettings) -> Iterator[str]:
    if settings.predict.backend == "openai" and (run.folder / PREDICTOR_LEDGER).is_file():
        missing = [question for question in run.questions if question.id not in run.predictions]
        with Ledger(run.folder / PREDICTOR_LEDGER, PROMPT_ID) as ledger:
            for request in prediction_requests(missing, settings):
                if (entry := ledger.entry(request.key)) is not None and entry.status == OK:
                    yield request.id
