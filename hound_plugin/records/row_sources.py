"""Where a file of rows is: on a disk, or behind a URL that fsspec knows (``s3://``, ``gs://``, ``https://``, ...).

Addresses are written to logs and to ``run.json``. So one with a password or a signature in it is refused, and what a
file system says of a failure is shown without the queries of the addresses in it. Credentials come from where each file
system looks for them: the environment, or its own files.
"""

from __future__ import annotations

import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qsl, urlsplit

from hound_plugin.errors import DataError
from hound_plugin.records.files import PathLike

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(?:::|://)")
_SECRET = re.compile(r"sig|token|key|secret|credential|pass|auth|jwt|session", re.IGNORECASE)
_QUERY = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+://[^\s'\"<>?]*)\?[^\s'\"<>]*")
PARQUET = b"PAR1"
SUFFIXES = (".jsonl", ".json", ".parquet")
BLOCK = 1 << 20  # bytes that are asked for at a time, at least
GONE = (404, 410)
SECONDS = 60.0  # without an answer


def is_url(path: PathLike) -> bool:
    """Whether a name is a URL. ``pathlib`` would make ``s3:/x`` of ``s3://x``: keep URLs as text."""
    return _URL.match(os.fspath(path)) is not None


def names_rows(name: str) -> bool:
    """Whether a name is that of a file of rows, by its ending or as a URL."""
    return is_url(name) or name.lower().endswith(SUFFIXES)


def is_file(path: PathLike) -> bool:
    """Whether there is a file.

    Raises:
        DataError: a URL that cannot be asked: its scheme is unknown or needs a package, its server does not answer,
            access is refused, or the URL has a secret in it.
    """
    if not is_url(path):
        return os.path.isfile(path)
    return (_details(path) or {}).get("type") == "file"


def is_same(path: Path, source: PathLike) -> bool:
    """Whether a file to write is the one that is read."""
    return path.exists() and not is_url(source) and path.samefile(source)


def size_of(path: PathLike) -> int | None:
    """Size in bytes; None if the server of a URL does not say.

    Raises:
        DataError, OSError: there is no such file.
    """
    if not is_url(path):
        return os.path.getsize(path)
    size = (_details(path) or {}).get("size")
    return None if size is None else int(size)


@contextmanager
def open_rows(path: PathLike) -> Iterator[BinaryIO]:
    """Open a file for reading; it can be sought in.

    A file behind a URL is read in ranges, as it is needed. Where a server gives only whole files, or does not say how
    long they are, it is first copied to a temporary file.

    Raises:
        DataError, OSError: it cannot be opened, or, in the block, not be read to its end.
    """
    if not is_url(path):
        with open(path, "rb") as file:
            yield file
        return
    with _reached(path):
        system, name = _system_of(os.fspath(path))
        remote = system.open(name, "rb")
    with remote:
        if not _gives_ranges(remote):
            with _copied(path, system, name) as file:
                yield file
            return
        with io.BufferedReader(_Reads(path, remote), BLOCK) as buffered:
            yield buffered


def is_parquet(path: PathLike) -> bool:
    """Whether a file that exists begins as Parquet does, whatever its name."""
    with open_rows(path) as file:
        return file.read(len(PARQUET)) == PARQUET


class _Reads(io.RawIOBase):
    """A file of fsspec as Python's own: any error while reading names the address."""

    def __init__(self, path: PathLike, remote: Any) -> None:
        super().__init__()
        self._path, self._remote = path, remote

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with _reached(self._path):
            return int(self._remote.seek(offset, whence))

    def readinto(self, buffer: Any) -> int:
        with _reached(self._path):
            content = self._remote.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)


def _gives_ranges(remote: Any) -> bool:
    """Whether a part of an open file can be read without what is before it."""
    http = sys.modules.get("fsspec.implementations.http")  # it needs aiohttp, which not every environment has
    if http is None or not isinstance(remote, http.HTTPFile | http.HTTPStreamFile):
        return True
    if isinstance(remote, http.HTTPStreamFile):
        return False
    try:
        remote.seek(int(remote.size) - 1)
        return len(remote.read(1)) == 1
    except ValueError:  # the server sent all of the file
        return False
    finally:
        remote.seek(0)


@contextmanager
def _copied(path: PathLike, system: Any, name: str) -> Iterator[BinaryIO]:
    with tempfile.TemporaryFile() as file:
        with _reached(path), system.open(name, "rb", block_size=0) as remote:
            while content := remote.read(BLOCK):
                file.write(content)
        file.seek(0)
        yield file


def _details(path: PathLike) -> dict[str, Any] | None:
    """What a file system says of a URL; None if nothing is there."""
    with _reached(path):
        system, name = _system_of(os.fspath(path))
        try:
            details: dict[str, Any] = system.info(name)
        except FileNotFoundError as error:
            if error.__cause__ is None or getattr(error.__cause__, "status", None) in GONE:
                return None
            raise
        return details


def _system_of(url: str) -> tuple[Any, str]:
    from fsspec.config import conf
    from fsspec.core import url_to_fs

    for part in url.split("::"):
        _refuse_secrets(part)
    # Proxies and ~/.netrc as other programs follow them; no limit on the time of a whole file. A configuration of the
    # user's own (~/.config/fsspec) comes first.
    used = [name for name in ("http", "https") if f"::{name}://" in f"::{url}"]
    system, name = url_to_fs(url, **{name: _http() for name in used if "client_kwargs" not in conf.get(name, {})})
    return system, name


def _http() -> dict[str, Any]:
    from aiohttp import ClientTimeout

    timeout = ClientTimeout(total=None, sock_connect=SECONDS, sock_read=SECONDS)
    return {"client_kwargs": {"trust_env": True, "timeout": timeout}}


def _refuse_secrets(url: str) -> None:
    """Addresses are written to files.

    Raises:
        DataError: it has a password, a token or a signature; the message does not repeat it.
    """
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    has_user = at and (":" in user or parts.scheme in ("http", "https"))  # of `abfs` it is the container
    signed = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True) if _SECRET.search(name)]
    if has_user or signed:
        what = f"a query with {signed[0]}" if signed else "a user or a password"
        raise DataError(
            f"Expected the address of a file of rows without secrets, as it is written to logs and files; that of "
            f"{parts.scheme}://{host}{parts.path} has {what}. Download the file first (`curl -o rows.jsonl "
            "'ADDRESS'`), or give the credentials as its file system reads them from the environment (of https:// "
            "from ~/.netrc, of s3:// from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile)."
        )


@contextmanager
def _reached(path: PathLike) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # each file system raises errors of its own
        cause = error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ is not None else error
        reason = _QUERY.sub(r"\1", f"{type(cause).__name__}: {cause}")  # where a server redirected to may be signed
        raise DataError(
            f"Expected a file of rows at {path}: {reason:.500}. Check the address, the access rights "
            "(as fsspec reads them from the environment), and that the package of its file system is installed, in the "
            "release of fsspec itself (for s3://: pip install 'hound-plugin[s3]')."
        ) from None
