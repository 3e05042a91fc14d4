"""Questions with all that a model and a judge need, and every check that can be made before the first request."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hound_plugin.errors import DataError
from hound_plugin.records.bad_rows import MAX_SHARE, MISSING, OnBadRows, Place, RowReport
from hound_plugin.records.consumers import check
from hound_plugin.records.embedded_media import as_file
from hound_plugin.records.jsonl import Row, read_rows
from hound_plugin.records.media_paths import cut_part, find_media, is_image_path, why_absent, with_part
from hound_plugin.records.options import choice_of, other_forms
from hound_plugin.records.parse import parse, row_id
from hound_plugin.records.placeholders import token_of
from hound_plugin.records.record import Findings, Problem, Record
from hound_plugin.records.row_sources import is_file

SHOWN = 5
TWO_REFERENCES = "an answer is not used if there is also a `reference`"
OF_A_PAIR = "of a pair, the question is used and its two answers are not"


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        id: unique in its file.
        medium: ``video``, ``image``, or empty for a question on text alone.
        media: as the record has it: a file, a folder of frames or a list of frames, relative to ``media_dir``.
        paths: where it is; the same shape.
        text: the question without placeholder.
        caption: the detailed description that a judge reads instead of the clip, or empty.
        reference: an answer known to be good, or empty.
        source: where the record comes from, for tables.
        accepted: further answers known to be right.
    """

    id: str
    medium: str
    media: Any
    paths: Any
    text: str
    caption: str
    reference: str
    source: str
    accepted: tuple[str, ...] = ()

    @property
    def prompt(self) -> str:
        """The question as the host reads it, placeholder first."""
        return f"<{self.medium}>\n{self.text}" if self.medium else self.text

    def fields(self, answer: str, with_reference: bool = True) -> dict[str, str]:
        """The untrusted texts of a judgement on one answer."""
        reference = self.reference if with_reference else ""
        return {"caption": self.caption, "question": self.text, "reference": reference, "answer": answer}


def read_questions(
    path: str | Path,
    media_dir: str | None,
    limit: int | None = None,
    *,
    on_bad_rows: OnBadRows = "error",
    max_bad_rows: float = MAX_SHARE,
    report: RowReport | None = None,
    keep_missing: bool = False,
    can_skip: bool = True,
) -> list[Question]:
    """Read and check a file of questions.

    A row is what :func:`hound_plugin.records.parse.parse` accepts as one question: ``id``, ``video`` or ``image``, the
    question in any of its shapes, and optionally ``caption``, ``reference`` (or an answer) and ``source``.

    Args:
        path: JSONL, a JSON array or Parquet; on a disk, or a URL that fsspec knows.
        media_dir: folder that the rows' paths are relative to.
        limit: use only this many questions.
        on_bad_rows, max_bad_rows: see :mod:`hound_plugin.records.bad_rows`.
        report: collects what was found, if the caller wants to list it.
        keep_missing: a question whose clip is absent is kept, with the path where it was expected.
        can_skip: whether the user may set ``on_bad_rows``.

    Raises:
        DataError: no file, nothing in it, or rows that cannot be used.
        MediaNotFoundError: clips are missing, and nothing else is wrong.
    """
    if not is_file(path):
        raise DataError(f"questions: expected a file of JSON lines or Parquet, but {path} does not exist.")
    report = report if report is not None else RowReport(str(path))
    questions: list[Question] = []
    seen: dict[str, int] = {}
    for row in read_rows(path):
        if limit is not None and len(questions) >= limit:
            break
        report.rows += 1
        question, problems = _read(row, media_dir, seen, report, keep_missing)
        if not report.add(Place(str(path), row.number, row_id(row.value)), problems) and question is not None:
            questions.append(question)
    if report.bad:
        how = "`on_bad_rows: skip`" if can_skip else ""
        report.settle(on_bad_rows, max_bad_rows, None, how, f"hound corpus validate {path} --kind questions")
    if not questions:
        reason = f"none of its {report.rows:,} rows can be used" if report.rows else "it is empty"
        raise DataError(f"{path}: expected questions, one JSON object per line; {reason}.")
    return questions


def _read(
    row: Row, media_dir: str | None, seen: dict[str, int], report: RowReport, keep_missing: bool
) -> tuple[Question | None, list[Problem]]:
    if row.value is None:
        return None, [Problem(row.problem, "", row.reason)]
    parsed = parse(row.value)
    record = parsed.record
    problems = [*parsed.problems, *(check(record, "questions", parsed.unknown) if record is not None else ())]
    if record is None or problems:
        return None, problems
    answers = [turn.text.strip() for turn in record.turns if turn.role == "assistant"]
    unused = record.reference and answers and record.reference.strip() != answers[-1]
    notes = [*([OF_A_PAIR] if record.is_pair else []), *([TWO_REFERENCES] if unused else [])]
    report.add_notes([*parsed.notes, *notes], parsed.unknown)
    if record.id in seen:
        return None, [Problem("id twice", "id", f"expected a unique id; row {seen[record.id]} has it too")]
    seen[record.id] = row.number
    media, paths = _media(record, media_dir, problems, keep_missing)
    text = record.questions[-1]
    for token in {token_of(item.kind) for item in record.media}:
        text = text.replace(token, "")  # as in training
    reference = (record.reference or (answers[-1] if answers else "")).strip()
    reference, accepted = _choices(record, text, reference, problems)
    question = Question(
        id=record.id,
        medium=record.media[0].kind if record.media else "",
        media=media,
        paths=paths,
        text=text.strip(),
        caption=record.caption.strip(),
        reference=reference,
        source=record.source,
        accepted=accepted,
    )
    return question, problems


def _choices(record: Record, question: str, reference: str, problems: list[Problem]) -> tuple[str, tuple[str, ...]]:
    """The right answer, and further ones: those that the row names, and other forms of choices.

    A sentence that states a choice (``The answer is B.``) stays as it is, and the choice is a further right answer.
    """
    answers, findings = [reference, *record.accepted], Findings()
    if record.options:
        stated = [
            choice_of(one, question, record.options, where, findings)
            for one, where in zip(answers, ["answer", *["accepted"] * len(record.accepted)], strict=True)
            if one
        ]
        answers = [choice_of(one, question, record.options, "", Findings(), in_sentences=False) for one in answers]
        answers += stated
    problems += findings.problems
    forms = [form for answer in answers for form in other_forms(answer, record.options)]
    return answers[0], tuple(dict.fromkeys(one for one in [*answers[1:], *forms] if one != answers[0]))


def _media(record: Record, media_dir: str | None, problems: list[Problem], keep_missing: bool) -> tuple[Any, Any]:
    """A question's clip or image as its row has it, and where it is: a path or a list of frames."""
    if not record.media:
        return None, None
    (item,) = record.media
    names = list(item.frames)
    try:
        names = names or [with_part(as_file(item) if item.bytes is not None else item.path, item.start, item.end)]
    except DataError as error:
        problems.append(Problem("part of a clip", "start", str(error)))
        return None, None
    files = [find_media(name, media_dir) for name in names]
    if None in files and keep_missing:
        files = [file or os.path.join(media_dir or "", name) for file, name in zip(files, names, strict=True)]
    if None in files:
        missing = names[files.index(None)]
        detail = why_absent(missing) or (
            f"expected it under media_dir {media_dir}, found no {missing}; set `media_dir` to the folder that the "
            "paths are relative to"
        )
        problems.append(Problem(MISSING, item.kind, detail))
        return None, None
    if (item.start is not None or item.end is not None) and os.path.isdir(cut_part(str(files[0]))[0]):
        detail = "expected a video file with `start` and `end`, found a folder of frames, which has no time stamps"
        problems.append(Problem("part of a clip", "start", detail))
    if item.kind == "video" and not item.frames and is_image_path(names[0]) and os.path.isfile(str(files[0])):
        detail = f"expected a clip or a list of frames, found the picture {names[0]}; give it as `image`, or as a list"
        problems.append(Problem("media field", item.kind, detail))
        return None, None
    return (names, files) if item.frames else (names[0], files[0])


def media_files(paths: Any) -> list[str]:
    """All paths of one clip or image."""
    return [str(item) for item in (paths if isinstance(paths, list) else [paths]) if item is not None]


def check_fields(questions: Sequence[Question], needed: Iterable[str], who: str) -> None:
    """Refuse questions without the fields that a judge reads.

    Raises:
        DataError: with the number of questions and the first ids.
    """
    for name in needed:
        if name in ("question", "answer"):
            continue
        lacking = [q.id for q in questions if not getattr(q, name)]
        if lacking:
            raise DataError(
                f"{len(lacking)} of {len(questions)} questions have no `{name}`, which {who} reads: {_some(lacking)}. "
                "Add it, or use a judge that does not need it."
            )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
