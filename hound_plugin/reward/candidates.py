"""Sampling: n answers per question, each from its own seed, resumable to the single answer.

The seed of an answer depends only on the run's seed, the question's id and the number of the answer; so an answer does
not depend on which others exist already, and more answers can be sampled later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeGuard, runtime_checkable

from hound_plugin.engines.work import LOCAL, Engine, Work, media_reader
from hound_plugin.errors import DataError, HoundError, LedgerError, MediaError
from hound_plugin.llm.requests import request_key
from hound_plugin.records.bad_rows import OnBadRows
from hound_plugin.records.files import append_rows, write_rows
from hound_plugin.records.jsonl import read_objects
from hound_plugin.records.questions import Question
from hound_plugin.records.run_folders import locked
from hound_plugin.records.seeds import make_seed
from hound_plugin.reward.run_folder import CANDIDATES, Row


@dataclass(frozen=True)
class SampledAnswer:
    """One answer; ``finish`` is ``stop``, or ``length`` if it was cut; ``tokens`` is None if unknown."""

    text: str
    finish: str = "stop"
    tokens: int | None = 0


class Generator(Protocol):
    """A model that answers, in this process."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Everything that determines an answer besides question and seed: model, fingerprint, settings."""

    def sample(self, question: str, media: Any, seeds: Sequence[int]) -> list[SampledAnswer]:
        """One answer for each seed; the prompt and the clip are encoded once."""


@runtime_checkable
class BatchGenerator(Generator, Protocol):
    """A generator that works at many questions at the same time."""

    @property
    def questions_at_a_time(self) -> int:
        """How many questions it takes."""

    def sample_many(self, asked: Sequence[tuple[str, Any, Sequence[int]]]) -> list[list[SampledAnswer] | HoundError]:
        """Answers to several questions, each with its media and seeds; or why a question has none."""


def answer_seed(seed: int, question: str, candidate: int) -> int:
    """The seed of one answer."""
    return make_seed("candidate", seed, question, candidate)


@dataclass(frozen=True)
class Sampled:
    """What became of the questions of a run.

    Attributes:
        added: answers.
        broken: id of a question whose clip cannot be read -> why; it has no answers.
    """

    added: int = 0
    broken: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Missing:
    """The answers that a question still lacks; it is sent to the process that has the model."""

    question: Question
    candidates: tuple[int, ...]
    seeds: tuple[int, ...]


def sample_candidates(
    questions: Sequence[Question],
    generator: Generator,
    folder: Path,
    n: int,
    seed: int,
    say: Callable[[str], None] = lambda _: None,
    *,
    engine: Engine = LOCAL,
    on_bad_media: OnBadRows = "error",
) -> Sampled:
    """Fill ``candidates.jsonl`` up to n answers per question.

    Args:
        questions: what is asked.
        generator: the model.
        folder: of the run.
        n: answers per question.
        seed: of the run.
        say: receives lines of progress.
        engine: where the model answers; answers are written by this process.
        on_bad_media: a clip that cannot be read: stop, or go on with the other questions.

    Raises:
        LedgerError: the file has answers of another sampler or other settings.
        MediaError: a clip cannot be read, and ``on_bad_media`` is ``error``; answers from before are kept.
        HoundError: a question has no answer; those of the questions that were asked together with it are written.
    """
    added = 0
    broken: dict[str, str] = {}
    with locked(folder, "sample", say):
        existing = _existing_answers(folder, generator.identity)
        tasks = list(_missing_answers(questions, existing, n, seed))
        size = generator.questions_at_a_time if isinstance(generator, BatchGenerator) else 1
        together = [tasks[start : start + size] for start in range(0, len(tasks), size)]
        work = Work(partial(_sample, generator), _media_of, media_reader(generator))
        done = len(questions) - len(tasks)
        with closing(engine.run(work, together)) as results:
            for number, sampled in results:
                rows: list[Row] = []
                errors: list[HoundError] = []
                for task, answers in zip(together[number], sampled, strict=True):
                    if isinstance(answers, MediaError) and on_bad_media != "error":
                        broken[task.question.id] = str(answers)
                    elif isinstance(answers, HoundError):
                        errors.append(answers)
                    else:
                        new = dict(zip(task.candidates, answers, strict=True))
                        rows += _rows(task.question, new, existing.get(task.question.id, {}), generator.identity, seed)
                append_rows(folder / CANDIDATES, rows)
                added += len(rows)
                if errors:
                    raise errors[0]
                done += len(sampled)
                if done // 50 > (done - len(sampled)) // 50:
                    say(f"sampled {done} of {len(questions)} questions")
        if not engine.keeps_order:
            _put_in_order(folder, questions)
    return Sampled(added, broken)


def _missing_answers(
    questions: Sequence[Question], existing: Mapping[str, Mapping[int, str]], n: int, seed: int
) -> Iterator[_Missing]:
    for question in questions:
        before = existing.get(question.id, {})
        missing = tuple(candidate for candidate in range(n) if candidate not in before)
        if missing:
            yield _Missing(question, missing, tuple(answer_seed(seed, question.id, number) for number in missing))


def _sample(generator: Generator, tasks: Sequence[_Missing]) -> list[list[SampledAnswer] | HoundError]:
    asked = [(task.question.text, task.question.paths, task.seeds) for task in tasks]
    if isinstance(generator, BatchGenerator):
        return generator.sample_many(asked)
    answers: list[list[SampledAnswer] | HoundError] = []
    for item in asked:
        try:
            answers.append(generator.sample(*item))
        except HoundError as error:
            answers.append(error)
    return answers


def _media_of(tasks: Sequence[_Missing]) -> list[Any]:
    return [task.question.paths for task in tasks]


def _put_in_order(folder: Path, questions: Sequence[Question]) -> None:
    """Answers by the order of the questions, as one process writes them; rows of other questions come after them."""
    rows = list(read_objects(folder / CANDIDATES))
    order = {question.id: position for position, question in enumerate(questions)}
    ordered = sorted(rows, key=lambda row: (order.get(str(row["id"]), len(order)), int(row["candidate"])))
    if ordered != rows:
        write_rows(folder / CANDIDATES, ordered)


def add_candidates(
    folder: Path,
    identity: Mapping[str, Any],
    answers: Iterator[tuple[Question, int, SampledAnswer]],
    seed: int,
    are_all: bool = False,
) -> int:
    """Add answers that come from elsewhere (a server or a file); existing ones stay.

    Args:
        folder: of the run.
        identity: of the sampler.
        answers: a question, the number of the answer, and the answer.
        seed: of the run.
        are_all: no other answers may exist.

    Raises:
        DataError: an answer is another one than that which exists, or one exists that is not among ``answers``.
        LedgerError: the folder has answers of another sampler.
    """
    with locked(folder, "sample"):
        existing = _existing_answers(folder, identity)
        left = {(name, number) for name, numbers in existing.items() for number in numbers} if are_all else set()
        rows: list[Row] = []
        for question, candidate, answer in answers:
            before = existing.setdefault(question.id, {})
            left.discard((question.id, candidate))
            if candidate not in before:
                rows += _rows(question, {candidate: answer}, before, identity, seed)
                before[candidate] = answer.text
            elif before[candidate] != answer.text:
                raise DataError(
                    f"Question {question.id!r}, candidate {candidate}: expected one answer, got {answer.text!r:.120} "
                    f"and {before[candidate]!r:.120}, which is given before it or in {folder / CANDIDATES} by an "
                    "earlier run. Keep one of them, or use a new folder for another file of answers."
                )
        if left:
            name, candidate = min(left)
            raise DataError(
                f"Question {name!r}, candidate {candidate}: expected the answer that {folder / CANDIDATES} has from an "
                f"earlier run, {existing[name][candidate]!r:.120}, and it is gone ({len(left)} in all). Bring them "
                "back, or use a new folder for another file of answers."
            )
        append_rows(folder / CANDIDATES, rows)
        return len(rows)


def check_sampler(folder: Path, identity: Mapping[str, Any]) -> None:
    """Refuse a folder with answers of another sampler, before anything is sent.

    Raises:
        LedgerError: it has answers of another sampler or other settings.
    """
    _existing_answers(folder, identity)


def _existing_answers(folder: Path, identity: Mapping[str, Any]) -> dict[str, dict[int, str]]:
    """Existing answers: id -> candidate -> text."""
    fingerprint = request_key(identity)[:12]
    existing: dict[str, dict[int, str]] = {}
    for row in read_objects(folder / CANDIDATES):
        if row.get("sampler_fingerprint") != fingerprint:
            raise LedgerError(
                f"{folder / CANDIDATES} has answers of sampler {row.get('sampler')!r} with other settings "
                f"(fingerprint {row.get('sampler_fingerprint')}; this run: {fingerprint}). Use a new folder: answers "
                "of two samplers must not be mixed."
            )
        existing.setdefault(str(row["id"]), {})[int(row["candidate"])] = str(row["answer"])
    return existing


def _rows(
    question: Question,
    answers: Mapping[int, SampledAnswer],
    before: Mapping[int, str],
    identity: Mapping[str, Any],
    seed: int,
) -> list[Row]:
    """Rows of answers; one that repeats an earlier one is kept and marked."""
    first: dict[str, int] = {}
    for candidate in sorted(before, reverse=True):
        first[normalise(before[candidate])] = candidate
    rows = []
    for candidate, answer in sorted(answers.items()):
        duplicate_of = first.setdefault(normalise(answer.text), candidate)
        rows.append(
            {
                "id": question.id,
                "candidate": candidate,
                "answer": answer.text,
                "seed": answer_seed(seed, question.id, candidate),
                "duplicate_of": None if duplicate_of == candidate else duplicate_of,
                "finish": answer.finish,
                "tokens": answer.tokens,
                "sampler": str(identity.get("model", "")),
                "sampler_fingerprint": request_key(identity)[:12],
            }
        )
    return rows


def normalise(text: str) -> str:
    """A text for finding duplicates: lower case, single spaces, no full stop at the end."""
    return " ".join(text.casefold().split()).rstrip(".")


def count_alike(answers: Iterable[Sequence[str]]) -> tuple[int, int]:
    """Of the questions with several answers, how many have only equal ones.

    Args:
        answers: the answers to each question.

    Returns:
        Questions whose answers are all equal after :func:`normalise`, questions with at least two answers.
    """
    several = [texts for texts in answers if len(texts) > 1]
    return sum(len({normalise(text) for text in texts}) == 1 for texts in several), len(several)


def is_number(candidate: Any) -> TypeGuard[int]:
    """Whether this is the number of an answer; ``true`` is none."""
    return isinstance(candidate, int) and not isinstance(candidate, bool)


def read_candidates(folder: Path) -> dict[str, dict[int, Row]]:
    """Answers by question and number.

    Raises:
        DataError: a row without id, candidate or answer.
    """
    answers: dict[str, dict[int, Row]] = {}
    for number, row in enumerate(read_objects(folder / CANDIDATES), 1):
        if not is_number(row.get("candidate")) or not isinstance(row.get("answer"), str) or "id" not in row:
            raise DataError(
                f"{folder / CANDIDATES}, row {number}: expected id, candidate (a number) and answer (a text)."
            )
        answers.setdefault(str(row["id"]), {}).setdefault(row["candidate"], row)
    return answers
