"""``hound corpus validate``: go through a data file in constant memory and say what of it cannot be trained on."""

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
from hound_plugin.corpus.relocate import Places, corrected, find_places, missing_names
from hound_plugin.errors import DataError, SettingsError
from hound_plugin.records.bad_rows import Place, RowReport
from hound_plugin.records.files import whole_file
from hound_plugin.records.jsonl import Row, read_rows
from hound_plugin.records.parse import row_id
from hound_plugin.records.record import Note, Problem


@dataclass(frozen=True)
class Options:
    """How to validate.

    Attributes:
        media_dir: folder that the records' paths begin in.
        media: ``none``, ``exists`` or ``open``.
        kind: who reads the rows; ``auto`` looks at each.
        limit: look at this many rows only.
        processes: that open media at the same time.
        report: JSONL of bad rows; None for none.
        fixed: JSONL with corrected paths to write; None for none.
        drop_bad: leave bad rows out of ``fixed``.
        force: replace files that exist.
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
class Findings:
    """What came out.

    Attributes:
        rows: rows seen.
        bad: rows with at least one problem.
        problems: name of a problem -> rows that have it.
        examples: a line for each problem, with its number of rows and the first of them.
        relocated: rows whose paths were corrected.
        remarks: decisions about usable rows, and fields that nothing reads, with their numbers.
    """

    rows: int = 0
    bad: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    examples: str = ""
    relocated: int = 0
    remarks: list[str] = field(default_factory=list)

    def to_table(self) -> str:
        """Lines of count, problem and first example, the most frequent first, and a sentence."""
        lines = [self.examples] if self.examples else []
        words = f"{self.rows:,} rows, {self.bad:,} with problems"
        return "\n".join([*lines, words + (f", paths corrected in {self.relocated:,}" if self.relocated else "")])


@dataclass(frozen=True)
class _Ready:
    row: Row
    record: dict[str, Any] | None
    problems: list[Problem]
    relocated: bool = False
    notes: tuple[Note, ...] = ()
    unknown: tuple[str, ...] = ()


def validate(path: Path, options: Options) -> Findings:
    """Check every row of a data file.

    Raises:
        SettingsError: an output exists or is the input, or ``fixed`` has no ``media_dir``.
        DataError: the file cannot be read at all.
    """
    _check_options(path, options)
    places = _places(path, options) if options.fixed else None
    findings, report = Findings(), RowReport(str(path))
    with ExitStack() as stack:
        nowhere = stack.enter_context(open(os.devnull, "w"))
        report.sink = stack.enter_context(whole_file(options.report)) if options.report else nowhere
        fixed = stack.enter_context(whole_file(options.fixed)) if options.fixed else None
        prepared = _prepare(path, options, places)
        for ready, found in check_many(prepared, options.media_dir, options.media, options.processes):
            report.rows += 1
            findings.relocated += ready.relocated
            if ready.problems or found:
                place = Place(str(path), ready.row.number, row_id(ready.record))
                report.add(place, [*ready.problems, *found])
            report.add_notes(ready.notes, ready.unknown)
            if fixed is not None and ready.record is not None and not (options.drop_bad and (ready.problems or found)):
                fixed.write(json.dumps(ready.record, ensure_ascii=False) + "\n")
    findings.rows, findings.bad, findings.problems = report.rows, report.bad, report.counts
    findings.examples, findings.remarks = report.table(), report.remarks()
    if options.report and not findings.bad:
        options.report.unlink()
    return findings


def _check_options(path: Path, options: Options) -> None:
    if not path.is_file():
        raise DataError(f"Expected a file of JSON lines; there is none at {path}. Check the path.")
    if options.limit is not None and options.limit < 1:
        raise SettingsError(f"Expected --limit of at least 1; got {options.limit}.")
    if options.fixed and options.media_dir is None:
        raise SettingsError("Expected --media-dir with --fix-paths: it is the folder in which clips are looked for.")
    if options.media_dir is not None and not os.path.isdir(options.media_dir):
        raise SettingsError(f"Expected a folder as --media-dir; there is none at {options.media_dir}.")
    for output in filter(None, (options.report, options.fixed)):
        if output.exists() and output.samefile(path):
            raise SettingsError(f"Expected another file than the input for the output; got {output}.")
    if options.fixed and options.fixed.exists() and not options.force:
        raise SettingsError(f"{options.fixed} exists. Name another with --output, or replace it with --force.")


def _rows(path: Path, options: Options) -> Iterator[Row]:
    return islice(read_rows(path), options.limit)


def _places(path: Path, options: Options) -> Places:
    media_dir = options.media_dir or ""
    names = missing_names((row.value for row in _rows(path, options) if row.value is not None), media_dir)
    return find_places(Path(media_dir), names)


def _prepare(path: Path, options: Options, places: Places | None) -> Iterator[tuple[_Ready, Media, bool]]:
    from tqdm import tqdm

    with tqdm(total=path.stat().st_size, unit="B", unit_scale=True, desc="validate", disable=None) as bar:
        for row in _rows(path, options):
            bar.update(row.size)
            if row.value is None:
                yield _Ready(row, None, [Problem(row.problem, "", row.reason)]), [], False
                continue
            record, problems = row.value, []
            if places is not None:
                record, ambiguous = corrected(row.value, places, options.media_dir or "")
                problems = [Problem("ambiguous name", "video", words) for words in ambiguous]
            checked = check_record(record, options.kind)
            found = [*checked.problems, *problems]
            ready = _Ready(row, record, found, record != row.value, checked.notes, checked.unknown)
            yield ready, checked.media, checked.is_video


def default_report(path: Path) -> Path:
    """``name.bad.jsonl`` beside the data file."""
    return path.with_name(f"{path.stem}.bad.jsonl")


def default_fixed(path: Path) -> Path:
    """``name.fixed.jsonl`` beside the data file."""
    return path.with_name(f"{path.stem}.fixed.jsonl")


def print_findings(findings: Findings, options: Options) -> None:
    """The table on standard output, and where the files are."""
    print(findings.to_table())
    for remark in findings.remarks:
        print(remark)
    if findings.bad and options.report:
        print(f"bad rows: {options.report}", file=sys.stderr)
    if options.fixed:
        print(f"corrected: {options.fixed}", file=sys.stderr)
