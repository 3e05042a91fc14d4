"""A suite as a task: its questions, our judge with its ledger, and the accuracy over answered questions.

``LMMS_EVAL_HOUND_RECIPE`` names the YAML of ``hound eval`` with the judge; without it there is none. The run is
written to the folder of that recipe under the name ``lmms_eval``, where ``hound eval report`` and ``compare`` find it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from datasets import Dataset
from lmms_eval.api.instance import Instance
from lmms_eval.api.task import ConfigurableMessagesTask

from hound_plugin.evaluation.items import JUDGED, Prediction, Question
from hound_plugin.evaluation.questions import read_suite_questions
from hound_plugin.evaluation.run import Evaluation, run_stages
from hound_plugin.evaluation.run_folder import (
    JUDGEMENTS,
    PREDICTIONS,
    QUESTIONS,
    append_predictions,
    finish_predictions,
    freeze_questions,
    load_run,
)
from hound_plugin.evaluation.settings import EvaluationSettings, read_settings
from hound_plugin.evaluation.suites import read_suite
from hound_plugin.records.files import clear_leftovers
from hound_plugin.records.run_folders import RUN, open_folder

RECIPE = "LMMS_EVAL_HOUND_RECIPE"
MODEL = "a model of lmms-eval; the command is in run.json"
NO_ANSWER = ("[LMMS_EVAL_REQUEST_FAILED", "[LMMS_EVAL_BUDGET_EXCEEDED")


def _say(text: str) -> None:
    print(text, file=sys.stderr)


class _Either(dict[str, Any]):
    """Generation arguments that can be called.

    Models of lmms-eval take these arguments and a function, ``chat`` models in the opposite order of the others. A
    task that is a class does not learn which kind it is for, so that both places hold both.
    """

    def __init__(self, settings: dict[str, Any], function: Callable[..., Any]) -> None:
        super().__init__(settings)
        self._function = function

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._function(*arguments, **named)


class SuiteTask(ConfigurableMessagesTask):
    """One suite; a subclass names it."""

    suite = "demo"

    def __init__(self, config: dict[str, Any] | None = None) -> None:
        overrides = [f"suite={self.suite}", "name=lmms_eval"]
        recipe = os.environ.get(RECIPE)
        default = EvaluationSettings(suite=self.suite, name="lmms_eval")
        settings = read_settings(recipe, overrides) if recipe else default
        suite = self.described = read_suite(self.suite)
        settings = settings.for_suite(suite.protocol, suite.measure)
        self.questions = {question.id: question for question in read_suite_questions(suite, settings, _say)}
        super().__init__(
            config={
                "task": (config or {}).get("task"),
                "dataset_path": "json",
                "test_split": "test",
                "output_type": "generate_until",
                "doc_to_visual": self._shown,
                "doc_to_text": "{{question}}",
                "doc_to_target": "{{reference}}",
                "process_results": lambda doc, results: {"accuracy": {"id": doc["id"], "text": results[0]}},
                "metric_list": [{"metric": "accuracy", "aggregation": self.judged, "higher_is_better": True}],
                "generation_kwargs": {"max_new_tokens": settings.predict.max_new_tokens, "temperature": 0},
            }
        )
        # for `hound eval report`: the recipe does not say what answered here
        self.settings = settings.changed(model=MODEL, predict={"backend": "given", "answers": MODEL, "model": MODEL})

    def download(self, dataset_kwargs: dict[str, Any] | None = None) -> None:
        """The questions of the suite, which are on this machine already."""
        rows = [{"id": q.id, "question": q.question, "reference": q.reference} for q in self.questions.values()]
        self.dataset = {"test": Dataset.from_list(rows)}
        self.dataset_no_image = self.dataset

    def construct_requests(self, doc_id: int, ctx: str, **kwargs: Any) -> Instance:
        """The request about one question, for models of either kind."""
        request = super().construct_requests(doc_id, ctx, **kwargs)
        text, messages, settings, *rest = request.arguments
        request.arguments = (text, _Either(settings, messages), _Either(settings, self.doc_to_visual), *rest)
        return request

    def _shown(self, doc: dict[str, Any]) -> list[Any]:
        shown = self.questions[doc["id"]].shown
        return [] if shown is None else [shown]

    def judged(self, answers: Sequence[dict[str, str]]) -> float:
        """Judge all answers of the run and return the share of right ones among those with a verdict; NaN of none."""
        asked: list[Question] = [self.questions[row["id"]] for row in answers]
        folder = open_folder(self.settings.run_folder)
        for file in (QUESTIONS, PREDICTIONS, JUDGEMENTS, RUN):  # of an earlier run: this one has asked again
            (folder / file).unlink(missing_ok=True)
        clear_leftovers(folder)
        freeze_questions(folder, asked)
        append_predictions(folder, [_prediction(row) for row in answers])
        finish_predictions(folder)
        run_stages(Evaluation(self.settings, self.described, asked, _say), ("judge",))
        judged = load_run(folder).judgements.values()
        verdicts = [row.correct for row in judged if row.status == JUDGED and row.correct is not None]
        if not verdicts:
            _say(f"hound: no answer has a verdict, so that there is no accuracy; see `hound eval report` and {folder}")
        return sum(verdicts) / len(verdicts) if verdicts else float("nan")


def _prediction(row: dict[str, str]) -> Prediction:
    """What lmms-eval writes for a request that failed is no answer."""
    text = row["text"]
    if not text or text.startswith(NO_ANSWER):
        return Prediction(row["id"], None, text or "the model gave no answer")
    return Prediction(row["id"], text)


class Demo(SuiteTask):
    """``hound_demo``."""


class Official(SuiteTask):
    """``hound_official``."""

    suite = "official"


class InDomain(SuiteTask):
    """``hound_in_domain``."""

    suite = "in-domain"


class OutOfDomain(SuiteTask):
    """``hound_out_of_domain``."""

    suite = "out-of-domain"


class Captions(SuiteTask):
    """``hound_captions``."""

    suite = "captions"
