"""The stages of ``hound reward``, each from settings to files; the model comes in through a small protocol."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hound_plugin.errors import DataError, LedgerError
from hound_plugin.llm.requests import OK, Task, request_key
from hound_plugin.llm.ledger import Ledger
from hound_plugin.judge.lexical import SMOKE_TEST
from hound_plugin.llm.openai_client import OpenAIClient
from hound_plugin.llm.reparse import read_again
from hound_plugin.llm.runner import Limits, Outcome, run_tasks
from hound_plugin.records.bad_rows import LIST, RowReport, to_lines
from hound_plugin.records.files import write_json, write_rows, write_whole
from hound_plugin.records.jsonl import read_objects
from hound_plugin.judge.backends import (
    check_scale,
    make_judge,
    make_limits,
    make_sampler,
    needed_fields,
    protocol_id,
    sampler_identity,
)
from hound_plugin.reward.candidates import FILE as ANSWERS
from hound_plugin.reward.candidates import (
    Generator,
    Sampled,
    add_candidates,
    answer_seed,
    check_sampler,
    count_alike,
    given_answers,
    read_candidates,
    sample_candidates,
)
from hound_plugin.reward.pairs import PairResult, make_pairs, pair_row
from hound_plugin.reward.questions import Question, check_fields, read_questions
from hound_plugin.reward.scoring import FILE, LEDGER, Judge, judge_of, latest, make_tasks, write_scores
from hound_plugin.reward.settings import JudgeSettings, RewardSettings, SampleSettings
from hound_plugin.reward.run_folder import open_folder
from hound_plugin.reward.usage import stage_usage

SAMPLER_LEDGER, SAMPLING = "sampler.sqlite", "sample/1"
EXCLUDED = "excluded.jsonl"
NEARLY_ALL = 0.95  # of the questions
MakeGenerator = Callable[[SampleSettings], Generator]


@dataclass
class Run:
    """A run folder with checked questions.

    Attributes:
        settings: all of them.
        folder: where everything is written.
        questions: checked.
        say: takes lines for the user.
        make_generator: gives the model for sampling in this process.
    """

    settings: RewardSettings
    folder: Path
    questions: list[Question]
    say: Callable[[str], None]
    make_generator: MakeGenerator | None = None
    counts: dict[str, Any] = field(default_factory=dict)
    digests: dict[str, str] | None = None


def open_run(settings: RewardSettings, say: Callable[[str], None], make_generator: MakeGenerator | None = None) -> Run:
    """Make every check that needs no request, then open the folder.

    Raises:
        DataError, MediaNotFoundError: questions that cannot be used.
        SettingsError: a folder that cannot be written, no key, a bad protocol.
        LedgerError: a ledger made with another protocol.
    """
    check_scale(settings)
    report = RowReport(settings.questions)
    questions = read_run_questions(settings, report)
    check_fields(questions, needed_fields(settings.judge), f"judge.backend {settings.judge.backend}")
    blind = [question.id for question in questions if not question.medium]
    if settings.judge.backend == "vision" and blind:
        raise DataError(f"judge.backend vision: {len(blind)} questions have no clip; the first is {blind[0]}.")
    if settings.pairs.chosen_from_reference and not any(question.reference for question in questions):
        raise DataError("pairs.chosen_from_reference: no question has a `reference`.")
    folder = open_folder(settings.folder)
    try:
        with Ledger(folder / LEDGER, protocol_id(settings.judge)) as ledger:
            make_judge(settings.judge, ledger, lambda _: None, ask=False)
    except LedgerError as error:
        raise LedgerError(
            f"{error} The same answers can be judged in a new folder: sample.backend=given "
            f"sample.answers={folder / ANSWERS}."
        ) from error
    tell_of_rows(report, settings, folder, say)
    return Run(settings, folder, questions, say, make_generator)


def read_run_questions(settings: RewardSettings, report: RowReport | None = None) -> list[Question]:
    """The questions of a run, by its settings; errors as :func:`hound_plugin.reward.questions.read_questions`."""
    return read_questions(
        settings.questions,
        settings.media_dir,
        settings.limit,
        on_bad_rows=settings.on_bad_rows,
        max_bad_rows=settings.max_bad_rows,
        report=report,
    )


def tell_of_rows(report: RowReport, settings: RewardSettings, folder: Path, say: Callable[[str], None]) -> None:
    """Say what was decided about rows of questions, and list those that are left out in the folder."""
    for line in report.remarks():
        say(line)
    if not report.bad:
        (folder / LIST).unlink(missing_ok=True)  # of an earlier run
        return
    write_whole(folder / LIST, to_lines(report.entries))
    say(f"warning: {report.settle('skip', settings.max_bad_rows, folder / LIST, '')}")


# --- sample


def sample(run: Run) -> dict[str, int]:
    """Fill ``candidates.jsonl``; gives how many answers were added and how many are missing."""
    settings = run.settings.sample
    missing = 0
    if settings.backend == "model":
        if run.make_generator is None:
            raise LedgerError("There is no model to sample from in this program; use backend openai or given.")
        added = _sample_model(run, run.make_generator)
    elif settings.backend == "given":
        assert settings.answers is not None
        answers = given_answers(settings.answers, run.questions)
        identity = {"backend": "given", "model": settings.model or Path(settings.answers).name}
        added = add_candidates(run.folder, identity, answers, run.settings.seed)
    else:
        added, missing = _sample_server(run)
    held = read_candidates(run.folder)
    alike, several = count_alike([row["answer"] for row in held[q.id].values()] for q in run.questions if q.id in held)
    counts = {"added": added, "answers": sum(map(len, held.values())), "missing": missing, "questions_alike": alike}
    run.counts["sample"] = counts
    run.say(f"sample: {added} answers added, {counts['answers']} there, {missing} missing")
    if several and alike >= NEARLY_ALL * several:
        run.say(
            f"warning: {alike} of {several} questions have answers that are all alike, and equal answers make no "
            f"pairs. {_what_to_check(settings)}"
        )
    return counts


def _what_to_check(settings: SampleSettings) -> str:
    """Where to look when a sampler says the same again and again."""
    if settings.backend == "given":
        return f"Check that {settings.answers} holds several different answers to a question."
    if not settings.temperature:
        return "sample.temperature is 0, which is greedy: set it to 1, for example."
    if settings.backend == "model":
        return f"Check sample.temperature ({settings.temperature}) and sample.top_p ({settings.top_p}): raise them."
    return (
        f"Check that the server samples: sample.temperature is {settings.temperature}, and each answer has a seed of "
        "its own. A server may ignore both, or decode greedily by its own settings (`do_sample: false`)."
    )


def _sample_model(run: Run, make_generator: MakeGenerator) -> int:
    """Load the model only if an answer is missing."""
    held = read_candidates(run.folder)
    wanted = range(run.settings.sample.n)
    if all(set(wanted) <= set(held.get(question.id, {})) for question in run.questions):
        return 0
    generator = make_generator(run.settings.sample)
    return sample_candidates(run.questions, generator, run.folder, run.settings.sample.n, run.settings.seed, run.say)


def _sample_server(run: Run) -> tuple[int, int]:
    """Sample through a ledger of its own, so that no answer is paid for twice."""
    settings = run.settings.sample
    identity = sampler_identity(settings)
    check_sampler(run.folder, identity)
    client = make_sampler(settings)
    with Ledger(run.folder / SAMPLER_LEDGER, SAMPLING) as ledger:
        limits = _limits(run, settings, 3, LEDGER, protocol_id(run.settings.judge))
        with _used(run, "sample", ledger):
            outcome = run_tasks(_sampling_tasks(run, identity), client, ledger, limits, run.say)
        _tell(run, "sample", outcome, ledger)
        missing = 0

        def answers() -> Iterator[tuple[Question, int, Sampled]]:
            nonlocal missing
            questions = {question.id: question for question in run.questions}
            for task in _sampling_tasks(run, identity):
                entry = ledger.entry(task.key)
                if entry is None or entry.status != OK:
                    missing += 1
                    continue
                finish = str(json.loads(entry.detail or "{}").get("finish", "stop"))
                yield questions[task.id], task.candidate, Sampled(str(entry.value), finish, entry.completion_tokens)

        added = add_candidates(run.folder, identity, answers(), run.settings.seed)
    return added, missing


def _sampling_tasks(run: Run, identity: dict[str, Any]) -> Iterator[Task]:
    for question in run.questions:
        for candidate in range(run.settings.sample.n):
            seed = answer_seed(run.settings.seed, question.id, candidate)
            fields = {"question": question.text, "medium": question.medium}
            parts = {**identity, "fields": fields, "media": question.media, "seed": seed}
            yield Task(request_key(parts), question.id, candidate, 0, fields, question.paths, seed)


# --- judge


def judge(run: Run) -> dict[str, int]:
    """Judge every answer that is not judged yet, then bring ``scores.jsonl`` up to date."""
    settings = run.settings.judge
    candidates = read_candidates(run.folder)
    if not any(candidates.get(question.id) for question in run.questions):
        raise DataError(f"{run.folder}: there are no answers to judge. Run `hound reward sample` first.")
    with Ledger(run.folder / LEDGER, protocol_id(settings)) as ledger:
        judge = make_judge(settings, ledger, run.say)
        try:
            with _used(run, "judge", ledger):
                outcome = _send(run, judge, ledger)
        finally:  # what was answered before an error or Ctrl-C is in the file and the counts too
            counts = write_scores(run.folder, _judging_tasks(run, judge), ledger, judge)
            run.counts["judge"] = counts
        _tell(run, "judge", outcome, ledger)
    run.say(f"judge: {counts['scored']} answers scored, {counts['missing']} missing (see {run.folder / FILE})")
    return counts


def _send(run: Run, judge: Judge, ledger: Ledger) -> Outcome:
    settings = run.settings.judge
    if again := read_again(_judging_tasks(run, judge), ledger, judge.client.conversation, settings.attempts):
        run.say(f"judge: {again} answers that could not be read when they came have a score now; nothing was sent")
    limits = _limits(run, settings, settings.attempts, SAMPLER_LEDGER, SAMPLING)
    if settings.backend == "openai-batch":
        from hound_plugin.llm.batch import run_batches

        assert isinstance(judge.client, OpenAIClient)
        return run_batches(lambda: _judging_tasks(run, judge), judge.client, ledger, limits, settings.batch_rows,
                           settings.batch_bytes, settings.poll, run.say)  # fmt: skip
    return run_tasks(_judging_tasks(run, judge), judge.client, ledger, limits, run.say)


def _limits(run: Run, block: JudgeSettings | SampleSettings, attempts: int, other: str, protocol: str) -> Limits:
    """Limits of a stage; ``max_cost`` is for the folder, so what the other stage's ledger spent is taken off."""
    limits = make_limits(run.settings, block, attempts)
    if limits.max_cost is None or not (run.folder / other).is_file():
        return limits
    elsewhere = run.settings.judge if isinstance(block, SampleSettings) else run.settings.sample
    price = make_limits(run.settings, elsewhere, 1).price
    with Ledger(run.folder / other, protocol) as ledger:
        totals = ledger.totals()
    spent = price.cost(totals.prompt_tokens, totals.completion_tokens) if price else 0.0
    return replace(limits, max_cost=max(0.0, limits.max_cost - spent))


def digests(run: Run) -> dict[str, str] | None:
    """Hash of each question's clip, where requests show it; computed once."""
    if run.settings.judge.backend != "vision":
        return None
    from hound_plugin.records.media_identity import media_digest

    if run.digests is None:
        run.digests = {question.id: media_digest(question.paths) for question in run.questions}
    return run.digests


def _judging_tasks(run: Run, judge: Judge) -> Iterator[Task]:
    return make_tasks(run.questions, read_candidates(run.folder), judge, run.settings.judge, digests(run))


@contextlib.contextmanager
def _used(run: Run, stage: str, ledger: Ledger) -> Iterator[None]:
    """What a stage used is counted also when it ends with an error."""
    try:
        yield
    except BaseException as error:
        stopped = str(error) or type(error).__name__
        run.counts[f"{stage}_usage"] = {**stage_usage(run.settings, stage, ledger), "stopped": stopped, "warnings": []}
        raise


def _tell(run: Run, stage: str, outcome: Outcome, ledger: Ledger) -> None:
    used = stage_usage(run.settings, stage, ledger)
    run.counts[f"{stage}_usage"] = {
        **used,
        "this_run": {name: getattr(outcome, name) for name in ("sent", "answered", "missing", "failed", "done_before")},
        "stopped": outcome.stopped,
        "warnings": outcome.warnings,
    }
    unknown = f"{used['uncounted']} of {used['answers']} answers came without token counts: tokens and cost are more"
    lines = (outcome.stopped and f"stopped early: {outcome.stopped}", used["uncounted"] and unknown, *outcome.warnings)
    for line in lines:
        if line:
            run.say(f"warning: {line}")


# --- pairs


def pairs(run: Run) -> PairResult:
    """Write ``pairs/<name>.jsonl`` with its ``dataset_info.json`` and card."""
    from hound_plugin.reward.card import dataset_card

    scores = latest(run.folder / FILE)
    if not scores:
        raise DataError(f"{run.folder}: there are no scores. Run `hound reward judge` first.")
    judged_by = judge_of(scores, run.folder / FILE)
    candidates = read_candidates(run.folder)
    settings = run.settings.pairs
    result = make_pairs(run.questions, candidates, scores, settings, run.settings.seed, excluded_ids(run.folder))
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
    run.say(f"pairs: {len(rows)} of {len(run.questions)} questions in {target / settings.name}.jsonl")
    return result


def _dataset_info(target: Path) -> dict[str, Any]:
    path = target / "dataset_info.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise DataError(f"{path} is no JSON: {error}. Correct or remove it.") from error
    return dict(found)


def excluded_ids(folder: Path) -> frozenset[str]:
    """Ids of pairs that somebody dropped by hand; the last row of an id counts."""
    state = {str(row["id"]): bool(row.get("excluded", True)) for row in read_objects(folder / EXCLUDED) if "id" in row}
    return frozenset(name for name, out in state.items() if out)
