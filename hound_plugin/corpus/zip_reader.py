"""Read a zip archive whole: :mod:`zipfile` looks for a directory near the file's end, and skips what is not in it.

Every byte of the file must belong to a member of the directory, to the directory itself, or to the mark of the end.
Otherwise files were left behind without notice: those of another archive in the same file, or a member that the
directory lost.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_LOCAL = struct.Struct("<4s22xHH")
"""Of a member's own header: signature, lengths of the name and of what follows it."""
_DESCRIPTORS = (12, 16, 20, 24)
"""Bytes of checksum and sizes behind a member that was written as a stream."""
_UTF8 = 0x800
"""The flag of a member whose name is in UTF-8."""
_FIELD = struct.Struct("<HH")
"""Of an extra field: kind and size."""
_UNICODE_PATH = 0x7075
_STREAMED = 8
"""The flag of such a member."""
_END = b"PK\5\6"
_END_SIZE = 22
_LONGEST_COMMENT = 0xFFFF


def zip_members(archive: Path) -> Iterator[tuple[str, zipfile.ZipInfo, zipfile.ZipFile]]:
    """The members of a zip archive, in the order of their bytes in the file.

    Args:
        archive: the file.

    Yields:
        The name of a member with ``/`` between its folders (old programs of Windows write a backslash), the member,
        and the archive to open it from.

    Raises:
        zipfile.BadZipFile: it is damaged, something in it belongs to no member, it has backslashes and slashes, or a
            name whose encoding it does not state.
        OSError: reading fails.
    """
    with zipfile.ZipFile(archive) as opened, archive.open("rb") as file:
        _check_end(file)
        position, is_streamed = 0, False
        names = {info.header_offset: _name(info) for info in opened.infolist()}
        has_backslashes = _has_backslashes(list(names.values()))
        for info in sorted(opened.infolist(), key=lambda info: info.header_offset):
            _check_gap(position, info.header_offset, is_streamed)
            name = names[info.header_offset]
            yield name.replace("\\", "/") if has_backslashes else name, info, opened
            position = _end_of(info, file)
            is_streamed = bool(info.flag_bits & _STREAMED)
        _check_gap(position, opened.start_dir, is_streamed)


def _name(info: zipfile.ZipInfo) -> str:
    """The name of a member as its archiver meant it; :mod:`zipfile` takes whatever is not marked as UTF-8 for cp437.

    Info-ZIP writes the bytes of its system, and the name in UTF-8 into an extra field (APPNOTE.TXT, 4.6.9), which
    counts if the checksum in it is that of the bytes.
    """
    if "\0" in info.orig_filename:
        raise zipfile.BadZipFile(f"the name {info.orig_filename[:200]!r} has a zero")
    if info.flag_bits & _UTF8 or info.orig_filename.isascii():
        return info.filename
    stored, extra = info.orig_filename.encode("cp437"), info.extra
    while len(extra) >= _FIELD.size:
        kind, size = _FIELD.unpack_from(extra)
        value, extra = extra[_FIELD.size : _FIELD.size + size], extra[_FIELD.size + size :]
        if kind == _UNICODE_PATH and value[1:5] == struct.pack("<I", zlib.crc32(stored)):
            return value[5:].decode("utf-8")
    raise zipfile.BadZipFile(
        f"it does not state the encoding of its name {info.orig_filename[:200]!r}; pack it again with UTF-8 names"
    )


def _has_backslashes(names: list[str]) -> bool:
    """Whether folders are separated by backslashes."""
    odd = next((name for name in names if "\\" in name), None)
    if odd is not None and any("/" in name for name in names):
        raise zipfile.BadZipFile(
            f"its names have slashes and backslashes, such as {odd[:200]!r}, so that it is not clear which of them "
            "separate folders; pack it again"
        )
    return odd is not None


def _end_of(info: zipfile.ZipInfo, file: IO[bytes]) -> int:
    file.seek(info.header_offset)
    header = file.read(_LOCAL.size)
    if len(header) < _LOCAL.size:
        raise zipfile.BadZipFile(f"it ends within the header at byte {info.header_offset}")
    _, name, extra = _LOCAL.unpack(header)
    return int(info.header_offset + _LOCAL.size + name + extra + info.compress_size)


def _check_gap(begin: int, end: int, is_streamed: bool) -> None:
    if begin > end:
        raise zipfile.BadZipFile(f"two members overlap at byte {end}")
    if begin < end and not (is_streamed and end - begin in _DESCRIPTORS):
        raise zipfile.BadZipFile(
            f"the {end - begin} bytes from byte {begin} on belong to no file of its directory (several archives in "
            "one file, or a directory that lost files)"
        )


def _check_end(file: IO[bytes]) -> None:
    """Nothing but padding follows the mark of the end and its comment."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END_SIZE - _LONGEST_COMMENT))
    tail = file.read()
    mark = tail[tail.rfind(_END) :]
    comment = struct.unpack_from("<H", mark, _END_SIZE - 2)[0]
    if len(mark) < _END_SIZE + comment:
        raise zipfile.BadZipFile(f"it ends within a comment of {comment} bytes")
    if mark[_END_SIZE + comment :].strip(b"\0"):
        raise zipfile.BadZipFile(
            "data follow the mark that ends the archive (several archives in one file, the last of them cut short)"
        )
