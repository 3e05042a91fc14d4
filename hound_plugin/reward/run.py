"""Stages one after another, with ``run.json``; and the dry run, which sends nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hound_plugin.judge.backends import make_judge, template_id
from hound_plugin.judge.estimate import estimate_judging, ledger_of_dry_run, unknown_answer
from hound_plugin.llm.usage import estimate_answers
from hound_plugin.pages.frames import SIZE, FrameReader
from hound_plugin.records.questions import Question
from hound_plugin.records.run_folders import read_run, write_run
from hound_plugin.reward import stages
from hound_plugin.reward.asked import bind_run
from hound_plugin.reward.candidates import read_candidates
from hound_plugin.reward.given import given_answers
from hound_plugin.reward.report import write_report
from hound_plugin.reward.run_folder import LEDGER, Row
from hound_plugin.reward.run_setup import Run
from hound_plugin.reward.scoring import make_requests
from hound_plugin.reward.summary import summarise
from hound_plugin.reward.usage import stage_limits

STAGES = ("sample", "judge", "pairs", "report")


def run_stages(run: Run, names: Sequence[str] = STAGES) -> dict[str, Any]:
    """Run stages in order and write ``run.json``; finished work is not repeated.

    Returns the counts by stage. If a stage raises, or the folder's answers are about other questions or clips,
    ``run.json`` is written with the error.
    """
    started, error = time.time(), ""
    try:
        bind_run(run)
        for name in names:
            _STAGES[name](run)
    except BaseException as problem:
        error = f"{type(problem).__name__}: {problem}"
        raise
    finally:
        write_run(
            run.folder,
            names,
            started,
            error,
            lambda: {
                "settings": run.settings.as_dict(),
                "seed": run.settings.seed,
                "protocol": template_id(run.settings.judge),
                "counts": stage_counts(run),
            },
        )
    return run.counts


def report(run: Run) -> Path:
    """Write the report; returns the path of the HTML page."""
    pair_file = run.folder / "pairs" / f"{run.settings.pairs.name}.jsonl"
    summary = summarise(run.folder, run.questions, pair_file, run.settings.judge.k, run.settings.report.second)
    read = run.make_frames(run.settings.sample, SIZE) if run.make_frames else FrameReader()
    page = write_report(run.folder, run.settings, run.questions, summary, stage_counts(run), read)
    run.say(f"report: {page}")
    return page


_STAGES: dict[str, Callable[[Run], Any]] = {
    "sample": stages.sample,
    "judge": stages.judge,
    "pairs": stages.pairs,
    "report": report,
}


def stage_counts(run: Run) -> dict[str, Any]:
    """Counts of this process, and of earlier ones for stages that did not run in it."""
    return {**read_run(run.folder).get("counts", {}), **run.counts}


def dry_run(run: Run) -> dict[str, Any]:
    """What a run would send and roughly what it would cost; nothing is sent or written, and no model is loaded.

    Answers that are not sampled yet are assumed to be as long as the reference, or 200 characters.
    """
    settings = run.settings
    bind_run(run, write=False)
    sampled = read_candidates(run.folder)
    if settings.sample.backend == "given":
        for question, number, answer in given_answers(str(settings.sample.answers), run.questions):
            sampled.setdefault(question.id, {}).setdefault(number, {"answer": answer.text})
    _dry_sampling(run, sampled)
    candidates = {question.id: _with_placeholders(run, question, sampled) for question in run.questions}
    with ledger_of_dry_run(run.folder / LEDGER, template_id(settings.judge)) as ledger:
        judge = make_judge(settings.judge, ledger, lambda _: None, probe_server=False)
        requests = make_requests(run.questions, candidates, judge, settings.judge, run.media_digests())
        known = ((request, request.candidate in sampled.get(request.id, {})) for request in requests)
        return estimate_judging(known, judge, ledger, settings.judge, settings.prices, run.say)


def _with_placeholders(run: Run, question: Question, sampled: dict[str, dict[int, Row]]) -> dict[int, Row]:
    """The answers to a question, with a text of a likely length for each that is not sampled yet."""
    rows = dict(sampled.get(question.id, {}))
    for number in range(run.settings.sample.n) if run.settings.sample.backend != "given" else ():
        rows.setdefault(number, {"answer": unknown_answer(question.reference, number)})
    return rows


def _dry_sampling(run: Run, sampled: dict[str, dict[int, Row]]) -> None:
    """What sampling from a server would take; existing answers do not count."""
    settings = run.settings.sample
    if settings.backend != "openai":
        return
    missing = [q for q in run.questions for n in range(settings.n) if n not in sampled.get(q.id, {})]
    limits = stage_limits(run.settings, "sample")
    estimate_answers([question.text for question in missing], settings.model, limits, "sampling", run.say)
