"""The folder of an evaluation, ``<folder>/<name>/<suite>/``: what is in it, read and written.

``questions.jsonl`` is written once, by the first run, and ``predictions.jsonl`` grows while the model answers; both are
in the suite's order in the end. ``judgements.jsonl`` is rewritten from the ledger of the judge.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from hound_plugin.errors import DataError, LedgerError
from hound_plugin.evaluation.items import Judgement, Prediction, Question
from hound_plugin.records.files import append_rows, write_rows
from hound_plugin.records.jsonl import read_objects
from hound_plugin.records.run_folders import locked, read_run

QUESTIONS, PREDICTIONS, JUDGEMENTS = "questions.jsonl", "predictions.jsonl", "judgements.jsonl"
LEDGER, PREDICTOR_LEDGER, REPORT = "ledger.sqlite", "predictor.sqlite", "report"
PREDICT_LOCK = "predict"

T = TypeVar("T", Question, Prediction, Judgement)


@dataclass(frozen=True)
class EvaluationRun:
    """One model on one suite.

    Attributes:
        folder: ``<folder>/<name>/<suite>``.
        meta: ``run.json``: versions, command, ``settings``, ``name``, ``suite``, ``suite_info``, ``model``, ``counts``
            by stage, ``history``; empty before the first stage has ended.
        questions: in the suite's order.
        predictions: question id -> prediction, of those that have one yet, in the questions' order.
        judgements: question id -> judgement, likewise.
    """

    folder: Path
    meta: Mapping[str, Any]
    questions: list[Question]
    predictions: dict[str, Prediction]
    judgements: dict[str, Judgement]

    @property
    def name(self) -> str:
        """The run's name, from its folder."""
        return self.folder.parent.name

    @property
    def suite(self) -> str:
        """The suite's name, from its folder."""
        return self.folder.name


def load_run(folder: str | Path) -> EvaluationRun:
    """Read a run folder, complete or not.

    Raises:
        DataError: it has no ``questions.jsonl``, a row is malformed or has an id that no question has, or a question is
            there twice.
    """
    folder = Path(folder)
    if not (folder / QUESTIONS).is_file():
        raise DataError(
            f"Expected the folder of an evaluation, with {QUESTIONS} in it; {folder} has none. It is "
            "<folder>/<name>/<suite>; `hound eval predict` makes it."
        )
    questions = _read(folder / QUESTIONS, Question)
    order = {question.id: position for position, question in enumerate(questions)}
    if len(order) < len(questions):
        raise DataError(f"{folder / QUESTIONS}: expected each id once; {len(questions) - len(order)} are repeated.")
    predictions = _by_id(folder / PREDICTIONS, Prediction, order)
    return EvaluationRun(
        folder, read_run(folder), questions, predictions, _by_id(folder / JUDGEMENTS, Judgement, order)
    )


def find_runs(first: str, second: str, folder: str | Path) -> tuple[EvaluationRun, EvaluationRun]:
    """Two runs by their folders, ``<folder>/<name>/<suite>``, or by their names.

    A name stands for the one suite that its run has, or for the one that the other run is about.

    Raises:
        DataError: there is no such run, or it has several suites.
    """
    places = [[Path(name)] if _is_run(Path(name)) else _runs_of(name, Path(folder)) for name in (first, second)]
    if all(map(len, places)):
        suites = {place.name for place in places[0]} & {place.name for place in places[1]}
        common = [[place for place in group if place.name in suites] or group for group in places]
        if all(len(group) == 1 for group in common):
            return load_run(common[0][0]), load_run(common[1][0])
    for name, group in zip((first, second), places, strict=True):
        if not group:
            raise DataError(
                f"Expected the folder of a run, or a name under {folder}; {name} is neither. A run's folder is "
                "<folder>/<name>/<suite>."
            )
    several = ", ".join(str(place) for group in places for place in group)
    raise DataError(f"Expected two runs, but the names may mean any of {several}. Give the folders.")


def _is_run(folder: Path) -> bool:
    return (folder / QUESTIONS).is_file()


def _runs_of(name: str, folder: Path) -> list[Path]:
    """The suites of a run's folder, or of the run of that name."""
    for parent in (Path(name), folder / name):
        if _is_run(parent):
            return [parent]
        if found := sorted(path.parent for path in parent.glob(f"*/{QUESTIONS}")):
            return found
    return []


def _read(path: Path, kind: type[T]) -> list[T]:
    names = {field.name for field in fields(kind)}
    rows = []
    for number, row in enumerate(read_objects(path), 1):
        try:
            values = {name: value for name, value in row.items() if name in names}
            if kind is Question:
                values |= {"media": tuple(values["media"]), "accepted": tuple(values.get("accepted", ()))}
            rows.append(kind(**values))
        except (KeyError, TypeError) as error:
            raise DataError(f"{path}, row {number}: expected the fields of a {kind.__name__}: {error}.") from error
    return rows


def _by_id(path: Path, kind: type[T], order: Mapping[str, int]) -> dict[str, T]:
    """Rows by id in the order of the questions; of two with one id the first counts, as the second was not needed."""
    found: dict[str, T] = {}
    for row in _read(path, kind):
        if row.id not in order:
            raise DataError(f"{path}: {row.id!r} is no question of {path.with_name(QUESTIONS)}. Use a new `name`.")
        found.setdefault(row.id, row)
    return dict(sorted(found.items(), key=lambda item: order[item[0]]))


# --- writing


def freeze_questions(folder: Path, questions: Sequence[Question]) -> None:
    """Write ``questions.jsonl`` in the first run; later runs must have the same ones.

    Raises:
        LedgerError: the folder has other questions.
    """
    with locked(folder, "questions"):
        if not (folder / QUESTIONS).is_file():
            write_rows(folder / QUESTIONS, [question.to_row() for question in questions])
    check_questions(folder, questions)


def check_questions(folder: Path, questions: Sequence[Question]) -> None:
    """Compare questions with those of a run, if it has any.

    Raises:
        LedgerError: the folder has other questions.
    """
    path = folder / QUESTIONS
    if not path.is_file():
        return
    before = {question.id: question for question in _read(path, Question)}
    now = {question.id: question for question in questions}
    if before == now and list(before) == list(now):
        return
    changed = [name for name in before.keys() | now.keys() if before.get(name) != now.get(name)]
    raise LedgerError(
        f"{path} was written with other questions: {len(now.keys() - before.keys())} are new, "
        f"{len(before.keys() - now.keys())} gone, {len(before.keys() & now.keys() & set(changed))} changed"
        f"{f', such as {min(changed)!r}' if changed else ', and the order'}. Choose another `name`, or restore the "
        "suite and its settings."
    )


def append_predictions(folder: Path, predictions: Iterable[Prediction]) -> None:
    """Add predictions durably; several processes may do so at a time."""
    with locked(folder, PREDICT_LOCK):
        append_rows(folder / PREDICTIONS, [prediction.to_row() for prediction in predictions])


def finish_predictions(folder: Path) -> bool:
    """Put ``predictions.jsonl`` into the order of the questions, each once, if every question has a prediction.

    Returns:
        Whether every question has one.
    """
    with locked(folder, PREDICT_LOCK):
        run = load_run(folder)
        if len(run.predictions) < len(run.questions):
            return False
        if [row.id for row in _read(folder / PREDICTIONS, Prediction)] != list(run.predictions):
            write_rows(folder / PREDICTIONS, [prediction.to_row() for prediction in run.predictions.values()])
        return True


def write_judgements(folder: Path, judgements: Iterable[Judgement]) -> None:
    """Write ``judgements.jsonl`` atomically."""
    with locked(folder, "judge"):
        write_rows(folder / JUDGEMENTS, [judgement.to_row() for judgement in judgements])
