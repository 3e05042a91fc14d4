"""Stages one after another, with ``run.json``; and the dry run, which asks nobody."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hound_plugin.judge.ledger import Ledger
from hound_plugin.judge.prices import estimate_tokens
from hound_plugin.records.files import write_json
from hound_plugin.reward import stages
from hound_plugin.reward.backends import make_judge, make_limits, protocol_id, text_of
from hound_plugin.reward.candidates import read_candidates
from hound_plugin.reward.report import write_report
from hound_plugin.reward.scoring import LEDGER, make_tasks
from hound_plugin.reward.stages import Run
from hound_plugin.reward.storage import Row, locked
from hound_plugin.reward.summary import summarise
from hound_plugin.version import __version__

STAGES = ("sample", "judge", "pairs", "report")
SHOWN_PROMPTS = 2


def run_stages(run: Run, names: Sequence[str] = STAGES) -> dict[str, Any]:
    """Run stages in order and write ``run.json``; what is done already is not done again.

    Gives the counts by stage. ``run.json`` is written also when a stage raises, with its error.
    """
    started, error = time.time(), ""
    try:
        for name in names:
            _STAGES[name](run)
    except BaseException as problem:
        error = f"{type(problem).__name__}: {problem}"
        raise
    finally:
        write_run(run, names, started, error)
    return run.counts


def report(run: Run) -> Path:
    """Write the report; gives the page's path."""
    pair_file = run.folder / "pairs" / f"{run.settings.pairs.name}.jsonl"
    summary = summarise(run.folder, run.questions, pair_file, run.settings.judge.k, run.settings.report.second)
    page = write_report(run.folder, summary, stage_counts(run), pair_file)
    run.say(f"report: {page}")
    return page


_STAGES: dict[str, Callable[[Run], Any]] = {
    "sample": stages.sample,
    "judge": stages.judge,
    "pairs": stages.pairs,
    "report": report,
}


def stage_counts(run: Run) -> dict[str, Any]:
    """Counts of this process, and of earlier ones for stages that did not run in this one."""
    return {**_before(run).get("counts", {}), **run.counts}


def _before(run: Run) -> Row:
    import json

    try:
        return dict(json.loads((run.folder / "run.json").read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return {}


def write_run(run: Run, names: Sequence[str], started: float, error: str) -> None:
    """``run.json``: versions, settings, seed, counts, tokens and cost; no key is in any of them."""
    with locked(run.folder, "run"):
        before = _before(run)
        entry = {"stages": list(names), "started": round(started, 3), "seconds": round(time.time() - started, 3)}
        write_json(
            run.folder / "run.json",
            {
                "hound_plugin": __version__,
                "python": platform.python_version(),
                "platform": platform.platform(),
                "command": sys.argv[1:],
                "settings": run.settings.as_dict(),
                "seed": run.settings.seed,
                "protocol": protocol_id(run.settings.judge),
                "counts": stage_counts(run),
                "error": error or None,
                "history": [*before.get("history", [])[-49:], {**entry, "error": error or None}],
            },
        )


def dry_run(run: Run) -> dict[str, Any]:
    """What a run would ask and about what it would cost; nothing is sent, and no model is loaded.

    Answers that are not sampled yet are taken to be as long as the reference, or 200 characters.
    """
    settings = run.settings
    candidates: dict[str, dict[int, Row]] = {}
    held = read_candidates(run.folder)
    _dry_sampling(run, held)
    for question in run.questions:
        rows = dict(held.get(question.id, {}))
        for number in range(settings.sample.n):
            rows.setdefault(
                number, {"answer": question.reference or f"[answer {number} is not sampled yet] " + "x" * 160}
            )
        candidates[question.id] = rows
    requests = prompt_tokens = known = 0
    seen: set[str] = set()
    with Ledger(run.folder / LEDGER, protocol_id(settings.judge)) as ledger:
        judge = make_judge(settings.judge, ledger, lambda _: None, ask=False)
        limits = make_limits(settings, settings.judge, settings.judge.attempts)
        for task in make_tasks(run.questions, candidates, judge, settings.judge, stages.digests(run)):
            real = task.candidate in held.get(task.id, {})
            if real and (task.key in seen or ledger.entry(task.key) is not None):
                known += 1
                continue
            seen.add(task.key)
            text = text_of(judge.client.conversation.messages(task, 0))
            if requests < SHOWN_PROMPTS:
                run.say(f"--- request {requests + 1}: {task.id}, answer {task.candidate}\n{text}\n")
            requests += 1
            prompt_tokens += estimate_tokens(text) + limits.image_tokens
    output = requests * limits.output_tokens
    cost = limits.price.cost(prompt_tokens, output) if limits.price else None
    free = settings.judge.backend in ("lexical", "local")
    run.say(f"{requests} requests to the judge, {known} answered already or shared")
    if not free:
        run.say(
            f"about {prompt_tokens} tokens to read and at most {output} to write (estimated at 4 characters a token)"
        )
        priced = f"at most about {cost:.4f}" if cost is not None else f"unknown: no price for {settings.judge.model}"
        run.say(f"cost: {priced} (in the currency of your price table)")
    return {"requests": requests, "known": known, "prompt_tokens": prompt_tokens, "output_tokens": output, "cost": cost}


def _dry_sampling(run: Run, held: dict[str, dict[int, Row]]) -> None:
    """What sampling from a server would take; answers that are there already are left out."""
    settings = run.settings.sample
    if settings.backend != "openai":
        return
    todo = [(q, n) for q in run.questions for n in range(settings.n) if n not in held.get(q.id, {})]
    tokens = sum(estimate_tokens(question.text) for question, _ in todo)
    limits = make_limits(run.settings, settings, 1)
    output = len(todo) * limits.output_tokens
    run.say(f"{len(todo)} requests to the sampling server: about {tokens} tokens of text to read, at most {output} to "
            "write; clips come on top and are counted by the server")  # fmt: skip
    if limits.price:
        run.say(f"cost of that: at most about {limits.price.cost(tokens, output):.4f} without clips")
