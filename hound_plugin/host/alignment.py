"""Rows of the format ``hound`` aligned for the host, with every problem collected before the first step.

The host's ``align_dataset`` maps a converter over the rows. Ours returns the problems of a row with it, so they are
counted, listed, and settled by one policy (:mod:`hound_plugin.records.bad_rows`) once all rows have been seen.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, Features, IterableDataset, Value
from llamafactory.extras import logging

from hound_plugin.errors import DataError, HoundError
from hound_plugin.host import held_out_rows
from hound_plugin.host.column_checks import check_columns
from hound_plugin.host.column_types import ALIGNED, Encoded, without_decoding
from hound_plugin.host.converter import HoundDatasetConverter
from hound_plugin.host.row_source import FILE, NUMBER
from hound_plugin.host.settings_state import settings
from hound_plugin.records.bad_rows import LIST, MISSING, Place, RowReport, error_of, to_lines
from hound_plugin.records.fields import LABELS
from hound_plugin.records.files import write_whole
from hound_plugin.records.record import Problem
from hound_plugin.version import __version__

logger = logging.get_logger(__name__)

PROBLEMS, REMARKS, PLACE = "_hound_problems", "_hound_remarks", "_hound_place"
FEATURES = Features({**ALIGNED, **{name: Value("string") for name in (PROBLEMS, REMARKS, PLACE)}})
_FORMAT = 3  # raise it when the aligned form of a row, or what is said of it, changes
_MEDIA = ("_videos", "_images")
_STREAMED = 16  # rows of a stream that are examined together
_FREE = 10  # bad rows of a stream before their share counts: a stream has no length
_run: list[Any] = []  # the arguments of the training whose data sets are read
_reports: list[tuple[RowReport, Dataset]] = []  # data sets of the run with bad rows
_places: list[Dataset] = []  # media and places of the usable rows of the run's data sets
_listed: list[dict[str, object]] = []  # bad rows in the list of the run
HOW_TO_SKIP = "`hound: {on_bad_rows: skip}`"


class Collecting:
    """A converter that returns the problems of a row instead of raising them.

    Attributes:
        converter: the converter.
        depends_on: what its result depends on besides its own fields; `datasets` finds a cached result by all of them.
    """

    def __init__(self, converter: HoundDatasetConverter) -> None:
        self.converter = converter
        self.depends_on = (__version__, _FORMAT, settings().on_bad_media)

    def __call__(self, example: Mapping[str, Any]) -> dict[str, Any]:
        aligned, parsed, place = self.converter.aligned(example)
        problems, remarks = "", ""
        if parsed.problems:
            details = [(problem.name, problem.field, problem.detail) for problem in parsed.problems]
            problems = json.dumps([[place.file, place.row, place.id], details])
        label = None if parsed.record is None or self.converter.consumer != "labels" else parsed.record.label
        if parsed.notes or parsed.unknown or label is not None:
            remarks = json.dumps([[note.text for note in parsed.notes], list(parsed.unknown), label])
        where = json.dumps([place.file, place.row, place.id])
        return {**aligned, PROBLEMS: problems, REMARKS: remarks, PLACE: where}


class Usable:
    """The usable rows of a batch of a stream, whose number of rows is unknown.

    The first bad row stops the run, or bad rows are left out and logged until there are too many. The host starts a
    stream several times to see its first rows, and shuffles its parts: a row that comes again is not counted again.
    """

    def __init__(self, collecting: Collecting) -> None:
        self.collecting = collecting
        self.report = RowReport(f"dataset {collecting.converter.dataset_attr.dataset_name!r}")
        self._reached: dict[str, int] = {}  # file -> the largest number of a row that was seen
        self._bad: set[tuple[str, int]] = set()
        self._said: set[str] = set()

    def __call__(self, batch: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        names = list(batch)
        rows = [dict(zip(names, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        used = [aligned for row in rows if self._usable(aligned := self.collecting(row), row)]
        return {name: [row[name] for row in used] for name in ALIGNED}

    def _usable(self, aligned: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
        key = (row[FILE], row[NUMBER]) if NUMBER in row else None
        if key is None:
            self.report.rows += 1
        else:
            self._reached[key[0]] = max(key[1], self._reached.get(key[0], 0))
            self.report.rows = sum(self._reached.values())
        self._say(aligned[REMARKS])
        if not aligned[PROBLEMS]:
            return True
        chosen = settings()
        if key is None or key not in self._bad:
            _add(self.report, aligned[PROBLEMS])
            if key is not None:
                self._bad.add(key)
            if chosen.on_bad_rows == "skip":
                logger.warning(f"on_bad_rows: skip: {json.dumps(self.report.entries[-1], ensure_ascii=False)}")
                self.report.entries.clear()
        if chosen.on_bad_rows == "error" or self.report.bad > max(chosen.max_bad_rows * self.report.rows, _FREE):
            self.report.settle("error", 0.0, None, HOW_TO_SKIP)
        return False

    def _say(self, remarks: str) -> None:
        if not remarks or remarks in self._said:
            return
        self._said.add(remarks)
        report = RowReport(self.report.what)
        report.add_notes(*json.loads(remarks)[:2])
        for line in report.remarks():
            logger.warning(line.replace(" (1 rows)", "").replace("` (1)", "`"))


class _Collected:
    """Stands in for a dataset where the host calls ``map`` on it."""

    def __init__(self, dataset: Any, consumer: str | None) -> None:
        self._dataset = dataset
        self._consumer = consumer

    def __iter__(self) -> Iterator[Any]:
        return iter(self._dataset)

    def map(self, function: HoundDatasetConverter, **kwargs: Any) -> Any:
        if self._consumer == "predictions" and function.consumer == "sft":
            function.consumer = "predictions"
        collecting = Collecting(function)
        if isinstance(self._dataset, IterableDataset):
            kwargs |= {"batched": True, "batch_size": _STREAMED, "features": ALIGNED}
            return self._dataset.map(Usable(collecting), **kwargs)
        return self._dataset.map(Encoded(collecting, "_videos", batched=False), features=FEATURES, **kwargs)


def align(original: Callable[..., Any], dataset: Any, dataset_attr: Any, data_args: Any, training_args: Any) -> Any:
    """The host's ``align_dataset`` for our format; other formats pass through once their columns are checked.

    Unusable rows are taken out; :func:`settle` decides about the run once all data sets have been read.

    Raises:
        DataError: ``dataset_info.json`` names columns that the rows do not have; or a stream has a bad row.
    """
    dataset = without_decoding(dataset) if dataset_attr.formatting == "hound" else dataset
    check_columns(dataset, dataset_attr)
    if dataset_attr.formatting == "hound":
        _check_label(dataset, dataset_attr)
    if dataset_attr.formatting != "hound":
        return original(dataset, dataset_attr, data_args, training_args)
    predicts = training_args.predict_with_generate and not training_args.do_train
    stand_in: Any = _Collected(dataset, "predictions" if predicts else None)
    aligned = original(stand_in, dataset_attr, data_args, training_args)
    if isinstance(aligned, Dataset) and _is_outdated(aligned):
        _forget(aligned)
        aligned = original(stand_in, dataset_attr, data_args, training_args)
    if isinstance(aligned, IterableDataset):
        return aligned
    return _usable(aligned, f"dataset {dataset_attr.dataset_name!r}", training_args)


def _usable(aligned: Dataset, name: str, training_args: Any) -> Dataset:
    report, labels = RowReport(name, rows=len(aligned)), Counter[bool | None]()
    problems, remarks = (aligned.data.column(column) for column in (PROBLEMS, REMARKS))
    for entry in pc.value_counts(remarks).to_pylist():
        if entry["values"]:
            notes, unknown, label = json.loads(entry["values"])
            report.add_notes(notes, unknown, entry["counts"])
            labels[label] += entry["counts"]
    good = pc.equal(problems, "")
    for text in problems.filter(pc.invert(good)).to_pylist():
        _add(report, text)
    first = training_args.process_index == 0
    for remark in report.remarks() if first else ():
        logger.warning_rank0(remark)  # information of loggers outside the host's own is not shown
    if labels.keys() - {None} in ({True}, {False}):
        only = str(labels[True] > 0).lower()
        logger.warning_rank0(f"{name}: every label is {only}; KTO learns from good and from bad answers.")
    if report.bad:
        _reports.append((report, aligned))
        aligned = aligned.select(pc.indices_nonzero(good).to_pylist())
    _places.append(aligned.select_columns([*_MEDIA, PLACE]))
    return aligned.remove_columns([PROBLEMS, REMARKS, PLACE])


def rows_with(media: Container[str]) -> Iterator[tuple[Place, list[str]]]:
    """Usable rows of the run that name one of ``media``: where they are, and which ones they name."""
    for dataset in _places:
        for row in dataset:
            named = [path for column in _MEDIA for item in row[column] or [] for path in _paths(item)]
            paths = [path for path in dict.fromkeys(named) if path in media]
            if paths:
                yield Place(*json.loads(row[PLACE])), paths


def _paths(item: str | list[str]) -> list[str]:
    return [item] if isinstance(item, str) else item


def add_to_list(listed: Path, report: RowReport) -> None:
    """Rewrite the run's list of bad rows, with those of ``report`` after the earlier ones."""
    _listed.extend(report.entries)
    write_whole(listed, to_lines(_listed))


def _check_label(dataset: Any, attr: Any) -> None:
    """Labels as numbers for class names: 0 may stand for `good`."""
    for name in (attr.kto_tag, *LABELS):
        feature = (dataset.features or {}).get(name)
        if isinstance(feature, ClassLabel):
            raise DataError(
                f"dataset {attr.dataset_name!r}: expected true and false in `{name}`, found numbers that stand for "
                f"{', '.join(map(repr, feature.names))}. Write true for the good answers and false for the bad ones."
            )


def begin(training_args: Any) -> None:
    """Forget what earlier data sets of this process had; called before a run's data sets are read."""
    for entries in (_reports, _places, _listed):
        entries.clear()
    _run[:] = [training_args, time.time()]


def _is_outdated(aligned: Dataset) -> bool:
    """Whether the cached result of an earlier run reports missing media: they may be there now."""
    times = [os.path.getmtime(file["filename"]) for file in aligned.cache_files]
    if not _run or not times or min(times) >= _run[1]:
        return False
    problems = aligned.data.column(PROBLEMS)
    return bool(pc.any(pc.match_substring(problems, f'"{MISSING}"')).as_py())


def settle(training_args: Any) -> None:
    """Stop, or report what was left out, for all data sets of a run at once; and list their bad rows.

    Raises:
        DataError: rows cannot be used, and ``hound.on_bad_rows`` or ``hound.max_bad_rows`` says to stop.
    """
    first = training_args.process_index == 0
    listed = Path(training_args.output_dir or ".") / LIST
    reports = list(_reports)
    _reports.clear()
    _listed.extend(entry for report, _ in reports for entry in report.entries)
    if first and _listed:
        write_whole(listed, to_lines(_listed))
    elif first:
        listed.unlink(missing_ok=True)  # of an earlier run with other data
    chosen, errors = settings(), []
    for report, aligned in reports:
        try:
            said = report.settle(chosen.on_bad_rows, chosen.max_bad_rows, listed, HOW_TO_SKIP)
            if report.bad == report.rows:
                raise error_of(report.counts)(f"No row is left: {said}")
            logger.warning_rank0(said)
        except HoundError as error:
            errors.append(error)
            if first:
                _forget(aligned)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        names = [name for report, _ in reports for name in report.counts]
        raise error_of(names)("\n\n".join(map(str, errors)))


def settle_and_split(original: Callable[..., Any], dataset: Any, eval_dataset: Any, data_args: Any, seed: int) -> Any:
    """The host's ``split_dataset``, which runs once all data sets have been read, before any is tokenised."""
    if _run:
        settle(_run[0])
    return held_out_rows.split(original, dataset, eval_dataset, data_args, seed)


def _forget(aligned: Dataset) -> None:
    """Delete the cached result of rows with problems: media that are missing now may be there in the next run."""
    for file in aligned.cache_files:
        with contextlib.suppress(OSError):
            os.unlink(file["filename"])


def _add(report: RowReport, text: str) -> None:
    (file, row, identity), problems = json.loads(text)
    report.add(Place(file, row, identity), [Problem(*problem) for problem in problems])
