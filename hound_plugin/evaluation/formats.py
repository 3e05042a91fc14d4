"""Predictions that other programs wrote, read in their own formats.

Known forms of a row, in JSON lines or an array:

- ours: ``id``, ``text``, ``error``, ``finish``, as in a run's ``predictions.jsonl``; or ``id`` and ``prediction``;
- LLaVA-Hound's test scripts: ``id``, ``modal_path``, ``query``, ``model_prediction: {status, message}``; the same with
  ``video_path``, as they write it for Video-ChatGPT, LLaMA-VID, Chat-UniVi and customised models;
- Video-ChatGPT's and LLaMA-VID's own scripts: ``id``, ``question``, ``answer``, ``pred``;
- Chat-UniVi's own script: ``video_name``, ``prompt``, ``text``, without an id: such a row belongs to the question with
  that text about that clip.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hound_plugin.errors import DataError
from hound_plugin.evaluation.items import Prediction, Question
from hound_plugin.evaluation.questions import SEPARATOR
from hound_plugin.llm.reasoning import has_reasoning, without_end
from hound_plugin.records.jsonl import read_objects
from hound_plugin.records.media_paths import bare_name, canonical_part, cut_part
from hound_plugin.records.parse import row_id
from hound_plugin.records.placeholders import TOKENS
from hound_plugin.records.row_sources import is_file

SET = "{set}"
_CLIPS = ("modal_path", "video_path", "video_name", "video")
WITH_REASONING = "write what follows `</think>` alone, or predict without reasoning"
EXPECTED = "expected `id` with `text`, `prediction`, `pred` or `model_prediction`, or `video_name`, `prompt` and `text`"


@dataclass(frozen=True)
class GivenRow:
    """One row in the terms of all forms; what a form does not have is empty."""

    id: str
    text: str | None
    error: str = ""
    question: str = ""
    clip: str = ""
    finish: str = ""


@dataclass
class GivenPredictions:
    """What a file of predictions has for a suite.

    Attributes:
        predictions: question id -> prediction, for every question.
        rows: rows read.
        surplus: ids, or clips and questions, that the suite does not have.
        repeated: rows that say again what an earlier one said.
        missing: ids of questions without a row.
        reasoning: ids of questions whose rows have the model's reasoning in the answer, which is none then.
    """

    predictions: dict[str, Prediction] = field(default_factory=dict)
    rows: int = 0
    surplus: list[str] = field(default_factory=list)
    repeated: int = 0
    missing: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)

    def remarks(self, path: str) -> list[str]:
        """Lines for the user about what is not one row for each question."""
        lines = []
        if self.surplus:
            lines.append(
                f"{path}: {len(self.surplus)} of {self.rows} rows are about no question of the suite and are not used, "
                f"such as {self.surplus[0]!r}"
            )
        if self.repeated:
            lines.append(f"{path}: {self.repeated} rows repeat an earlier one, word for word")
        if self.reasoning:
            lines.append(
                f"warning: {path}: {len(self.reasoning)} of {self.rows} answers have the model's reasoning in them and "
                f"count as unanswered, such as that to {self.reasoning[0]!r}: {WITH_REASONING}"
            )
        if self.missing:
            lines.append(
                f"warning: {path}: {len(self.missing)} of {len(self.predictions)} questions have no row and count as "
                f"unanswered, such as {self.missing[0]!r}"
            )
        return lines


def read_given(path: str, questions: Sequence[Question]) -> GivenPredictions:
    """Predictions from a file, or from one file for each test set if the path contains ``{set}``.

    Raises:
        DataError: no such file; a row of no known form, about another question than its id names, or different from an
            earlier one of the same question; or no row belongs to the suite.
    """
    found = GivenPredictions()
    if SET in path:
        by_set: dict[str, list[Question]] = defaultdict(list)
        for question in questions:
            by_set[question.set].append(question)
        for name, members in by_set.items():
            _read_file(path.replace(SET, name), members, found)
    else:
        _read_file(path, questions, found)
    if not found.predictions:
        example = f"the first is {found.surplus[0]!r}, " if found.surplus else ""
        raise DataError(
            f"predict.answers: none of the {found.rows} rows of {path} is about a question of the suite: {example}"
            f"while the suite has {questions[0].id!r}. Check suite and file."
        )
    found.missing = [question.id for question in questions if question.id not in found.predictions]
    for name in found.missing:
        found.predictions[name] = Prediction(name, None, f"there is no row for it in {path}")
    return found


def _read_file(path: str, questions: Sequence[Question], found: GivenPredictions) -> None:
    if not is_file(path):
        raise DataError(f"predict.answers: expected a file of predictions, but {path} does not exist.")
    index = _Index(questions)
    for number, row in enumerate(read_objects(path, complete=True), 1):
        place = f"{path}, row {number}"
        given = read_row(row, place)
        found.rows += 1
        question = index.find(given, place)
        if question is None:
            found.surplus.append(given.id or f"{given.clip}: {given.question}")
            continue
        text = given.text and without_end(given.text)
        prediction = Prediction(question.id, text, given.error, given.finish)
        if has_reasoning(given.text or ""):  # as in replies of servers
            prediction = Prediction(question.id, None, f"it has the model's reasoning in it: {WITH_REASONING}")
        before = found.predictions.setdefault(question.id, prediction)
        if before is not prediction:
            if before != prediction:
                raise DataError(
                    f"{place}: expected one prediction for each question; {question.id!r} has {before.text!r:.80} in "
                    f"an earlier row and {given.text!r:.80} here. Remove one of them."
                )
            found.repeated += 1
        elif has_reasoning(given.text or ""):
            found.reasoning.append(question.id)


def read_row(row: Mapping[str, Any], place: str) -> GivenRow:
    """One row of any known form.

    Args:
        row: a JSON object.
        place: for messages.

    Raises:
        DataError: it has no known form.
    """
    name = row_id(row)
    if isinstance(row.get("model_prediction"), Mapping):
        return _of_the_original(name, row, place)
    if "video_name" in row and "prompt" in row and not name:
        return GivenRow("", _text(row, "text", place), "", str(row["prompt"]), str(row["video_name"]))
    keys = [key for key in ("pred", "prediction", "text") if key in row]
    if not name or not keys:
        raise DataError(f"{place}: {EXPECTED}; got {', '.join(row)}.")
    if any(row[key] != row[keys[0]] for key in keys):
        raise DataError(f"{place}: expected one answer; got {' and '.join(keys)}, which differ. Remove one of them.")
    if row[keys[0]] is None and row.get("error"):
        return GivenRow(name, None, str(row["error"]))
    if row.get("error"):
        raise DataError(
            f"{place}: expected an answer or an `error`; got both, {row[keys[0]]!r:.80} and {row['error']!r:.80}. "
            "Remove one of them."
        )
    finish = _text(row, "finish", place) if row.get("finish") else ""
    return GivenRow(name, _text(row, keys[0], place), "", str(row.get("question", "")), _clip(row), finish)


def _clip(row: Mapping[str, Any]) -> str:
    return next((row[key] for key in _CLIPS if isinstance(row.get(key), str)), "")


def _of_the_original(name: str, row: Mapping[str, Any], place: str) -> GivenRow:
    said = row["model_prediction"]
    if not name or said.get("status") not in ("success", "error"):
        raise DataError(
            f"{place}: expected an `id` and model_prediction.status `success` or `error`; got {said.get('status')!r}."
        )
    message = _text(said, "message", place)
    failed = said["status"] == "error"
    return GivenRow(
        name,
        None if failed else message,
        f"its program says: {message}" if failed else "",
        str(row.get("query", "")),
        _clip(row),
    )


def _text(row: Mapping[str, Any], key: str, place: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise DataError(f"{place}: expected a text in `{key}`; got {value!r:.80}.")
    return value


class _Index:
    """The question that a row is about."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self.by_id = {question.id: question for question in questions}
        self.by_bare_id: dict[str, list[Question]] = defaultdict(list)
        self.by_text: dict[tuple[str, str], list[Question]] = defaultdict(list)
        for question in questions:
            self.by_bare_id[question.id.removeprefix(f"{question.set}{SEPARATOR}")].append(question)
            self.by_text[clip_name(question.clip), plain(question.question)].append(question)

    def find(self, given: GivenRow, place: str) -> Question | None:
        """None if the suite has no such question; raises :class:`DataError` if it is not clear which one it is."""
        if not given.id:
            candidates = self.by_text.get((clip_name(given.clip), plain(given.question)), [])
        elif given.id in self.by_id:
            candidates = [self.by_id[given.id]]
        else:
            candidates = self.by_bare_id.get(given.id, [])
        if len(candidates) > 1 and given.question:
            candidates = [question for question in candidates if plain(question.question) == plain(given.question)]
        if len(candidates) > 1 and given.clip:
            candidates = [question for question in candidates if clip_name(question.clip) == clip_name(given.clip)]
        if len(candidates) > 1:
            sets = ", ".join(question.id for question in candidates)
            raise DataError(
                f"{place}: {given.id or given.question!r} may be {sets}. Give one file for each test set, with "
                "`{set}` in its path."
            )
        if candidates and given.question and plain(given.question) != plain(candidates[0].question):
            raise DataError(
                f"{place}: {given.id!r} asks {given.question!r:.120}, and in the suite "
                f"{candidates[0].question!r:.120}. The file belongs to another suite."
            )
        if candidates and given.clip and _is_other_clip(given.clip, candidates[0]):
            raise DataError(
                f"{place}: {given.id!r} is about {given.clip!r:.120}, and in the suite about "
                f"{candidates[0].clip!r:.120}. The file belongs to another suite, or its clips have other names: then "
                "remove them from its rows."
            )
        return candidates[0] if candidates else None


def _is_other_clip(path: str, question: Question) -> bool:
    """Whether a path names another clip, or another part of it; one without a part may mean any."""
    if len(question.media) != 1:
        return False
    parts = [canonical_part(name) for name in (path, question.clip)]
    return clip_name(path) != clip_name(question.clip) or ("" not in parts and parts[0] != parts[1])


def clip_name(path: str) -> str:
    """The last part of a clip's path, without the suffix of a clip or an image: ``a.b.mp4`` and ``a.c.mp4`` differ."""
    return bare_name(cut_part(path)[0])


def plain(text: str) -> str:
    """A question without placeholders, with single spaces."""
    for token in TOKENS:
        text = text.replace(token, " ")
    return " ".join(text.split())


def given_rows(found: GivenPredictions, questions: Sequence[Question]) -> Iterator[Prediction]:
    """The predictions in the order of the questions."""
    yield from (found.predictions[question.id] for question in questions)
