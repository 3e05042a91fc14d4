"""Captions from a file of their own, such as that of ``hound caption``, for questions that have none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hound_plugin.errors import DataError
from hound_plugin.records.bad_rows import RowReport
from hound_plugin.records.consumers import check
from hound_plugin.records.jsonl import read_rows
from hound_plugin.records.media_paths import clip_key, find_media, with_part
from hound_plugin.records.parse import CUT, parse
from hound_plugin.records.questions import Question, media_files
from hound_plugin.records.record import Media, Note

Clip = tuple[str, ...]
CUT_CAPTION = (
    "that caption was cut at the limit of tokens, so that the judge does not read its end; `hound caption` with a "
    "higher `--max-new-tokens` gives whole ones"
)


def with_captions(questions: Sequence[Question], path: str, media_dir: str | None, report: RowReport) -> list[Question]:
    """The questions, those without a caption with that of their clip; a question's own caption stays.

    Args:
        questions: checked.
        path: rows with a clip and a ``caption``.
        media_dir: folder that the rows' paths are relative to.
        report: is told how many questions take which caption.

    Raises:
        DataError: no such file, a row without a clip or a caption, or two different captions of one clip.
    """
    captions, cut = _read(path, media_dir)
    filled = []
    for question in questions:
        caption = captions.get(clip_key(media_files(question.paths)), "")
        if question.caption:
            report.notes[f"the question's own caption is used, not that of {path}"] += caption not in (
                "",
                question.caption,
            )
        elif caption:
            question = replace(question, caption=caption)
            report.notes[f"the caption is that of the clip in {path}"] += 1
            report.notes[CUT_CAPTION] += clip_key(media_files(question.paths)) in cut
        filled.append(question)
    report.notes += type(report.notes)()  # without zeros
    return filled


def _read(path: str, media_dir: str | None) -> tuple[dict[Clip, str], set[Clip]]:
    """The captions by clip, and the clips whose caption was cut."""
    captions: dict[Clip, str] = {}
    cut: set[Clip] = set()
    places: dict[Clip, int] = {}
    try:
        for row in read_rows(path):
            where = f"captions: {path}, row {row.number}"
            if row.value is None:
                raise DataError(f"{where}: {row.reason}.")
            clip, caption, is_cut = _row(row.value, where, media_dir)
            if captions.setdefault(clip, caption) != caption:
                raise DataError(
                    f"{where}: expected one caption of {clip[0]}; row {places[clip]} has another. Remove one of them."
                )
            places.setdefault(clip, row.number)
            if is_cut:
                cut.add(clip)
    except DataError as error:
        raise error if str(error).startswith("captions") else DataError(f"captions: {error}") from error
    return captions, cut


def _row(row: dict[str, Any], where: str, media_dir: str | None) -> tuple[Clip, str, bool]:
    parsed = parse(row)
    problems = [*parsed.problems, *(check(parsed.record, "captions", parsed.unknown) if parsed.record else ())]
    if parsed.record is None or problems:
        raise DataError(f"{where}: {problems[0].field}: {problems[0].detail}.")
    caption = parsed.record.caption.strip()
    if not caption:
        raise DataError(f"{where}: expected a `caption`; found none. `hound caption` writes such rows.")
    names = _names(parsed.record.media[0])
    return clip_key([find_media(name, media_dir) or name for name in names]), caption, Note(CUT) in parsed.notes


def _names(media: Media) -> list[str]:
    return list(media.frames) or [with_part(media.path, media.start, media.end)]
