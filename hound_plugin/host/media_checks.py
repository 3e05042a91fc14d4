"""Media of a run, checked before the first step (``check_media``): every bad one, and the rows that name it."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from llamafactory.extras import logging
from tqdm import tqdm

from hound_plugin.errors import EmptyMediaError, MediaDecodeError, MediaError, MediaNotFoundError
from hound_plugin.host import alignment, media_stamps, resume, settings_state
from hound_plugin.host.ranks import on_first_rank
from hound_plugin.host.settings_state import settings
from hound_plugin.media.decode import probe
from hound_plugin.processing.image_processor import open_image
from hound_plugin.records.bad_rows import MISSING, Place, RowReport
from hound_plugin.records.record import Problem

logger = logging.get_logger(__name__)

SAMPLE = 20000
HOW_TO_SKIP = "`hound: {on_bad_media: skip}`"
_COLUMNS = ("videos", "images")


def check(module: dict[str, Any], training_args: Any) -> dict[str, Any]:
    """Check the distinct media of all data sets, and settle the bad ones by ``on_bad_media``.

    Rows that name bad media are in the list of bad rows (``bad_rows.jsonl``), with file, number and id.

    Args:
        module: the host's data sets by name; an evaluation may have several.
        training_args: of the host.

    Returns:
        The same, without the rows whose media are bad.

    Raises:
        MediaError: media are bad and ``on_bad_media`` is ``error``, or no row is left.
        SettingsError: the training resumes from a checkpoint whose steps saw media of other sizes.
    """
    datasets = {name: dataset for name, dataset in named_datasets(module) if hasattr(dataset, "__len__")}  # no streams
    media: dict[str, str] = {}
    for name, dataset in datasets.items():
        _add_media(media, dataset)
        if name == "train_dataset" and training_args.do_train:  # the first one
            _compare_with_checkpoint(_chosen(sorted(media)), training_args.resume_from_checkpoint)
    names = _chosen(sorted(media))
    if len(names) < len(media):
        logger.warning_rank0(f"check_media: sample: {SAMPLE} of {len(media)} media are checked.")
    bad = on_first_rank(lambda: {path: problem for path, problem in _problems(names, media) if problem is not None})
    if not bad:
        return module
    report = _report(datasets, media, bad)
    listed = Path(training_args.output_dir or ".") / alignment.LIST
    if training_args.process_index == 0:
        alignment.add_to_list(listed, report)
    counts = f"{len(bad):,} of {len(names):,} checked media cannot be used, in {report.bad:,} rows"
    summary = f"{counts}:\n{report.table()}\nAll of them are listed in {listed}."
    first = bad[min(bad)]
    if settings().on_bad_media == "error":
        row = _first_row(report, min(bad))
        raise type(first)(f"{row}: {first}\n{summary} Set {HOW_TO_SKIP} to leave their rows out.", min(bad)) from first
    logger.warning_rank0(f"on_bad_media: skip: {summary}")
    return _without(module, bad)


def _chosen(names: list[str]) -> list[str]:
    if settings().check_media != "sample" or len(names) <= SAMPLE:
        return names
    return random.Random(0).sample(names, SAMPLE)


def _compare_with_checkpoint(names: list[str], checkpoint: str | None) -> None:
    stamps = on_first_rank(lambda: media_stamps.stamps_of(names))
    resume.check_media(names, stamps, checkpoint)
    settings_state.record_media(stamps)


def named_datasets(module: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    """The host's data sets of a run, each with a name for messages."""
    for name in ("train_dataset", "eval_dataset"):
        dataset = module.get(name)
        if isinstance(dataset, dict):
            yield from ((f"{name} {key}", value) for key, value in dataset.items())
        elif dataset is not None:
            yield name, dataset


def _without(module: dict[str, Any], bad: dict[str, MediaError]) -> dict[str, Any]:
    def good_rows(name: str, dataset: Any) -> Any:
        if not hasattr(dataset, "__len__"):
            return dataset
        rows = [row for row, items in enumerate(_media_by_row(dataset)) if not bad.keys() & {path for _, path in items}]
        left_out = len(dataset) - len(rows)
        if not left_out:
            return dataset
        logger.warning_rank0(f"on_bad_media: skip: {left_out} of {len(dataset)} rows of {name} are left out.")
        if not rows:
            path = min(bad)
            raise MediaDecodeError(f"{name}: no row is left; all media are bad. The first: {bad[path]}", path)
        return dataset.select(rows)

    for name in ("train_dataset", "eval_dataset"):
        dataset = module.get(name)
        if isinstance(dataset, dict):
            module[name] = {key: good_rows(f"{name} {key}", value) for key, value in dataset.items()}
        elif dataset is not None:
            module[name] = good_rows(name, dataset)
    return module


# --- the list


def _report(datasets: dict[str, Any], media: dict[str, str], bad: dict[str, MediaError]) -> RowReport:
    """The rows as they were read; of data sets of other formats, or tokenised by an earlier run, as they are now."""
    report = RowReport("the data sets", rows=sum(map(len, datasets.values())))
    known: set[str] = set()
    for place, paths in alignment.rows_with(bad.keys()):
        known |= set(paths)
        report.add(place, [_problem(media[path], path, bad[path]) for path in paths])
    rest = bad.keys() - known
    for name, dataset in datasets.items() if rest else ():
        for row, items in enumerate(_media_by_row(dataset), 1):
            paths = [path for path in dict.fromkeys(path for _, path in items) if path in rest]
            report.add(Place(f"{name} as it was tokenised", row), [_problem(media[p], p, bad[p]) for p in paths])
    return report


def _problem(kind: str, path: str, error: MediaError) -> Problem:
    name = {MediaNotFoundError: MISSING, EmptyMediaError: "no frame"}.get(type(error), "media damaged")
    return Problem(name, kind, str(error) if path in str(error) else f"{path}: {error}")


def _first_row(report: RowReport, path: str) -> str:
    """Where the first row is that names ``path``; its id is in the table."""
    entry = next((entry for entry in report.entries if path in str(entry["detail"])), None)
    return "a row" if entry is None else f"{entry['file']}, row {entry['row']}"


# --- checking


def _media_by_row(dataset: Any) -> Iterable[list[tuple[str, str]]]:
    """Of each row: kind and path of its media; the frames of a list count as images."""
    columns = [column for column in _COLUMNS if column in dataset.column_names]
    for row in dataset.select_columns(columns) if columns else ():
        yield [pair for column in columns for item in row[column] or [] for pair in _flat(item, column)]


def _flat(item: Any, column: str) -> list[tuple[str, str]]:
    if isinstance(item, list):
        return [pair for frame in item for pair in _flat(frame, "images")]
    return [("image" if column == "images" else "video", item)] if isinstance(item, str) else []


def _add_media(media: dict[str, str], dataset: Any) -> None:
    for items in _media_by_row(dataset):
        for kind, path in items:
            media.setdefault(path, kind)


def _problems(names: list[str], media: dict[str, str]) -> Iterable[tuple[str, MediaError | None]]:
    decoder = settings().decoder

    def check_one(path: str) -> tuple[str, MediaError | None]:
        try:
            if media[path] == "video":
                probe(path, decoder)
            else:
                open_image(path)
        except MediaError as error:
            return path, error
        return path, None

    workers = min(16, 2 * (os.cpu_count() or 1))
    with ThreadPoolExecutor(workers) as pool:
        progress = tqdm(total=len(names), desc="Checking media", unit="file", disable=len(names) < 1000)
        for result in pool.map(check_one, names):
            progress.update()
            yield result
        progress.close()
