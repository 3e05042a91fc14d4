"""Predicting: one answer to each question, from a model in this process, a server or a file; resumable to the row.

A model gets batches that depend only on the questions and ``predict.batch_size``: questions about one clip are
together, and batches hold questions of similar length. Processes of torchrun share them out, and a killed run repeats
at most the batches that it was at, so that predictions are the same however the work was divided.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hound_plugin.engines.work import LOCAL, Engine, Work, media_reader
from hound_plugin.errors import LedgerError
from hound_plugin.evaluation.items import Prediction, Question
from hound_plugin.evaluation.run_folder import PREDICTIONS, append_predictions, finish_predictions, load_run
from hound_plugin.evaluation.shards import Shard
from hound_plugin.records.files import write_json
from hound_plugin.records.run_folders import locked, read_run

PREDICTOR = "predictor.json"
PROGRESS_SECONDS = 10.0
COUNTS = ("questions", "answered", "cut", "unanswered", "missing")
POLL = 0.5  # seconds between two looks at what other processes have done

Say = Callable[[str], None]


class Predictor(Protocol):
    """A model in this process."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Everything that determines an answer besides the question, known before the model is loaded."""

    def predict(self, questions: Sequence[Question]) -> list[Prediction]:
        """Answers to a batch; a clip that cannot be read gives an error as its question's prediction."""


@dataclass(frozen=True)
class Batch:
    """Questions that are answered together, by their position in the suite."""

    number: int
    questions: tuple[Question, ...]


def make_batches(questions: Sequence[Question], size: int) -> list[Batch]:
    """Batches of at most ``size`` questions: those about one clip together, clips with the longest questions first.

    A batch that is too large for the memory therefore fails at the beginning.
    """
    groups: dict[tuple[str, ...], list[Question]] = {}
    for question in questions:
        groups.setdefault(question.media or (question.id,), []).append(question)
    ordered = sorted(groups.values(), key=lambda group: max(len(question.prompt) for question in group), reverse=True)
    batches: list[list[Question]] = [[]]
    for group in ordered:
        for start in range(0, len(group), size):
            part = group[start : start + size]
            if len(batches[-1]) + len(part) > size:
                batches.append([])
            batches[-1] += part
    return [Batch(number, tuple(batch)) for number, batch in enumerate(batches) if batch]


def predict_with_model(
    folder: Path,
    predictor: Predictor,
    batch_size: int,
    shard: Shard,
    say: Say = lambda _: None,
    *,
    engine: Engine = LOCAL,
    also: Mapping[str, Any] | None = None,
    count: Callable[[int], object] = lambda _: None,
) -> dict[str, Any]:
    """This process's share of the predictions that are missing.

    Args:
        folder: an evaluation with its questions.
        predictor: the model; not used if nothing is missing.
        batch_size: questions at a time.
        shard: which batches are this process's.
        say: receives a line of progress every ten seconds.
        engine: where the model answers; predictions are written by this process.
        also: what determines an answer besides ``predictor.identity``.
        count: receives the number of new predictions after each batch.

    Returns:
        ``added``, ``seconds`` and ``rows_per_second`` of this process.

    Raises:
        LedgerError: the folder has predictions of another model or of other settings.
    """
    bind_predictor(folder, {**predictor.identity, **(also or {})})
    work = Work(predictor.predict, _media_of, media_reader(predictor))
    with locked(folder, f"predict-{shard.rank}-of-{shard.size}", say):
        todo = _missing(folder, batch_size, shard)  # read here: another run may just have ended
        progress = Progress(sum(len(ids) for _, ids in todo), shard, say)
        with closing(engine.run(work, [questions for questions, _ in todo])) as results:
            for number, rows in results:
                predictions = {row.id: row for row in rows}
                append_predictions(folder, [predictions[id] for id in todo[number][1]])
                progress.add(len(todo[number][1]))
                count(len(todo[number][1]))
    return progress.counts()


def _missing(folder: Path, batch_size: int, shard: Shard) -> list[tuple[tuple[Question, ...], list[str]]]:
    """This process's batches in which something is missing, each with the ids that are."""
    run = load_run(folder)
    mine = [batch for batch in make_batches(run.questions, batch_size) if batch.number % shard.size == shard.rank]
    missing = [[question.id for question in batch.questions if question.id not in run.predictions] for batch in mine]
    return [(batch.questions, ids) for batch, ids in zip(mine, missing, strict=True) if ids]


def _media_of(questions: Sequence[Question]) -> list[Any]:
    return [question.shown for question in questions]


def bind_predictor(folder: Path, identity: Mapping[str, Any]) -> None:
    """Note what makes the folder's predictions, or compare with what did before.

    Raises:
        LedgerError: something else did.
    """
    now = {name: value for name, value in identity.items() if value is not None}
    with locked(folder, "predictor"):
        before = read_run(folder, PREDICTOR)
        if not before:
            write_json(folder / PREDICTOR, now)
            return
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if changed:
        differences = "; ".join(f"{name} was {before.get(name)!r} and is {now.get(name)!r}" for name in changed)
        raise LedgerError(
            f"{folder} has predictions of another model or of other settings: {differences}. Choose another `name`: "
            "predictions of two models must not be mixed."
        )


class Progress:
    """Rows done, rows per second and time left, as a line every ten seconds."""

    def __init__(self, total: int, shard: Shard, say: Say) -> None:
        self.total, self.done = total, 0
        self._say, self._where = say, f" ({shard})" if shard.size > 1 else ""
        self._started = self._shown = time.monotonic()

    def add(self, rows: int) -> None:
        """Count rows, and say so if it is time."""
        self.done += rows
        now = time.monotonic()
        if now - self._shown < PROGRESS_SECONDS and self.done < self.total:
            return
        self._shown = now
        left = "" if self.done == self.total else f", {_in_words((self.total - self.done) / self._rate(now))} left"
        self._say(f"predict{self._where}: {self.done:,} of {self.total:,}, {self._rate(now):.3g} rows/s{left}")

    def _rate(self, now: float) -> float:
        return self.done / max(now - self._started, 1e-9)

    def counts(self) -> dict[str, Any]:
        """For ``run.json``."""
        now = time.monotonic()
        rate = round(self._rate(now), 3) if self.done else None
        return {"added": self.done, "seconds": round(now - self._started, 3), "rows_per_second": rate}


def _in_words(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{round(seconds)} s"


def wait_for_others(folder: Path, shard: Shard, say: Say) -> None:
    """Return when every question has a prediction and the file is in order; the first process waits for the others."""
    path, size, shown = folder / PREDICTIONS, -1, -math.inf
    while path.stat().st_size == size or not finish_predictions(folder):
        if time.monotonic() - shown > PROGRESS_SECONDS:
            say(f"predict ({shard}): done; waiting for the other processes")
            shown = time.monotonic()
        size = path.stat().st_size
        time.sleep(POLL)


def count_predictions(folder: Path) -> dict[str, Any]:
    """Counts of a folder's predictions by test set; answers that were cut are among those answered."""
    run = load_run(folder)
    counts: dict[str, dict[str, int]] = {}
    for question in run.questions:
        row = counts.setdefault(question.set, dict.fromkeys(COUNTS, 0))
        prediction = run.predictions.get(question.id)
        row["questions"] += 1
        row["missing" if prediction is None else "answered" if prediction.text is not None else "unanswered"] += 1
        row["cut"] += prediction is not None and prediction.is_cut
    return counts


def unanswered(folder: Path) -> Iterator[Prediction]:
    """Predictions that have no text, each with the reason."""
    yield from (row for row in load_run(folder).predictions.values() if row.text is None)
