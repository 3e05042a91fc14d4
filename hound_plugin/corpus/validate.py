"""``hound corpus validate``: check a data file in constant memory and report rows that cannot be trained on."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from hound_plugin.corpus.checking import RowKind, check_record
from hound_plugin.corpus.media_check import Depth, Media, check_many
from hound_plugin.corpus.relocate import PathIndex, corrected, index_paths, missing_names, note_claims
from hound_plugin.engines.work import LOCAL, Engine
from hound_plugin.errors import DataError, SettingsError
from hound_plugin.records.bad_rows import Place, RowReport
from hound_plugin.records.files import whole_file
from hound_plugin.records.jsonl import Row, read_rows
from hound_plugin.records.parse import row_id
from hound_plugin.records.record import Note, Problem
from hound_plugin.records.row_sources import is_file, is_same, is_url, size_of


@dataclass(frozen=True)
class Options:
    """How to validate.

    Attributes:
        media_dir: folder that the records' paths are relative to.
        media: ``none``, ``exists`` or ``open``.
        kind: what the rows are for; ``auto`` decides for each.
        limit: check only this many rows.
        processes: number of processes that open media.
        report: JSONL of bad rows; None for none.
        fixed: JSONL with corrected paths to write; None for none.
        drop_bad: leave bad rows out of ``fixed``.
        force: overwrite existing files.
    """

    media_dir: str | None = None
    media: Depth = "exists"
    kind: RowKind = "auto"
    limit: int | None = None
    processes: int = 1
    report: Path | None = None
    fixed: Path | None = None
    drop_bad: bool = False
    force: bool = False


@dataclass
class ValidationResult:
    """The result of a validation.

    Attributes:
        rows: rows checked.
        bad: rows with at least one problem.
        problems: name of a problem -> rows that have it.
        examples: a line per problem, with its number of rows and the first of them.
        relocated: rows whose paths were corrected.
        remarks: decisions about usable rows, and unread fields, with their numbers of rows.
    """

    rows: int = 0
    bad: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    examples: str = ""
    relocated: int = 0
    remarks: list[str] = field(default_factory=list)

    def to_table(self) -> str:
        """Lines of count, problem and first example, most frequent first, and a summary."""
        lines = [self.examples] if self.examples else []
        summary = f"{self.rows:,} rows, {self.bad:,} with problems"
        return "\n".join([*lines, summary + (f", paths corrected in {self.relocated:,}" if self.relocated else "")])


@dataclass(frozen=True)
class _Ready:
    row: Row
    record: dict[str, Any] | None
    problems: list[Problem]
    relocated: bool = False
    notes: tuple[Note, ...] = ()
    unknown: tuple[str, ...] = ()


def validate(path: Path | str, options: Options, engine: Engine = LOCAL) -> ValidationResult:
    """Check every row of a data file.

    Args:
        path: JSON lines, Parquet or a JSON array; a URL as text.
        options: what is checked and written.
        engine: where media are checked.

    Raises:
        SettingsError: an output exists or is the input, or ``fixed`` has no ``media_dir``.
        DataError: the file cannot be read at all.
    """
    _check_options(path, options)
    index = _path_index(path, options) if options.fixed else None
    result, report = ValidationResult(), RowReport(str(path))
    with ExitStack() as stack:
        nowhere = stack.enter_context(open(os.devnull, "w"))
        report.sink = stack.enter_context(whole_file(options.report)) if options.report else nowhere
        fixed = stack.enter_context(whole_file(options.fixed)) if options.fixed else None
        prepared = _prepare(path, options, index)
        for ready, media_problems in check_many(prepared, options.media_dir, options.media, options.processes, engine):
            report.rows += 1
            result.relocated += ready.relocated
            if ready.problems or media_problems:
                place = Place(str(path), ready.row.number, row_id(ready.record))
                report.add(place, [*ready.problems, *media_problems])
            report.add_notes(ready.notes, ready.unknown)
            is_bad = bool(ready.problems or media_problems)
            if fixed is not None and ready.record is not None and not (options.drop_bad and is_bad):
                fixed.write(json.dumps(ready.record, ensure_ascii=False) + "\n")
    result.rows, result.bad, result.problems = report.rows, report.bad, report.counts
    result.examples, result.remarks = report.table(), report.remarks()
    if options.report and not result.bad:
        options.report.unlink()
    return result


def _check_options(path: Path | str, options: Options) -> None:
    if not is_file(path):
        raise DataError(f"Expected a file of JSON lines or Parquet; {path} is not a file. Check the path.")
    if options.limit is not None and options.limit < 1:
        raise SettingsError(f"Expected --limit of at least 1; got {options.limit}.")
    if options.fixed and options.media_dir is None:
        raise SettingsError("Expected --media-dir with --fix-paths: it is the folder to search for clips.")
    if options.media_dir is not None and not os.path.isdir(options.media_dir):
        raise SettingsError(f"Expected a folder as --media-dir; {options.media_dir} is not a folder. Check the path.")
    for output in filter(None, (options.report, options.fixed)):
        if is_same(output, path):
            raise SettingsError(f"Expected an output file other than the input; got {output}. Name another file.")
    if options.fixed and options.fixed.exists() and not options.force:
        raise SettingsError(f"{options.fixed} exists. Name another with --output, or replace it with --force.")


def _rows(path: Path | str, options: Options) -> Iterator[Row]:
    return islice(read_rows(path), options.limit)


def _path_index(path: Path | str, options: Options) -> PathIndex:
    media_dir = options.media_dir or ""

    def records() -> Iterator[dict[str, Any]]:
        return (row.value for row in _rows(path, options) if row.value is not None)

    index = index_paths(Path(media_dir), missing_names(records(), media_dir))
    note_claims(index, records, media_dir)
    return index


def _prepare(path: Path | str, options: Options, index: PathIndex | None) -> Iterator[tuple[_Ready, Media, bool]]:
    from tqdm import tqdm

    with tqdm(total=size_of(path), unit="B", unit_scale=True, desc="validate", disable=None) as bar:
        for row in _rows(path, options):
            bar.update(row.size)
            if row.value is None:
                yield _Ready(row, None, [Problem(row.problem, "", row.reason)]), [], False
                continue
            record, problems = row.value, []
            if index is not None:
                record, ambiguous = corrected(row.value, index, options.media_dir or "")
                problems = [Problem("ambiguous name", "video", detail) for detail in ambiguous]
            checked = check_record(record, options.kind)
            row_problems = [*checked.problems, *problems]
            ready = _Ready(row, record, row_problems, record != row.value, checked.notes, checked.unknown)
            yield ready, checked.media, checked.is_video


def default_report(path: Path | str) -> Path:
    """``name.bad.jsonl`` next to the data file; of a URL, in the current folder."""
    return _next_to(path, "bad")


def default_fixed(path: Path | str) -> Path:
    """``name.fixed.jsonl`` next to the data file; of a URL, in the current folder."""
    return _next_to(path, "fixed")


def _next_to(path: Path | str, word: str) -> Path:
    name = f"{Path(path).stem}.{word}.jsonl"
    return Path(name) if is_url(path) else Path(path).with_name(name)


def print_result(result: ValidationResult, options: Options) -> None:
    """Print the table, and the paths of the files written."""
    print(result.to_table())
    for remark in result.remarks:
        print(remark)
    if result.bad and options.report:
        print(f"bad rows: {options.report}", file=sys.stderr)
    if options.fixed:
        print(f"corrected: {options.fixed}", file=sys.stderr)
