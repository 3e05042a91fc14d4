"""What was run, by name, for every report and page of an evaluation: model, how it answered, judge, prompt, seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hound_plugin.evaluation.run_folder import EvaluationRun
from hound_plugin.evaluation.summary import judge_of


def run_facts(run: EvaluationRun) -> list[tuple[str, Any]]:
    """Names and values from ``run.json``, in the order of the work; without those that it does not have."""
    meta, judge = run.meta, judge_of(run)
    settings = _block(meta, "settings")
    predict = _block(settings, "predict")
    scale = judge.get("scale")
    values = {
        "suite": run.suite,
        "metric": _block(meta, "suite_info").get("metric"),
        "questions": f"{len(run.questions)} about {len({question.cluster for question in run.questions})} clips",
        "limit of each test set": settings.get("limit"),
        "model": meta.get("model") or settings.get("model"),
        "answers by": predict.get("backend"),
        "answers of": predict.get("answers"),
        "temperature": predict.get("temperature"),
        "longest answer, tokens": predict.get("max_new_tokens"),
        "frames per clip": (predict.get("num_frames") or "the model's own number") if predict else None,
        "judge": judge.get("model"),
        "judge's back end": judge.get("backend"),
        "judge's address": judge.get("endpoint"),
        "models that the server reported": ", ".join(judge.get("reported_models", ())),
        "prompt version": judge.get("protocol"),
        "scale": f"{scale[0]:g} to {scale[1]:g}" if isinstance(scale, list | tuple) and len(scale) == 2 else None,
        "replies are read": judge.get("parsing"),
        "words of a prediction that the judge sees": judge.get("max_words"),
        "right from a score of": judge.get("correct_from"),
        "seed": meta.get("seed", settings.get("seed")),
        "hound-plugin": meta.get("hound_plugin"),
    }
    if predict.get("backend") == "given":  # another program answered, in a way that we do not know
        values |= dict.fromkeys(("temperature", "longest answer, tokens", "frames per clip"))
    return [(name, value) for name, value in values.items() if value not in (None, "")]


def facts_of_both(first: EvaluationRun, second: EvaluationRun) -> list[list[Any]]:
    """Rows of a table: a name, and its value in either run (None where it has none)."""
    rows: dict[str, list[Any]] = {}
    for side, run in enumerate((first, second)):
        for name, value in run_facts(run):
            rows.setdefault(name, [None, None])[side] = value
    return [[name, *both] for name, both in rows.items()]


def _block(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    block = values.get(name)
    return block if isinstance(block, Mapping) else {}
