"""The host's loader for JSON and CSV files of our format, and for files of other formats that it reads otherwise."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pyarrow
from datasets import DownloadConfig, DownloadManager, Features, IterableDataset, Value
from datasets import load_dataset_builder as find_builder
from datasets.exceptions import DatasetGenerationError
from datasets.fingerprint import Hasher
from datasets.packaged_modules.csv.csv import Csv, CsvConfig
from datasets.packaged_modules.json.json import Json

from hound_plugin.errors import DataError, HoundError
from hound_plugin.host import settings_state
from hound_plugin.host.column_type_errors import explain_failure
from hound_plugin.host.held_out_rows import holds_out
from hound_plugin.host.row_builder import Rows, RowText
from hound_plugin.host.row_source import (
    FEATURES,
    FILE,
    NUMBER,
    ROW,
    generate_cells,
    generate_rows,
    plain_copy,
    read_texts,
)  # fmt: skip
from hound_plugin.records.csv_rows import read_header
from hound_plugin.records.media_identity import media_digest

FORMATTING = "hound"
_LAYOUT = 2  # of the cached rows; raise it when they change
_SPLITS = {
    split: re.compile(rf"(?:^|[-._ ])(?:{words})(?=$|[-._ 0-9])", re.IGNORECASE)
    for split, words in {
        "train": "train|training",
        "validation": "validation|valid|val|dev",
        "test": "test|testing|eval|evaluation|held[-_]?out",
    }.items()
}
"""How names of files say their split: as on the hub, and as converting with `--split` writes them."""
_TYPED = ("json", "parquet", "arrow", "text")  # builders of local files that are no tables of text
_OTHER_ARCHIVES = (".zip", ".xz", ".bz2", ".zst", ".lz4", ".tar", ".7z")


@dataclass(frozen=True)
class Request:
    """The data set that the host is loading.

    Attributes:
        attr: its entry of ``dataset_info.json``, as the host has read it.
        folder: ``dataset_dir`` if that is a folder.
        holds_out: whether `val_size` takes some of its rows away from the training.
    """

    attr: Any
    folder: str | None
    holds_out: bool = False

    @property
    def as_text(self) -> bool:
        """Whether its rows are read here."""
        return bool(self.attr.formatting == FORMATTING)

    @property
    def is_checked(self) -> bool:
        """Whether its mistakes are explained here; data sets for other templates are left alone."""
        return self.as_text or settings_state.is_ours()

    def name_of(self, file: str) -> str:
        """A file's name as ``dataset_info.json`` or the hub's page shows it."""
        if "@" in file and file.startswith("hf://"):
            return file.partition("@")[2].partition("/")[2]
        if self.folder and not os.path.relpath(file, self.folder).startswith(os.pardir):
            return os.path.relpath(file, self.folder)
        return file


_request: ContextVar[Request | None] = ContextVar("hound_request", default=None)


def load_single_dataset(
    original: Callable[..., Any], dataset_attr: Any, model_args: Any, data_args: Any, *args: Any, **kwargs: Any
) -> Any:
    """The host's ``_load_single_dataset``; what it calls then knows which data set is meant."""
    from llamafactory.data import loader

    folder = data_args.dataset_dir if isinstance(data_args.dataset_dir, str) else None
    folder = folder if folder and os.path.isdir(folder) else None
    request = Request(dataset_attr, folder, holds_out(data_args))
    token = _request.set(request)
    extensions = loader.FILEEXT2TYPE
    if request.as_text:
        loader.FILEEXT2TYPE = {**extensions, "gz": "json"}
    try:
        return original(dataset_attr, model_args, data_args, *args, **kwargs)
    except ValueError as error:
        if not request.is_checked or not str(error).startswith("Allowed file types"):
            raise
        raise DataError(
            f"Expected JSON, JSON lines, CSV or Parquet as the file of dataset {str(dataset_attr)!r}: {error} Save it "
            "as JSON lines, one row a line, and name that file in dataset_info.json."
        ) from error
    finally:
        loader.FILEEXT2TYPE = extensions
        _request.reset(token)


def load_dataset(original: Callable[..., Any], **options: Any) -> Any:
    """The ``load_dataset`` of the host's loader: JSON as rows of text, for our format, and CSV as cells of text.

    Raises:
        DataError: a file cannot be read; or, for other formats with our template, its columns cannot be typed; or rows
            would be both held out and trained on.
    """
    request = _request.get()
    if request is None or not request.is_checked:
        return original(**options)
    rows = _load(original, request, options)
    wanted = request.attr.num_samples
    if request.holds_out and wanted is not None and hasattr(rows, "__len__") and wanted > len(rows):
        raise DataError(
            f"dataset {str(request.attr)!r}: `num_samples: {wanted}` of its entry in dataset_info.json repeats its "
            f"{len(rows)} rows, and `val_size` would hold out some that are trained on too. Name held-out rows as "
            "`eval_dataset`, or lower one of the two."
        )
    return rows


def _load(original: Callable[..., Any], request: Request, options: dict[str, Any]) -> Any:
    if isinstance(options.get("data_files"), list):
        options["data_files"] = sorted(options["data_files"])  # `os.listdir` has no order
        _check_splits(request, options["data_files"])
    try:
        if request.as_text or options["path"] not in _TYPED:
            builder = _text_builder(options)
            if isinstance(builder, Csv) or (builder is not None and request.as_text):
                return _load_rows(builder, request, options)
        return original(**_cached_by_content(options))
    except (DatasetGenerationError, pyarrow.ArrowException, ValueError, TypeError) as error:
        if isinstance(error.__cause__, HoundError):
            raise error.__cause__ from None
        builder = None if request.as_text or isinstance(error, HoundError) else _text_builder(options)
        explained = isinstance(builder, Json) and _explained(builder, request, options["split"], error)
        if explained:
            raise explained from None
        raise


def _check_splits(request: Request, files: list[str]) -> None:
    """Refuse a folder with the files of several splits, all of which the host would read as one.

    Raises:
        DataError: it has them.
    """
    found: dict[str, str] = {}
    for file in files:
        name = os.path.basename(file)
        named = {split for split, pattern in _SPLITS.items() if pattern.search(name)}
        if len(named) == 1:
            found.setdefault(named.pop(), name)
    if len(found) > 1:
        splits = [split for split in _SPLITS if split in found]
        raise DataError(
            f"dataset {str(request.attr)!r}: expected files of one split in its folder, found {' and '.join(splits)} "
            f"({', '.join(found[split] for split in splits)}), and the host would read them as one. Move each split "
            "into a folder of its own, and name the one that is meant in dataset_info.json."
        )


def _cached_by_content(options: dict[str, Any]) -> dict[str, Any]:
    """Options of ``load_dataset`` whose cache is that of the local files' content; `datasets` looks at their times."""
    files = options.get("data_files")
    if not isinstance(files, list) or not all(os.path.isfile(file) for file in files):
        return options
    cache = options.get("cache_dir") or str(datasets.config.HF_DATASETS_CACHE)
    cache = os.path.join(cache, f"content-{media_digest(files)[:16]}")
    return {**options, "data_files": _literal(files), "cache_dir": cache}


def _literal(files: Any) -> Any:
    """Local files by their own names: `datasets` takes names for patterns, ``data[1].json`` for ``data1.json``."""
    if not isinstance(files, list):
        return files
    return [glob.escape(file) if os.path.isfile(file) else file for file in files]


def read_cloud_json(original: Callable[..., Any], cloud_path: str) -> list[Any]:
    """The host's ``read_cloud_json``, with rows of text for our format; they are kept in memory, as the host does."""
    rows: list[Any] = original(cloud_path)
    request = _request.get()
    if request is None or not request.as_text:
        return rows
    return [{ROW: json.dumps(row), NUMBER: number, FILE: cloud_path} for number, row in enumerate(rows, 1)]


def _text_builder(options: dict[str, Any]) -> Json | Csv | None:
    """The builder that `datasets` takes for these options, if it reads plain JSON or CSV.

    Raises:
        DataError: a table in an archive, or with settings of pandas that would change its cells.
    """
    names = ("path", "name", "data_dir", "cache_dir", "token")
    chosen = {name: options[name] for name in names if name in options}
    builder = find_builder(**chosen, data_files=_literal(options.get("data_files")))
    if not isinstance(builder, Json | Csv) or not builder.config.data_files:
        return None
    archives = [file for file in _all_files(builder) if file.lower().endswith(_OTHER_ARCHIVES)]
    if isinstance(builder, Csv):
        _check_table(builder.config, archives)
        return builder
    return None if archives or builder.config.field is not None else builder


def _check_table(config: CsvConfig, archives: list[str]) -> None:
    usual = CsvConfig(sep=config.sep).pd_read_csv_kwargs
    others = {name: value for name, value in config.pd_read_csv_kwargs.items() if usual.get(name) != value}
    if archives or others:
        what = f"the archive {archives[0]}" if archives else f"its card sets {others!r:.200}"
        raise DataError(
            f"Expected plain tables (CSV) with a header, found {what}. Unpack them, or save the rows as JSON lines."
        )


def _all_files(builder: Json | Csv) -> list[str]:
    return [str(file) for files in builder.config.data_files.values() for file in files]


def _rows_of(builder: Json | Csv, request: Request, files: list[str]) -> tuple[Rows, Features]:
    """What reads the files' rows, and the columns that it gives.

    Args:
        builder: of `datasets`.
        request: the data set.
        files: all of its files, on this machine.
    """
    if not isinstance(builder, Csv):
        return generate_rows, FEATURES
    separator = builder.config.sep
    if request.as_text:
        return partial(generate_rows, separator=separator), FEATURES
    columns: dict[str, None] = {}
    for file in files:
        with plain_copy(Path(file)) as plain:
            columns |= dict.fromkeys(read_header(plain, separator))
    truths = [request.attr.kto_tag] if request.attr.kto_tag in columns else []
    features = Features({name: Value("bool" if name in truths else "string") for name in columns})
    return partial(generate_cells, separator=separator, columns=list(columns), truths=truths), features


def _load_rows(builder: Json | Csv, request: Request, options: dict[str, Any]) -> Any:
    split, cache_dir, token = options["split"], options.get("cache_dir"), options.get("token")
    if options.get("streaming"):
        return _stream(builder, request, split, cache_dir, token)
    files = _all_files(builder)
    content = media_digest(files)  # of those on this machine: one may have new rows, and its old size and time
    names = {file: request.name_of(file) for file in files}
    local = _downloaded(builder, files, cache_dir, token) if isinstance(builder, Csv) else files
    read, features = _rows_of(builder, request, local)
    rows = RowText(
        cache_dir=cache_dir,
        dataset_name=builder.dataset_name,
        config_name=builder.config.name,
        hash=Hasher.hash([_LAYOUT, files, content, names, str(features)]),
        base_path=builder.base_path,
        token=token,
        repo_id=builder.repo_id,
        data_files=builder.config.data_files,
        features=features,
    )
    rows.names, rows.rows = names, read
    rows.download_and_prepare()
    if not any(part.num_examples for part in rows.info.splits.values()):
        raise DataError(f"{', '.join(names.values())}: expected rows, found none. Download it again.")
    return rows.as_dataset(split=split)


def _stream(builder: Json | Csv, request: Request, split: str, cache_dir: str | None, token: Any) -> IterableDataset:
    """Rows of a hub data set as they are read: its files are downloaded, but not cached a second time."""
    files = _files(builder, split)
    local = _downloaded(builder, files, cache_dir, token)
    read, features = _rows_of(builder, request, local)
    kwargs = {"files": local, "names": [request.name_of(f) for f in files]}
    return IterableDataset.from_generator(read, features=features, gen_kwargs=kwargs)


def _files(builder: Json | Csv, split: str) -> list[str]:
    available = {str(name): [str(file) for file in files] for name, files in builder.config.data_files.items()}
    if split not in available:
        raise DataError(
            f"Expected one of the splits {sorted(available)} to stream, got {split!r}. Correct `split` in "
            "dataset_info.json, or turn `streaming` off."
        )
    return available[split]


def _downloaded(builder: Json | Csv, files: list[str], cache_dir: str | None, token: Any) -> list[str]:
    cache = os.path.join(cache_dir, "downloads") if cache_dir else None
    config = DownloadConfig(cache_dir=cache, token=token)
    manager = DownloadManager(builder.dataset_name, download_config=config, base_path=builder.base_path)
    paths: list[str] = manager.download(files)
    return paths


def _explained(builder: Json | Csv, request: Request, split: str, error: Exception) -> DataError | None:
    """Why `datasets` could not type the columns of another format's data set; None if it failed for another reason."""
    available = {str(name): [str(file) for file in files] for name, files in builder.config.data_files.items()}
    files = available.get(str(split).partition("[")[0]) or [file for every in available.values() for file in every]
    local = _downloaded(builder, files, None, builder.token)
    named = [(request.name_of(file), Path(path)) for file, path in zip(files, local, strict=True)]
    return explain_failure(request.attr, named, read_texts, error)
