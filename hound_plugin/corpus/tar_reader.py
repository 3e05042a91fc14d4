"""Read a tar archive forwards and whole: :mod:`tarfile` takes a cut or damaged header for the end of the archive.

A damaged header, a missing mark at the end and anything behind that mark are errors here. A plain tar cannot
show damage inside a file's bytes: it has no checksum of them (``.tar.gz`` and ``.zip`` do).
"""

from __future__ import annotations

import gzip
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

from hound_plugin.corpus.files import readable_size

Refuse = Callable[[str, str], NoReturn]
_EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_PAX = _EXTENSIONS[:3]
_CHAIN = 16  # headers that only describe the next one; archivers write at most three in a row
_HEADER = 1 << 20  # long names and pax records; tarfile reads these fully into memory
_TAIL = 4 << 20  # zeros after the last member; archivers pad to at most a tape's record
_BLOCK = 1 << 20
_RECORD = re.compile(rb"([1-9]\d{0,6}) ([^=\0]+)=")
_KEYWORDS = frozenset(
    b"atime charset comment ctime gid gname hdrcharset linkpath mtime path size uid uname".split()
)  # POSIX; all others have a dot, as in LIBARCHIVE.creationtime


class TarStream:
    """A plain or compressed archive that is read forwards, for :class:`tarfile.TarFile`."""

    def __init__(self, file: IO[bytes], refuse: Refuse) -> None:
        self.refuse = refuse
        self.extensions = 0  # headers in a row that only describe the next one
        self._file = file
        self._position = 0
        self._ahead = b""

    def tell(self) -> int:
        """Bytes read so far, unpacked."""
        return self._position

    def peek(self, size: int) -> bytes:
        """The next bytes, which the next :meth:`read` returns too."""
        while len(self._ahead) < size and (block := self._file.read(size - len(self._ahead))):
            self._ahead += block
        return self._ahead[:size]

    def read(self, size: int) -> bytes:
        """As many bytes as asked for; fewer at the end."""
        blocks = [self._ahead[:size]]
        self._ahead = self._ahead[size:]
        missing = size - len(blocks[0])
        while missing > 0 and (block := self._file.read(min(missing, _BLOCK))):
            blocks.append(block)
            missing -= len(block)
        data = b"".join(blocks)
        self._position += len(data)
        return data

    def seek(self, position: int) -> None:
        """Read up to a position.

        Raises:
            tarfile.ReadError: it lies behind what was read, as a negative size would have it.
        """
        if position < self._position:
            raise tarfile.ReadError(f"a header leads back to byte {position}")
        while self._position < position and self.read(min(position - self._position, _BLOCK)):
            pass

    def read_end(self) -> None:
        """Read what follows the first block of zeros, so that a checksum of the whole is verified.

        Raises:
            tarfile.ReadError: it is not padding.
        """
        begin = self._position
        while block := self.read(_BLOCK):
            if block.count(0) != len(block):
                raise tarfile.ReadError(
                    f"data follow the mark that ends the archive, which is before byte {begin} (several archives in "
                    "one file, or a hole of a download)"
                )
            if self._position - begin > _TAIL:
                raise tarfile.ReadError(f"more than {readable_size(_TAIL)} of zeros follow the last member")


class _StrictInfo(tarfile.TarInfo):
    """A member whose header, and those before it that describe it, are whole."""

    @classmethod
    def fromtarfile(cls, tar: Any) -> Any:
        begin = tar.fileobj.tell()
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # a block of zeros: the end
            raise
        except tarfile.EmptyHeaderError as error:  # type: ignore[attr-defined]
            raise tarfile.ReadError(f"it ends at byte {begin}, without the mark of an archive's end") from error
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"the header at byte {begin}: {error}") from error

    def _proc_member(self, tar: Any) -> Any:
        stream: TarStream = tar.fileobj
        stream.extensions = stream.extensions + 1 if self.type in _EXTENSIONS else 0
        if stream.extensions > _CHAIN:
            raise tarfile.ReadError(f"more than {_CHAIN} headers in a row describe one member")
        if self.size < 0:
            raise tarfile.ReadError(f"a member of {self.size} bytes")
        if self.type in _EXTENSIONS and self.size > _HEADER:
            raise tarfile.ReadError(f"a header of {readable_size(self.size)}")
        if self.type == tarfile.GNUTYPE_SPARSE:
            stream.refuse(self.name, "is a sparse file")
        if self.type in _EXTENSIONS and len(stream.peek(self.size)) < self.size:
            raise tarfile.ReadError(f"it ends within a header of {self.size} bytes")
        if self.type in _PAX:
            _check_records(stream.peek(self.size), stream)
        return super()._proc_member(tar)  # type: ignore[misc]


def _check_records(records: bytes, stream: TarStream) -> None:
    """Refuse what :mod:`tarfile` skips: a damaged record would leave a file with its short name."""
    position = 0
    while position < len(records):
        record = _RECORD.match(records, position)
        end = position + int(record[1]) if record else 0
        if record is None or not record.end() < end <= len(records) or records[end - 1 : end] != b"\n":
            raise tarfile.ReadError(f"a damaged extended header: {records[position : position + 40]!r}")
        keyword, value = record[2], records[record.end() : end - 1]
        if keyword.startswith(b"GNU.sparse"):
            stream.refuse(value.decode("utf-8", "replace"), "is a sparse file")
        if keyword not in _KEYWORDS and b"." not in keyword:
            raise tarfile.ReadError(f"a damaged extended header: {keyword[:40]!r} is not the name of a field")
        if keyword == b"size" and not value.isdigit():
            raise tarfile.ReadError(f"a damaged extended header: a size of {value[:40]!r}")
        position = end


def tar_members(archive: Path, progress: Callable[[int], None], refuse: Refuse) -> Iterator[tuple[Any, Any]]:
    """The members of a tar archive, plain or gzipped, in order.

    Args:
        archive: the file.
        progress: called with the number of bytes of the archive read since the last call.
        refuse: called with a member's name and why it is not supported; raises.

    Yields:
        The member as a :class:`tarfile.TarInfo`, and a function that opens its content (None for a folder), which is
        valid until the next member.

    Raises:
        tarfile.TarError: a header is damaged, the archive has no end, or something follows its end.
        OSError, EOFError, zlib.error: the compressed stream is damaged or cut short.
    """
    with archive.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        counted: Any = _CountingReader(file, progress)
        opened: Any = gzip.GzipFile(fileobj=counted, mode="rb") if is_gzip else counted
        stream = TarStream(opened, refuse)
        with tarfile.TarFile(fileobj=stream, mode="r", tarinfo=_StrictInfo) as tar:  # type: ignore[arg-type]
            while (info := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # tarfile keeps every header otherwise
                yield info, lambda info=info: tar.extractfile(info)
            stream.read_end()


class _CountingReader:
    """A file that reports how much of it has been read."""

    def __init__(self, file: IO[bytes], progress: Callable[[int], None]) -> None:
        self.file, self.progress = file, progress

    def read(self, size: int = -1) -> bytes:
        block = self.file.read(size)
        self.progress(len(block))
        return block
