"""``hound corpus convert``: other people's data to our format, and a split by clip into training and held-out rows."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from hound_plugin.corpus.checking import consumer_of, media_of
from hound_plugin.errors import DataError, SettingsError
from hound_plugin.records.bad_rows import MAX_SHARE, OnBadRows, Place, RowReport
from hound_plugin.records.consumers import check
from hound_plugin.records.fields import LABELS, LAST_VIDEOS, is_neutral
from hound_plugin.records.files import whole_file
from hound_plugin.records.jsonl import Row, read_rows
from hound_plugin.records.media_paths import bare_name, cut_part
from hound_plugin.records.parse import parse, row_id
from hound_plugin.records.placeholders import token_of
from hound_plugin.records.record import Problem, Record, Turn
from hound_plugin.records.row_sources import is_file, is_same
from hound_plugin.records.write import to_row

CAPTION_PROMPT = "Describe the video in detail."
CAPTION_PROMPTS = {"video": CAPTION_PROMPT, "image": "Describe the image in detail."}
_MADE_ID = re.compile(r"row-([1-9][0-9]{0,17})")
_ENCODER = json.JSONEncoder(ensure_ascii=False)
SIDES = ("train", "heldout")


@dataclass
class ConversionResult:
    """The result of a conversion.

    Attributes:
        written: file -> number of rows.
        bad: rows that could not be converted, or cannot be trained on; listed in ``bad_rows``.
        straddling: rows with several clips of which only some are held out; left out of both files.
        bad_rows: JSONL of the problems of bad rows; None if there are none.
        remarks: decisions about rows, and unread fields, with their numbers of rows.
    """

    written: Counter[Path] = field(default_factory=Counter)
    bad: int = 0
    straddling: int = 0
    bad_rows: Path | None = None
    remarks: list[str] = field(default_factory=list)


def convert(
    source: Path | str,
    target: Path,
    *,
    split: float | None = None,
    seed: int = 0,
    caption_prompt: str | None = None,
    keep: Sequence[str] = (),
    labels: bool = False,
    force: bool = False,
    on_bad_rows: OnBadRows = "error",
    max_bad_rows: float = MAX_SHARE,
) -> ConversionResult:
    """Convert the rows of ``source`` to our format, one at a time.

    Args:
        source: JSON, JSONL or Parquet; a URL as text.
        target: JSONL; with ``split``, ``name.train.jsonl`` and ``name.heldout.jsonl`` are written instead.
        split: share of clips to hold out, above 0 and below 1; None for one file.
        seed: changes which clips are held out.
        caption_prompt: the question that captions answer; by default about the video or about the image.
        keep: names of other fields to keep. Scores and provenance are always kept.
        labels: write each preference pair as two single answers with ``label`` true or false, for KTO.
        force: overwrite existing files.
        on_bad_rows, max_bad_rows: see :mod:`hound_plugin.records.bad_rows`; if it stops, only the list of bad rows is
            written.

    Raises:
        SettingsError: an argument is out of range, or an output file exists or is the input.
        DataError: the source cannot be read at all, or has rows that cannot be used.
    """
    paths, bad_path = _check_outputs(source, target, split, force)
    result, report = ConversionResult(), RowReport(str(source))
    result.written.update(dict.fromkeys(paths, 0))
    with ExitStack() as stack:
        files = [stack.enter_context(whole_file(path)) for path in paths]
        with whole_file(bad_path) as report.sink:
            for converted in _converted_rows(source, caption_prompt, keep, labels, report):
                side = 0 if split is None else _side_of(converted[0], split, seed)
                if side is None:
                    result.straddling += 1
                    continue
                files[side].writelines(_ENCODER.encode(row) + "\n" for row in converted)
                result.written[paths[side]] += len(converted)
        if not report.bad:
            bad_path.unlink()
        report.settle(on_bad_rows, max_bad_rows, bad_path, "--on-bad-rows skip")
    result.bad, result.remarks = report.bad, report.remarks()
    result.bad_rows = bad_path if report.bad else None
    return result


def _check_outputs(source: Path | str, target: Path, split: float | None, force: bool) -> tuple[list[Path], Path]:
    """The files to write, one or one per side of the split, and the list of bad rows; refused before work starts."""
    if split is not None and not 0 < split < 1:
        raise SettingsError(f"Expected --split above 0 and below 1; got {split}.")
    if not is_file(source):
        raise DataError(f"Expected a file of JSON or JSON lines; {source} is not a file. Check the path.")
    paths = [target] if split is None else [target.with_name(f"{target.stem}.{side}.jsonl") for side in SIDES]
    for path in paths:
        if is_same(path, source) or (path.exists() and not force):
            raise SettingsError(f"{path} exists. Name another target, or replace it with --force.")
    bad_path = target.with_name(f"{target.stem}.bad.jsonl")
    if is_same(bad_path, source):
        raise SettingsError(f"{bad_path} is the input, and bad rows would be listed there. Name another target.")
    return paths, bad_path


def _converted_rows(
    source: Path | str, caption_prompt: str | None, keep: Sequence[str], labels: bool, report: RowReport
) -> Iterator[list[dict[str, Any]]]:
    """What each usable row becomes, one row or with ``labels`` two; bad rows go to ``report``."""
    ids = _MadeIds()
    for row in read_rows(source):
        report.rows += 1
        try:
            record = _converted(row, caption_prompt, keep, report)
            ids.check(record["id"], row.number, row_id(row.value))
            converted = single_answers(record) if labels else [record]
        except DataError as error:
            report.add(Place(report.what, row.number, row_id(row.value)), _problems_of(error))
        else:
            yield converted


def _converted(row: Row, caption_prompt: str | None, keep: Sequence[str], report: RowReport) -> dict[str, Any]:
    if row.value is None:
        raise BadRowError([Problem(row.problem, "", row.reason)])
    return convert_record(row.value, row.number, caption_prompt, keep, report)


class _MadeIds:
    """Ids that rows without one were given, and ids of rows that look like them; a byte a row."""

    def __init__(self) -> None:
        self._made = bytearray()
        self._given: set[int] = set()

    def check(self, identity: str, number: int, given: str) -> None:
        """Refuse the second row of two with one id, of which one was made here.

        Raises:
            BadRowError: naming both.
        """
        match = _MADE_ID.fullmatch(identity)
        if match is None:
            return
        named = int(match[1])
        taken = named in self._given if not given else named < len(self._made) and self._made[named]
        if taken:
            other = f"row {named}, which has none, was given it" if given else "another row has this row's number as id"
            detail = f"expected an id of its own, found {identity!r}: {other}. Give every row an id"
            raise BadRowError([Problem("id twice", "id", detail)])
        if given:
            self._given.add(named)
        else:
            self._made.extend(bytes(max(0, number + 1 - len(self._made))))
            self._made[number] = 1


def _problems_of(error: DataError) -> list[Problem]:
    return error.problems if isinstance(error, BadRowError) else [Problem("not convertible", "", str(error))]


def _side_of(row: Mapping[str, Any], split: float, seed: int) -> int | None:
    """The side that a row belongs to, an index into ``SIDES``; None if its clips are on both."""
    sides = set(held_out(row, split, seed))
    return int(sides.pop()) if len(sides) == 1 else None


class BadRowError(DataError):
    """A row cannot be converted; ``problems`` says why."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = list(problems)


def convert_record(
    row: Mapping[str, Any],
    number: int,
    caption_prompt: str | None = None,
    keep: Sequence[str] = (),
    report: RowReport | None = None,
) -> dict[str, Any]:
    """Convert one row to our format.

    Args:
        row: the row.
        number: its number in the file, for rows without an id.
        caption_prompt: the question that captions answer; by default about the video or about the image.
        keep: names of other fields to keep. Scores and provenance are always kept.
        report: receives notes and unknown fields.

    Raises:
        DataError: the row cannot be parsed or used; the message names every problem.
    """
    parsed = parse(row)
    if parsed.record is None:
        raise BadRowError(parsed.problems)
    record = parsed.record
    if not record.id:
        record = replace(record, id=f"row-{number}")
    if not record.turns and record.caption and not record.is_pair:
        if not record.media:
            detail = "expected the clip or the image that the caption describes, found none"
            raise BadRowError([Problem("no media", "caption", detail)])
        prompt = caption_prompt or CAPTION_PROMPTS[record.media[0].kind]
        record = replace(record, turns=(Turn("user", prompt), Turn("assistant", record.caption)), caption="")
    record = _with_placeholders(record)
    problems = check(record, consumer_of(record, "auto"), parsed.unknown)
    if problems:
        raise BadRowError(problems)
    if report is not None:
        report.add_notes(parsed.notes, [name for name in parsed.unknown if name not in keep])
    neutral = {name: value for name, value in row.items() if value is not None and _is_kept(name, value, record)}
    others = {name: row[name] for name in keep if name in row}
    converted = {**neutral, **others, **to_row(record)}
    _check_converted(converted, record)
    return converted


def _check_converted(row: Mapping[str, Any], record: Record) -> None:
    """Refuse a row that whoever reads it would refuse, or take for another.

    Raises:
        BadRowError: choices with labels that a list does not have, placeholders in them, a field of ``keep`` that means
            something else in our format, and the like.
    """
    again = parse(row)
    problems = list(again.problems)
    if again.record is not None:
        problems += check(again.record, consumer_of(again.record, "auto"), again.unknown)
        differ = [
            name
            for name in Record.__dataclass_fields__
            if _comparable(name, getattr(again.record, name)) != _comparable(name, getattr(record, name))
        ]
        if differ and not problems:
            detail = f"expected a row that our format can say; it would be read with another {', '.join(differ)}"
            problems = [Problem("not convertible", differ[0], detail)]
    if problems:
        raise BadRowError([replace(problem, detail=f"in our format, {problem.detail}") for problem in problems])


def _comparable(name: str, value: Any) -> Any:
    return sorted(value) if name == "options" else value  # they are written in the order of their letters


def _is_kept(name: str, value: Any, record: Record) -> bool:
    """Whether to keep a field: scores, provenance, a label not meant for KTO, the id of a clip named elsewhere."""
    if name in LABELS:
        return record.label is None
    if name in LAST_VIDEOS:
        return bool(record.media) and all(value not in item.names for item in record.media)
    return is_neutral(name)


def _with_placeholders(record: Record) -> Record:
    """Move the placeholder to the front of its question; add missing ones before the first question.

    Several clips in one question stay in their places; whoever reads the row puts them in front.
    """
    if not record.media:
        return record
    token = token_of(record.media[0].kind)
    turns = list(record.turns)
    several = sum(text.count(token) for text in record.questions) == len(record.media)
    for number, turn in enumerate(turns):
        count = turn.text.count(token)
        if turn.role == "user" and count and not (several and count > 1):
            turns[number] = Turn("user", f"{token}\n{turn.text.replace(token, '').strip()}")
    if turns and not any(token in turn.text for turn in turns if turn.role == "user"):
        turns[0] = Turn(turns[0].role, "\n".join([*[token] * len(record.media), turns[0].text.strip()]))
    return record if turns == list(record.turns) else replace(record, turns=tuple(turns))


def single_answers(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The two answers of a preference pair as separate rows, chosen first, for KTO (arXiv 2402.01306).

    Raises:
        DataError: the record is not a pair.
    """
    if "chosen" not in record or "rejected" not in record:
        raise DataError("expected a preference pair (`prompt`, `chosen`, `rejected`) to label; this row is not one")
    pair_fields = ("id", "prompt", "conversations", "chosen", "rejected")
    rest = {key: value for key, value in record.items() if key not in pair_fields}
    before = record.get("conversations") or [{"from": "human", "value": record["prompt"]}]
    return [
        {
            "id": f"{record.get('id')}-{side}",
            **rest,
            "conversations": [*before, {"from": "gpt", "value": record[side]}],
            "label": side == "chosen",
        }
        for side in ("chosen", "rejected")
    ]


def held_out(record: Mapping[str, Any], share: float, seed: int) -> list[bool]:
    """Whether each clip or image of a record is held out; for a record without media, its id decides."""
    media = media_of(record)[0]
    names = [clip_name(item) for item in media] or [f"id:{record.get('id')}"]
    return [_fraction(name, seed) < share for name in names]


def clip_name(item: str | list[str]) -> str:
    """The name of a clip in every layout: the last part of its path without suffix; for frames, their folder's."""
    return bare_name(cut_part(item)[0] if isinstance(item, str) else str(PurePosixPath(item[0]).parent))


def _fraction(name: str, seed: int) -> float:
    """A number in 0..1 that depends only on the name and the seed: the same on every machine and in every file."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
