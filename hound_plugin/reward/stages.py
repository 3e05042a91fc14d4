"""The stages ``sample``, ``judge`` and ``pairs``, each from files to files; the model is behind a small interface."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hound_plugin.engines.choice import make_engine
from hound_plugin.errors import DataError, LedgerError
from hound_plugin.judge.backends import JudgeBackend, make_judge, run_judge, template_id
from hound_plugin.judge.lexical import SMOKE_TEST
from hound_plugin.llm.ledger import Ledger
from hound_plugin.llm.replies import finish_of
from hound_plugin.llm.requests import OK, Request
from hound_plugin.llm.runner import run_requests
from hound_plugin.llm.sampler_settings import IN_THIS_PROCESS
from hound_plugin.llm.sampling_server import PROMPT_ID, make_sampler, sampler_identity
from hound_plugin.records.files import write_json, write_rows, write_whole
from hound_plugin.records.questions import Question
from hound_plugin.reward.asked import bind_run, sampling_requests
from hound_plugin.reward.candidates import (
    SampledAnswer,
    add_candidates,
    check_sampler,
    count_alike,
    read_candidates,
    sample_candidates,
)
from hound_plugin.reward.given import given_answers, given_identity
from hound_plugin.reward.pairs import PairResult, make_pairs, pair_row
from hound_plugin.reward.report import dataset_card
from hound_plugin.reward.run_folder import BAD_MEDIA, LEDGER, SAMPLER_LEDGER, SCORES, excluded_ids
from hound_plugin.reward.run_setup import MakeGenerator, Run
from hound_plugin.reward.scoring import judge_of, latest, make_requests, scale_of, write_scores
from hound_plugin.reward.settings import SampleSettings
from hound_plugin.reward.usage import record_usage, remaining_limits, usage_on_error

NEARLY_ALL = 0.95  # of the questions


# --- sample


def sample(run: Run) -> dict[str, int]:
    """Fill ``candidates.jsonl``; returns how many answers were added and how many are missing."""
    bind_run(run)
    settings = run.settings.sample
    missing = 0
    if settings.backend in IN_THIS_PROCESS:
        if run.make_generator is None:
            raise LedgerError("This program has no model to sample from; use backend openai or given.")
        added, missing = _sample_model(run, run.make_generator)
    elif settings.backend == "given":
        assert settings.answers is not None
        answers = list(given_answers(settings.answers, run.questions))  # all of them are checked first
        identity = given_identity(settings.answers, settings.model)
        added = add_candidates(run.folder, identity, iter(answers), run.settings.seed, are_all=True)
    else:
        added, missing = _sample_server(run)
    answers_of = read_candidates(run.folder)
    alike, several = count_alike(
        [row["answer"] for row in answers_of[question.id].values()]
        for question in run.questions
        if question.id in answers_of
    )
    counts = {"added": added, "answers": sum(map(len, answers_of.values())), "missing": missing}
    counts["questions_alike"] = alike
    run.counts["sample"] = counts
    run.say(f"sample: {added} answers added, {counts['answers']} in total, {missing} missing")
    if several and alike >= NEARLY_ALL * several:
        run.say(
            f"warning: the answers to {alike} of {several} questions are all alike, and equal answers make no pairs. "
            f"{_what_to_check(settings)}"
        )
    return counts


def _what_to_check(settings: SampleSettings) -> str:
    """What to check when a sampler gives the same answer again and again."""
    if settings.backend == "given":
        return f"Check that {settings.answers} has several different answers to each question."
    if not settings.temperature:
        return "sample.temperature is 0, which is greedy: set it to 1, for example."
    if settings.backend in IN_THIS_PROCESS:
        return f"Check sample.temperature ({settings.temperature}) and sample.top_p ({settings.top_p}): raise them."
    return (
        f"Check that the server samples: sample.temperature is {settings.temperature}, and each answer has its own "
        "seed. A server may ignore both, or decode greedily because of its own settings (`do_sample: false`)."
    )


def _sample_model(run: Run, make_generator: MakeGenerator) -> tuple[int, int]:
    """Use the model only if an answer is missing; returns answers added and missing."""
    answers_of = read_candidates(run.folder)
    settings, bad = run.settings, run.folder / BAD_MEDIA
    wanted = set(range(settings.sample.n))
    if all(wanted <= set(answers_of.get(question.id, {})) for question in run.questions):
        bad.unlink(missing_ok=True)  # of an earlier run
        return 0, 0
    sampled = sample_candidates(
        run.questions,
        make_generator(settings.sample),
        run.folder,
        settings.sample.n,
        settings.seed,
        run.say,
        engine=make_engine(settings.engine),
        on_bad_media=settings.on_bad_rows,
    )
    if sampled.broken:
        write_rows(bad, [{"id": name, "problem": why} for name, why in sampled.broken.items()])
        count, total = len(sampled.broken), len(run.questions)
        text = f"the clips of {count} of {total} questions cannot be read, which have no answers; {bad} lists them"
        if count > settings.max_bad_rows * total:
            raise DataError(f"{text}. That is more than max_bad_rows allows ({settings.max_bad_rows:g}).")
        run.say(f"warning: {text}")
    else:
        bad.unlink(missing_ok=True)
    return sampled.added, sum(len(wanted - set(answers_of.get(name, {}))) for name in sampled.broken)


def _sample_server(run: Run) -> tuple[int, int]:
    """Sample through a ledger of its own, so that no answer is paid for twice; returns answers added and missing."""
    settings = run.settings.sample
    identity = sampler_identity(settings)
    check_sampler(run.folder, identity)
    client = make_sampler(settings)

    def requests() -> Iterator[Request]:
        return sampling_requests(run.questions, settings, run.settings.seed)

    with Ledger(run.folder / SAMPLER_LEDGER, PROMPT_ID) as ledger:
        limits = remaining_limits(run, "sample")
        with usage_on_error(run, "sample", ledger):
            outcome = run_requests(requests(), client, ledger, limits, run.say)
        record_usage(run, "sample", outcome, ledger)
        missing = 0

        def answers() -> Iterator[tuple[Question, int, SampledAnswer]]:
            nonlocal missing
            questions = {question.id: question for question in run.questions}
            for request in requests():
                entry = ledger.entry(request.key)
                if entry is None or entry.status != OK:
                    missing += 1
                    continue
                answer = SampledAnswer(str(entry.value), finish_of(entry), entry.completion_tokens)
                yield questions[request.id], request.candidate, answer

        added = add_candidates(run.folder, identity, answers(), run.settings.seed)
    return added, missing


# --- judge


def judge(run: Run) -> dict[str, int]:
    """Judge every answer that has no judgement yet, then update ``scores.jsonl``."""
    settings = run.settings.judge
    candidates = read_candidates(run.folder)
    if not any(candidates.get(question.id) for question in run.questions):
        raise DataError(f"{run.folder}: there are no answers to judge. Run `hound reward sample` first.")
    with Ledger(run.folder / LEDGER, template_id(settings)) as ledger:
        backend = make_judge(settings, ledger, run.say)
        try:
            with usage_on_error(run, "judge", ledger):
                limits = remaining_limits(run, "judge")
                outcome = run_judge(lambda: judge_requests(run, backend), backend, settings, ledger, limits, run.say)
        finally:  # replies from before an error or Ctrl-C are in the file and the counts too
            counts = write_scores(run.folder, judge_requests(run, backend), ledger, backend)
            run.counts["judge"] = counts
        record_usage(run, "judge", outcome, ledger)
    run.say(f"judge: {counts['scored']} answers scored, {counts['missing']} missing (see {run.folder / SCORES})")
    return counts


def judge_requests(run: Run, backend: JudgeBackend) -> Iterator[Request]:
    """One request for each answer and draw, in the order of the questions."""
    return make_requests(run.questions, read_candidates(run.folder), backend, run.settings.judge, run.media_digests())


# --- pairs


def pairs(run: Run) -> PairResult:
    """Write ``pairs/<name>.jsonl`` with its ``dataset_info.json`` and dataset card."""
    scores = latest(run.folder / SCORES)
    if not scores:
        raise DataError(f"{run.folder}: there are no scores. Run `hound reward judge` first.")
    judged_by = judge_of(scores, run.folder / SCORES)
    candidates = read_candidates(run.folder)
    settings = run.settings.pairs
    scale, excluded = scale_of(scores, run.folder / SCORES), excluded_ids(run.folder)
    result = make_pairs(run.questions, candidates, scores, settings, run.settings.seed, excluded, scale)
    provenance = {
        "judge": judged_by.get("model", ""),
        "protocol": judged_by.get("protocol", ""),
        "sampler": next((row["sampler"] for rows in candidates.values() for row in rows.values()), ""),
    }
    if "smoke_test" in judged_by:
        provenance["smoke_test"] = SMOKE_TEST
    rows = [pair_row(pair, provenance) for pair in result.pairs]
    target = run.folder / "pairs"
    write_rows(target / f"{settings.name}.jsonl", rows)
    info = _dataset_info(target)
    info[settings.name] = {"file_name": f"{settings.name}.jsonl", "formatting": "hound", "ranking": True}
    write_json(target / "dataset_info.json", info)
    write_whole(target / "README.md", dataset_card(run.settings, rows, judged_by, provenance))
    run.counts["pairs"] = {
        "pairs": len(rows),
        "questions": len(run.questions),
        "questions_dropped": dict(result.questions_dropped),
        "pairs_dropped": dict(result.pairs_dropped),
    }
    run.say(f"pairs: {len(rows)} from {len(run.questions)} questions in {target / settings.name}.jsonl")
    return result


def _dataset_info(target: Path) -> dict[str, Any]:
    path = target / "dataset_info.json"
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON: {error}. Correct or remove it.") from error
    return dict(info)
