"""Unpack an untrusted archive into a folder: only plain files and folders, only inside the folder, within limits.

Everything that an archive says about a member is checked before a byte of that member is written. Owner, mode and time
of members are ignored. Formats: tar, tar.gz and zip.
"""

from __future__ import annotations

import errno
import functools
import gzip
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

from hound_plugin.corpus.files import readable_size
from hound_plugin.corpus.tar_reader import tar_members
from hound_plugin.corpus.zip_reader import zip_members
from hound_plugin.errors import ArchiveError

STATE = ".hound"  # our own folder in every target: markers, locks, unfinished content
Progress = Callable[[int], None]
_BLOCK = 1 << 20
# What the readers of damaged archives raise, seen by fuzzing; not OSError, which may come of the disk.
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    IndexError,
    NotImplementedError,
    OverflowError,
    ValueError,
)
_ZIP, _GZIP, _USTAR, _USTAR_AT = (b"PK\3\4", b"PK\5\6"), b"\x1f\x8b", b"ustar", 257
_OTHERS = {
    b"bzh": "compressed by bzip2",
    b"\xfd7zxz\0": "compressed by xz",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"\x04\x22\x4d\x18": "compressed by lz4",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"rar!": "a rar archive",
    b"<!doctype": "a web page, such as a server's error",
    b"<html": "a web page, such as a server's error",
    b"version https://": "a pointer of Git LFS, not the file",
}
"""How other files begin, in lower case."""
_KINDS = (
    (tarfile.TarInfo.issym, "a symbolic link"),
    (tarfile.TarInfo.islnk, "a hard link"),
    (tarfile.TarInfo.ischr, "a character device"),
    (tarfile.TarInfo.isblk, "a block device"),
    (tarfile.TarInfo.isfifo, "a pipe"),
    (tarfile.TarInfo.issparse, "a sparse file"),
)


@dataclass(frozen=True)
class Limits:
    """The largest archive that is accepted.

    Attributes:
        member: bytes of one file, unpacked.
        total: bytes of all files, unpacked.
        members: number of files and folders.
        depth: folders in one another.
        ratio: unpacked bytes for each byte of the archive (which counts as at least 1 MB).
    """

    member: int = 2 * 10**9
    total: int = 400 * 10**9
    members: int = 5_000_000
    depth: int = 64
    ratio: float = 200.0


@dataclass(frozen=True)
class Counts:
    """What was written: number of files, and their bytes."""

    files: int
    size: int


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    is_folder: bool
    content: Callable[[], IO[bytes] | None]


def unpack(
    archive: Path, folder: Path, limits: Limits, flatten: bool = False, progress: Progress | None = None
) -> Counts:
    """Unpack ``archive`` into ``folder``, which should be new: on an error, files written so far are left there.

    Args:
        archive: a tar, a gzipped tar or a zip; its content says which, whatever its name.
        folder: created if missing.
        limits: see :class:`Limits`.
        flatten: drop the archive's own folders; two files of the same name are then an error.
        progress: called with the number of bytes of the archive read since the last call.

    Raises:
        ArchiveError: it is damaged or cut short; a member is a link, a device or another special file, has an absolute
            path or one that leads outside, or exceeds a limit. The message names archive and member.
    """
    folder.mkdir(parents=True, exist_ok=True)
    writer = _Writer(archive, folder, limits, flatten)
    members = _zip_members if _is_zip(archive) else _tar_members
    try:
        for member in members(archive, progress or (lambda _: None)):
            writer.write(member)
    except ArchiveError:
        raise
    except _DAMAGE as error:
        raise _damaged(archive, error) from error
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # of a decompressor, or a place before the file's beginning
            raise
        raise _damaged(archive, error) from error
    except RuntimeError as error:  # zipfile: encrypted
        raise ArchiveError(
            f"Cannot unpack {archive}: {error}. Only archives without a password are supported."
        ) from error
    if not writer.files:
        raise ArchiveError(f"Expected files in {archive}, found none. Remove it and download it again.")
    return Counts(writer.files, writer.size)


def _is_zip(archive: Path) -> bool:
    """By its content; by its name if that says nothing, as it is damaged."""
    begin = _begin(archive)
    is_tar = begin.startswith(_GZIP) or begin[_USTAR_AT:] == _USTAR
    return begin.startswith(_ZIP) or (archive.suffix == ".zip" and not is_tar)


def _begin(archive: Path) -> bytes:
    with archive.open("rb") as file:
        return file.read(_USTAR_AT + len(_USTAR))


def _damaged(archive: Path, error: Exception) -> ArchiveError:
    begin = _begin(archive).lstrip().lower()
    other = next((words for mark, words in _OTHERS.items() if begin.startswith(mark)), None)
    if other is not None:
        return ArchiveError(
            f"Cannot unpack {archive}: expected a tar, a gzipped tar or a zip; it is {other}. Download it again, or "
            "repack it."
        )
    return ArchiveError(
        f"Cannot unpack {archive}: {error}. It is damaged or cut short; remove it and download it again."
    )


class _Writer:
    """Checks members and writes them."""

    def __init__(self, archive: Path, folder: Path, limits: Limits, flatten: bool) -> None:
        self.archive, self.folder, self.limits, self.flatten = archive, folder, limits, flatten
        self.allowed = limits.ratio * max(archive.stat().st_size, 10**6)
        self.members = self.files = self.size = 0
        self.folders: set[str] = set()

    def write(self, member: _Member) -> None:
        """Write one member."""
        self.members += 1
        if self.members > self.limits.members:
            self._refuse(member.name, f"is member {self.members} of at most {self.limits.members}")
        parts = self._parts(member.name)
        self._check_size(member.name, member.size)
        if member.is_folder or not parts:
            if not member.is_folder:
                self._refuse(member.name, "has no name")
            if not self.flatten:
                self._make("/".join(parts))
            return
        parts = parts[-1:] if self.flatten else parts
        self._make("/".join(parts[:-1]))
        self._copy(member, self.folder.joinpath(*parts))

    def _parts(self, name: str) -> list[str]:
        if name.startswith(("/", "\\")):
            self._refuse(name, "has an absolute path")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if parts[:1] == [STATE] or parts[-1:] == [STATE]:
            self._refuse(name, "has a name that is reserved for markers")
        if ".." in parts or "\0" in name:
            self._refuse(name, "has a path that leads outside the folder")
        if len(parts) > self.limits.depth + 1:
            self._refuse(name, f"is {len(parts) - 1:,} folders deep, of at most {self.limits.depth}")
        return parts

    def _check_size(self, name: str, size: int) -> None:
        limits, total = self.limits, self.size + size
        if size > limits.member:
            self._refuse(name, f"has {readable_size(size)}; one file may have {readable_size(limits.member)}")
        if total > limits.total:
            self._refuse(
                name, f"makes {readable_size(total)} in total; an archive may have {readable_size(limits.total)}"
            )
        if total > self.allowed:
            self._refuse(
                name,
                f"makes {readable_size(total)}, more than {limits.ratio:g} times the archive: a decompression bomb",
            )

    def _make(self, path: str) -> None:
        if path in self.folders:
            return
        try:
            (self.folder / path).mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            self._refuse(path, "is a file and a folder at once", error)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            self._refuse(path, f"cannot be created: {error}", error)
        self.folders.add(path)

    def _copy(self, member: _Member, path: Path) -> None:
        source = member.content()
        if source is None:
            self._refuse(member.name, "has no content")
        target = self._create(member, path)
        with source:
            if target is None:
                self._compare(member, path, source)
                return
            with target:
                self.size += self._fill(member, source, target)
        self.files += 1

    def _create(self, member: _Member, path: Path) -> IO[bytes] | None:
        """The new file; None if an earlier member has the name, and its folders too."""
        try:
            return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_EXCL, 0o644), "wb")
        except FileExistsError as error:
            if path.is_dir():
                self._refuse(member.name, "is a file and a folder at once", error)
            if self.flatten:
                reason = "has the same name as another file, and the archive's folders are dropped"
                self._refuse(member.name, reason, error)
            return None
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            self._refuse(member.name, f"cannot be written: {error}", error)

    def _fill(self, member: _Member, source: IO[bytes], target: IO[bytes]) -> int:
        written = 0
        while block := source.read(_BLOCK):
            written += len(block)
            if written > member.size:
                self._refuse(member.name, f"has more than the {member.size} bytes that the archive states")
            target.write(block)
        if written < member.size:
            self._refuse(member.name, f"is cut short: {written} of {member.size} bytes")
        return written

    def _compare(self, member: _Member, path: Path, source: IO[bytes]) -> None:
        """A file that is in an archive twice must be the same: one of two would be lost."""
        with path.open("rb") as first:
            while (block := source.read(_BLOCK)) == first.read(_BLOCK):
                if not block:
                    return
        self._refuse(member.name, "occurs twice, with different contents")

    def _refuse(self, name: str, reason: str, cause: BaseException | None = None) -> NoReturn:
        raise _refusal(self.archive, name, reason) from cause


def _tar_members(archive: Path, progress: Progress) -> Iterator[_Member]:
    def refuse(name: str, reason: str) -> NoReturn:
        raise _refusal(archive, name, reason)

    for info, content in tar_members(archive, progress, refuse):
        kind = next((words for is_kind, words in _KINDS if is_kind(info)), None)
        if kind is None and not (info.isreg() or info.isdir()):
            kind = f"of an unknown kind ({info.type!r})"
        if kind is not None:
            refuse(info.name, f"is {kind}")
        yield _Member(info.name, info.size, info.isdir(), content)


def _zip_members(archive: Path, progress: Progress) -> Iterator[_Member]:
    for name, info, opened in zip_members(archive):
        mode = info.external_attr >> 16
        if stat.S_IFMT(mode) and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            kind = "a symbolic link" if stat.S_ISLNK(mode) else "a special file"
            raise _refusal(archive, name, f"is {kind}")
        content = functools.partial(opened.open, info)
        yield _Member(name, info.file_size, name.endswith("/"), content)
        progress(info.compress_size)


def _refusal(archive: Path, name: str, reason: str) -> ArchiveError:
    return ArchiveError(
        f"Refused to unpack {archive}: its member {name[:200]!r} {reason}. Nothing of it was kept; only plain files "
        "and folders below the target are unpacked."
    )
