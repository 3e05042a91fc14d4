"""The questions of a suite, read from its files and checked before a model is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from hound_plugin.errors import DataError, MediaNotFoundError
from hound_plugin.evaluation.items import Question
from hound_plugin.evaluation.settings import EvaluationSettings
from hound_plugin.evaluation.suites import Suite, how_to_get, missing_files
from hound_plugin.records import questions as records
from hound_plugin.records.bad_rows import RowReport
from hound_plugin.records.media_paths import media_exists

SEPARATOR = "/"
"""Between the name of a test set and the id of its row, where a suite has several sets."""


def read_suite_questions(suite: Suite, settings: EvaluationSettings, say: Callable[[str], None]) -> list[Question]:
    """All questions of a suite, set by set in the order of their files.

    A clip that is not there does not remove its questions: they are asked in vain and count as unanswered. A test set
    without any of its clips is refused.

    Raises:
        DataError: a file is absent, empty, or has rows that cannot be used; or there are no captions to compare with.
        MediaNotFoundError: none of a test set's clips is there.
    """
    absent = missing_files(suite, settings.data)
    if absent:
        raise DataError(
            f"suite {settings.suite_name}: expected {', '.join(map(str, absent))}; not found. "
            f"{how_to_get(settings.suite_name, suite, settings.data)} Another folder: data=FOLDER."
        )
    media_dir = settings.media_dir if settings.media_dir is not None else suite.media_dir(settings.data)
    found: list[Question] = []
    for name, path in suite.paths(settings.data).items():
        rows = _read(path, media_dir, settings, say)
        prefix = f"{name}{SEPARATOR}" if len(suite.names) > 1 else ""
        sources = set() if suite.sets else {row.source for row in rows}
        questions = [_question(row, prefix, row.source if sources - {""} and row.source else name) for row in rows]
        if suite.ask is not None:
            questions = _captions(suite.ask, questions, prefix, path)
        _check_media(name, questions, media_dir, say)
        found += questions[: settings.limit]
    return found


def _read(
    path: Path | str, media_dir: str, settings: EvaluationSettings, say: Callable[[str], None]
) -> list[records.Question]:
    report = RowReport(str(path))
    rows = records.read_questions(path, media_dir, report=report, keep_missing=True, can_skip=False)
    for line in report.remarks():
        say(line)
    return rows


def _question(row: records.Question, prefix: str, name: str) -> Question:
    names = row.media if isinstance(row.media, list) else [row.media] if row.media is not None else []
    return Question(
        id=prefix + row.id,
        set=name,
        clip=", ".join(map(str, names)) or prefix + row.id,
        media=tuple(records.media_files(row.paths)),
        prompt=row.prompt,
        question=row.text,
        reference=row.reference,
        evidence=row.caption,
        accepted=tuple(text for text in row.accepted if text != row.reference),
    )


def _captions(ask: str, rows: Iterable[Question], prefix: str, path: Path | str) -> list[Question]:
    """One question for each clip, whose caption is the right answer."""
    first: dict[tuple[str, ...], Question] = {}
    for row in rows:
        other = first.setdefault(row.cluster, row)
        if other.evidence != row.evidence:
            raise DataError(
                f"{path}: expected one caption for each clip; {row.clip} has another one in row {row.id!r} than in "
                f"{other.id!r}. Keep one of them."
            )
    bare = [row.id for row in first.values() if not row.evidence]
    if bare:
        raise DataError(
            f"{path}: expected a `caption` in every row, to compare descriptions with; {len(bare)} of {len(first)} "
            f"clips have none, the first is that of {bare[0]!r}."
        )
    return [
        Question(
            id=f"{prefix}{row.clip}",
            set=row.set,
            clip=row.clip,
            media=row.media,
            prompt=f"{row.prompt.partition(chr(10))[0]}\n{ask}",
            question=ask,
            reference=row.evidence,
            evidence=row.evidence,
        )
        for row in first.values()
    ]


def _check_media(name: str, questions: Sequence[Question], media_dir: str, say: Callable[[str], None]) -> None:
    shown = {question.cluster: question.media for question in questions if question.media}
    absent = [media for media in shown.values() if not all(map(media_exists, media))]
    if shown and len(absent) == len(shown):
        raise MediaNotFoundError(
            f"{name}: none of its {len(shown)} clips is there; expected them under {media_dir}, such as "
            f"{absent[0][0]}. Set `media_dir` to the folder that the paths are relative to."
        )
    if absent:
        say(
            f"warning: {name}: {len(absent)} of {len(shown)} clips are not there, such as {absent[0][0]}; their "
            "questions count as unanswered"
        )
