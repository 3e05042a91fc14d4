"""Where a file of rows is: on a disk, or behind a URL that fsspec knows (``s3://``, ``gs://``, ``hdfs://``, ...)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from hound_plugin.errors import DataError
from hound_plugin.records.files import PathLike

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(?:::|://)")
PARQUET = b"PAR1"
SUFFIXES = (".jsonl", ".json", ".parquet")


def is_url(path: PathLike) -> bool:
    """Whether a name is a URL. ``pathlib`` would make ``s3:/x`` of ``s3://x``: keep URLs as text."""
    return _URL.match(os.fspath(path)) is not None


def names_rows(name: str) -> bool:
    """Whether a name is that of a file of rows, by its ending or as a URL."""
    return is_url(name) or name.lower().endswith(SUFFIXES)


def is_file(path: PathLike) -> bool:
    """Whether there is a file.

    Raises:
        DataError: a URL that cannot be asked: its scheme is unknown or needs a package, or access is refused.
    """
    if not is_url(path):
        return os.path.isfile(path)
    with _reached(path):
        system, name = _system_of(os.fspath(path))
        return bool(system.isfile(name))


def size_of(path: PathLike) -> int:
    """Size in bytes.

    Raises:
        DataError, OSError: there is no such file.
    """
    if not is_url(path):
        return os.path.getsize(path)
    with _reached(path):
        system, name = _system_of(os.fspath(path))
        return int(system.size(name) or 0)


@contextmanager
def open_rows(path: PathLike) -> Iterator[BinaryIO]:
    """Open a file for reading; it can be sought in.

    Raises:
        DataError, OSError: it cannot be opened.
    """
    if not is_url(path):
        with open(path, "rb") as file:
            yield file
        return
    with _reached(path):
        system, name = _system_of(os.fspath(path))
        remote: BinaryIO = system.open(name, "rb")
    with remote:
        yield remote


def is_parquet(path: PathLike) -> bool:
    """Whether a file that exists begins as Parquet does, whatever its name."""
    with open_rows(path) as file:
        return file.read(len(PARQUET)) == PARQUET


def _system_of(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    system, name = url_to_fs(url)
    return system, name


@contextmanager
def _reached(path: PathLike) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # each file system raises errors of its own
        raise DataError(
            f"Expected a file of rows at {path}: {type(error).__name__}: {error}. Check the address, the access rights "
            "(as fsspec reads them from the environment), and that the package of its file system is installed."
        ) from error
