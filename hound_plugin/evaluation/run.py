"""The stages predict, judge and report, each from files to files; the model is behind a small interface."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hound_plugin.engines.choice import check_alone, make_engine
from hound_plugin.errors import LedgerError
from hound_plugin.evaluation import judging
from hound_plugin.evaluation.asked import bind_run
from hound_plugin.evaluation.formats import read_given
from hound_plugin.evaluation.items import Question
from hound_plugin.evaluation.page import write_page
from hound_plugin.evaluation.prediction import (
    COUNTS,
    Predictor,
    Say,
    bind_predictor,
    count_predictions,
    predict_with_model,
    unanswered,
    wait_for_others,
)
from hound_plugin.evaluation.questions import read_suite_questions
from hound_plugin.evaluation.report import page_tables, remarks, sets_table, write_report
from hound_plugin.evaluation.run_folder import (
    PREDICTIONS,
    QUESTIONS,
    EvaluationRun,
    append_predictions,
    check_questions,
    finish_predictions,
    freeze_questions,
    load_run,
)
from hound_plugin.evaluation.server import estimate_predicting, predict_with_server
from hound_plugin.evaluation.settings import EvaluationSettings, PredictSettings
from hound_plugin.evaluation.shards import Shard
from hound_plugin.evaluation.suites import Suite, read_suite
from hound_plugin.evaluation.summary import summarise
from hound_plugin.llm.sampler_settings import IN_THIS_PROCESS, SamplerSettings
from hound_plugin.pages.frames import FrameReader
from hound_plugin.records.row_sources import open_rows
from hound_plugin.records.run_folders import open_folder, read_run, write_run
from hound_plugin.records.tables import markdown_table
from hound_plugin.validation import build

STAGES = ("predict", "judge", "report")
SHOWN = 3

MakePredictor = Callable[[EvaluationSettings, Shard], Predictor]
MakeFrames = Callable[[SamplerSettings, int], FrameReader]
FRAME_SIZE = 160
PREDICTED_WITH = ("model", "predict", "seed", "engine")
"""Settings that only predicting uses."""


@dataclass
class Evaluation:
    """One evaluation while it runs.

    Attributes:
        settings: all of them, with the suite's protocol.
        suite: what is asked.
        questions: checked.
        say: receives lines for the user.
        shard: this process's part; only the first process judges and reports.
        make_predictor: makes the model that answers in this process.
        make_frames: makes what reads the frames that a model saw, in a size.
        counts: by stage, for ``run.json``.
        record: what else ``run.json`` gets.
    """

    settings: EvaluationSettings
    suite: Suite
    questions: list[Question]
    say: Say
    shard: Shard = Shard()  # noqa: RUF009 - frozen
    make_predictor: MakePredictor | None = None
    make_frames: MakeFrames | None = None
    counts: dict[str, Any] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """``<folder>/<name>/<suite>``."""
        return self.settings.run_folder


def open_evaluation(
    settings: EvaluationSettings,
    say: Say,
    make_predictor: MakePredictor | None = None,
    shard: Shard = Shard(),  # noqa: B008 - frozen
    stages: Sequence[str] = STAGES,
    make_frames: MakeFrames | None = None,
    *,
    dry: bool = False,
) -> Evaluation:
    """Make every check that needs no request and no model, then open the folder; if ``dry``, write nothing.

    Raises:
        DataError, MediaNotFoundError: questions that cannot be used, or that lack what the judge reads.
        SettingsError: no such suite, a folder that is not writable, settings of the judge that do not go together.
        LedgerError: the folder has other questions.
    """
    check_alone(settings.engine, shard.size)
    if "predict" in stages:
        make_engine(settings.engine)
    suite = read_suite(settings.suite)
    settings = settings.for_suite(suite.protocol, suite.measure)
    quiet = say if shard.is_first else lambda _: None
    questions = read_suite_questions(suite, settings, quiet)
    if "judge" in stages:
        judging.check_judging(questions, settings)
    evaluation = Evaluation(settings, suite, questions, say, shard, make_predictor, make_frames)
    if dry:
        check_questions(evaluation.folder, questions)
        return evaluation
    open_folder(evaluation.folder)
    freeze_questions(evaluation.folder, questions)
    if "judge" in stages and shard.is_first:
        judging.open_judge(evaluation.folder, settings)
    return evaluation


def run_stages(evaluation: Evaluation, names: Sequence[str] = STAGES) -> dict[str, Any]:
    """Run stages in order, each with an entry in ``run.json``, also of its error; finished work is not repeated.

    Returns the counts by stage.
    """
    for name in names if evaluation.shard.is_first else [name for name in names if name == "predict"]:
        started, error = time.time(), ""
        try:
            if evaluation.shard.is_first and name == names[0]:
                bind_run(evaluation.folder, evaluation.settings, evaluation.say)
            _STAGES[name](evaluation)
        except BaseException as problem:
            error = f"{type(problem).__name__}: {problem}"
            raise
        finally:
            if evaluation.shard.is_first:
                write_run(evaluation.folder, [name], started, error, lambda: _values(evaluation))
    return evaluation.counts


def _values(evaluation: Evaluation) -> dict[str, Any]:
    """For ``run.json``. What predicted and what judged stay on record when a later command runs another stage only."""
    before, settings, suite = read_run(evaluation.folder), evaluation.settings, evaluation.suite
    model, used = settings.model or settings.predict.answers or "", settings.as_dict()
    recorded = before.get("settings", {})
    if "predict" in recorded and "predict" not in evaluation.counts:
        model = before["model"]
        used |= {name: recorded[name] for name in PREDICTED_WITH if name in recorded}
    if "judge" in recorded and "judge" not in evaluation.counts:
        used["judge"] = recorded["judge"]
    return {
        "name": settings.name,
        "suite": settings.suite_name,
        "suite_info": {name: getattr(suite, name) for name in ("title", "paper", "metric", "protocol", "measure")},
        "model": model,
        "settings": used,
        "seed": used["seed"],
        **{name: before[name] for name in ("judge",) if name in before},
        **evaluation.record,
        "counts": {**before.get("counts", {}), **evaluation.counts},
    }


def predict(evaluation: Evaluation) -> None:
    """Fill ``predictions.jsonl``; the first process returns when every process has done its share."""
    backend, folder, say = evaluation.settings.predict.backend, evaluation.folder, evaluation.say
    counts: dict[str, Any] = {}
    if backend in IN_THIS_PROCESS:
        if evaluation.make_predictor is None:
            raise LedgerError("This program has no model to predict with; use backend openai or given.")
        predictor = evaluation.make_predictor(evaluation.settings, evaluation.shard)
        size = evaluation.settings.predict.questions_at_a_time
        engine = make_engine(evaluation.settings.engine)
        counts = predict_with_model(folder, predictor, size, evaluation.shard, say, engine=engine)
        if evaluation.shard.is_first:
            wait_for_others(folder, evaluation.shard, say)
    elif evaluation.shard.is_first:
        counts = predict_with_server(folder, evaluation.settings, say) if backend == "openai" else _given(evaluation)
        finish_predictions(folder)
    if evaluation.shard.is_first:
        _report_predictions(evaluation, counts)


def _given(evaluation: Evaluation) -> dict[str, Any]:
    path = str(evaluation.settings.predict.answers)
    found = read_given(path, evaluation.questions)
    for line in found.remarks(path):
        evaluation.say(line)
    bind_predictor(evaluation.folder, {"backend": "given", "answers": path, "content": _digest(path, evaluation)})
    run = load_run(evaluation.folder)
    rows = [found.predictions[q.id] for q in evaluation.questions if q.id not in run.predictions]
    append_predictions(evaluation.folder, rows)
    return {"added": len(rows), "surplus_rows": len(found.surplus), "without_row": len(found.missing)}


def _digest(path: str, evaluation: Evaluation) -> list[str]:
    digests = []
    for name in dict.fromkeys(question.set for question in evaluation.questions):
        with open_rows(path.replace("{set}", name)) as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())  # type: ignore[arg-type]
    return digests


def _report_predictions(evaluation: Evaluation, counts: dict[str, Any]) -> None:
    sets = count_predictions(evaluation.folder)
    totals = {name: sum(row[name] for row in sets.values()) for name in COUNTS}
    evaluation.counts["predict"] = {**totals, **counts, "sets": sets}
    say, rate = evaluation.say, counts.get("rows_per_second")
    speed = f", {rate:.3g} rows/s" if rate else ""
    cost = counts.get("usage", {}).get("cost")
    price = f", cost {cost:.4f}" if cost is not None else ""
    done = f"{totals['answered']} of {totals['questions']} answered, {counts['added']} in this run{speed}{price}"
    say(f"predict: {done}; see {evaluation.folder / PREDICTIONS}")
    if totals["cut"]:
        limit = evaluation.settings.predict.max_new_tokens
        say(f"warning: {totals['cut']} answers were cut at predict.max_new_tokens={limit}; they have `finish: length`")
    silent = list(unanswered(evaluation.folder))
    if silent:
        first = "; ".join(f"{row.id}: {row.error[:160]}" for row in silent[:SHOWN])
        say(f"warning: {len(silent)} questions have no answer and count as unanswered ({first})")


def judge(evaluation: Evaluation) -> None:
    """Judge every prediction that has no judgement yet."""
    settings = evaluation.settings
    run = load_run(evaluation.folder)
    spent = (read_run(evaluation.folder).get("counts", {}).get("predict", {}).get("usage") or {}).get("cost") or 0.0
    spent = ((evaluation.counts.get("predict") or {}).get("usage") or {}).get("cost") or spent
    try:
        result = judging.judge_run(run, settings, evaluation.say, spent)
    except BaseException as error:
        usage = judging.judge_usage(run, settings)
        evaluation.counts["judge"] = {"usage": usage, "stopped": str(error) or type(error).__name__}
        raise
    evaluation.record["judge"] = result.record
    evaluation.counts["judge"] = {**result.counts, "usage": result.usage, "complete": result.complete}


def report(evaluation: Evaluation) -> None:
    """Write ``report/``: tables, pictures and the page with frames."""
    run, settings = load_run(evaluation.folder), evaluation.settings
    path = write_report(run, settings.seed)
    recorded = run.meta.get("settings", {}).get("predict")
    predicted_with = settings.predict if recorded is None else build(PredictSettings, recorded)
    frames = (evaluation.make_frames or _unknown_frames)(predicted_with, FRAME_SIZE)
    page = write_page(run, path.parent, frames, most=settings.report.examples, tables=page_tables(run))
    summary = summarise(run)
    for remark in remarks(summary):
        evaluation.say(f"note: {remark}")
    evaluation.say(markdown_table(*sets_table(summary)))
    evaluation.say(f"report: {path} and {page}")


def _unknown_frames(settings: SamplerSettings, size: int) -> FrameReader:
    return FrameReader(settings.num_frames or 8, size=size, caution="Which ones the model saw is unknown.")


_STAGES: dict[str, Callable[[Evaluation], None]] = {"predict": predict, "judge": judge, "report": report}


def is_complete(counts: dict[str, Any]) -> bool:
    """Whether nothing was left for another run: no prediction is missing, no judgement failed, no budget ended."""
    predicted, judged = counts.get("predict", {}), counts.get("judge", {})
    stopped = (predicted.get("usage") or {}).get("stopped")
    return not predicted.get("missing") and not stopped and bool(judged.get("complete", True))


def dry_run(evaluation: Evaluation, names: Sequence[str]) -> dict[str, Any]:
    """What the stages would send and roughly cost; nothing is sent or written, and no model is loaded."""
    folder, estimates = evaluation.folder, {}
    started = (folder / QUESTIONS).is_file()
    if started:
        bind_run(folder, evaluation.settings, evaluation.say, write=False)
    run = load_run(folder) if started else EvaluationRun(folder, {}, evaluation.questions, {}, {})
    evaluation.say(f"{len(run.questions)} questions, {len(run.predictions)} of them predicted")
    if "predict" in names and evaluation.settings.predict.backend == "openai":
        missing = [question for question in run.questions if question.id not in run.predictions]
        estimates["predict"] = estimate_predicting(missing, evaluation.settings, evaluation.say)
    if "judge" in names:
        estimates["judge"] = judging.dry_run(run, evaluation.settings, evaluation.say)
    return estimates
