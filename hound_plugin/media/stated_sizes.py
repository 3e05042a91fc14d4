"""The sizes that containers state for their parts, followed through a file; one function per format.

Each takes a file and its size, and returns whether the file is proved to be complete. It raises
:class:`CutShortError` if a part reaches beyond the end of the file, or begins with a hole, and :class:`JoinedError` if
a second file follows, of a format of which FFmpeg plays the first one alone.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO

import numpy as np

_TOP_BOXES = {
    b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"pnot", b"udta", b"meta", b"uuid",
    b"sidx", b"ssix", b"prft", b"emsg", b"mfra", b"pdin", b"junk",
}  # fmt: skip
_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675
_MXF_KEY = b"\x06\x0e\x2b\x34"
_PNG = b"\x89PNG\r\n\x1a\n"
_FLV = re.compile(rb"FLV\x01[\x00\x01\x04\x05]\x00\x00\x00\x09\x00\x00\x00\x00")
_REAL = re.compile(rb"\.RMF\x00\x00\x00\x12\x00")
_NUT = re.compile(rb"nut/multimedia container\x00NM\x7a\x56\x1f\x5f\x04\xad")
_FTYP = re.compile(rb"\x00\x00\x00[\x10-\xff]ftyp[0-9A-Za-z ]{4}")
_LONGEST = 40  # bytes of such a beginning
_BLOCK = 1 << 20
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")


class CutShortError(Exception):
    """A file has fewer bytes than it states."""


class JoinedError(Exception):
    """Several files in one, as ``cat`` joins them; the message says where the next one begins."""

    def __init__(self, position: int) -> None:
        super().__init__(f"byte {position:,}")


def _expect(end: int, size: int) -> None:
    if end > size:
        raise CutShortError(f"it states at least {end:,} bytes and has {size:,}")


def _read(file: BinaryIO, position: int, count: int) -> bytes:
    file.seek(position)
    return file.read(count)


def _follow_boxes(file: BinaryIO, size: int) -> bool:
    """MP4 and MOV: ISO/IEC 14496-12, 4.2."""
    position, kinds, previous = 0, set(), b""
    while position + 8 <= size:
        length, kind = struct.unpack(">I4s", _read(file, position, 8))
        if kind not in _TOP_BOXES or length == 0:  # padding after the end; a last box that ends with the file
            break
        head = 8
        if length == 1:
            head, (length,) = 16, struct.unpack(">Q", _read(file, position + 8, 8).ljust(8, b"\xff"))
        if length < head:
            break
        _expect(position + length, size)
        if kind in (b"ftyp", b"moov") and kind in kinds:  # there is one of each
            raise JoinedError(position)
        kinds.add(kind)
        if kind == b"sidx":
            _expect(position + length + _referenced(_read(file, position + head, length - head)), size)
        position, previous = position + length, kind
    rest = _read(file, position, 8) if position < size else b""
    started = len(rest) < 8 and rest[:1] == b"\0" and rest.strip(b"\0")  # a box, below 16 MB, without its length
    if previous == b"moof" or (b"moof" in kinds and started):
        raise CutShortError("its last fragment is incomplete")
    if rest == bytes(8):  # padding
        _refuse_second(file, size, _FTYP, position)
    return {b"moov", b"mdat"} <= kinds and b"moof" not in kinds  # of fragments, one may be missing


def _referenced(index: bytes) -> int:
    """Bytes after a segment index that it refers to: ISO/IEC 14496-12, 8.16.3."""
    wide = index[:1] != b"\x00"
    start = 12 + (16 if wide else 8)
    first = int.from_bytes(index[start - (8 if wide else 4) : start], "big")
    count = int.from_bytes(index[start + 2 : start + 4], "big")
    entries = (index[start + 4 + 12 * number : start + 8 + 12 * number] for number in range(count))
    return first + sum(int.from_bytes(entry, "big") & 0x7FFFFFFF for entry in entries)


def _follow_elements(file: BinaryIO, size: int) -> bool:
    """Matroska and WebM: RFC 8794, and RFC 9559 for the two elements that may be of unknown size."""
    position, sized, limit, kind = 0, True, size, 0
    while position < limit:
        head = _read(file, position, 12)
        width = 9 - head[0].bit_length()
        if width > 4:
            raise CutShortError(f"there is a hole at byte {position:,} of {size:,}")
        kind = int.from_bytes(head[:width], "big")
        rest = head[width:]
        length_width = 9 - rest[0].bit_length() if rest else 9
        if length_width > 8 or len(rest) < length_width:
            raise CutShortError(f"its last part, at byte {position:,} of {size:,}, is incomplete")
        length = int.from_bytes(rest[:length_width], "big") & ((1 << 7 * length_width) - 1)
        unknown = length == (1 << 7 * length_width) - 1
        position += width + length_width
        if unknown and kind not in (_SEGMENT, _CLUSTER):
            return False
        if not unknown:
            _expect(position + length, size)
        if kind == _SEGMENT:
            sized = not unknown
            limit = position + length if sized else size  # whatever follows is not part of it
        elif not unknown:
            position += length
    is_hollow = kind == _CLUSTER and not _read(file, limit - 16, 16).strip(b"\0")  # it may end in a hole
    return sized and not is_hollow


def _follow_chunks(file: BinaryIO, size: int) -> bool:
    """AVI, also of several parts (OpenDML)."""
    position = 0
    while position + 12 <= size:
        name, length, kind = struct.unpack("<4sI4s", _read(file, position, 12))
        if name != b"RIFF" or kind not in (b"AVI ", b"AVIX") or length in (0, 0xFFFFFFFF):
            return position > 0
        _expect(position + length, size)  # some writers include the 8 bytes of name and length
        inner, position, indexed = position + 12, position + 8 + length + length % 2, False
        while inner + 8 <= position:
            name, length = struct.unpack("<4sI", _read(file, inner, 8))
            if not name.strip(b"\0") and not indexed:
                raise CutShortError(f"there is a hole at byte {inner:,} of {size:,}")
            indexed = indexed or name == b"idx1"  # padding may follow
            if name == b"LIST" and _read(file, inner + 8, 4) == b"hdrl":
                _expect(_indexed(_read(file, inner, 8 + length)), size)
            inner += 8 + length + length % 2
    return position > 0


def _indexed(header: bytes) -> int:
    """The last byte that an index of indices in the header of an AVI names; 0 without one."""
    end, index = 0, header.find(b"indx")
    while index >= 0:
        kind, count = header[index + 11], int.from_bytes(header[index + 12 : index + 16], "little")
        for entry in range(index + 32, min(index + 32 + 16 * count, len(header) - 15), 16) if kind == 0 else ():
            offset, length = struct.unpack("<QI", header[entry : entry + 12])
            end = max(end, offset + length)
        index = header.find(b"indx", index + 4)
    return end


def _follow_objects(file: BinaryIO, size: int) -> bool:
    """ASF, which is WMV: a header, the data, indices; a live stream states no sizes."""
    position, packet, proved = 0, 0, False
    while position + 24 <= size:
        name, length = struct.unpack("<16sQ", _read(file, position, 24))
        if length < 24:
            break
        _expect(position + length, size)
        if name == _ASF_HEADER and position:
            raise JoinedError(position)
        if name == _ASF_HEADER:
            header = _read(file, position, length)
            properties = header.find(_ASF_PROPERTIES)
            if properties < 0 or header[properties + 88] & 1:  # flag: broadcast
                return False
            packet = int.from_bytes(header[properties + 92 : properties + 96], "little")
        position += length
        if name == _ASF_DATA and packet:  # a packet never begins with 0, a hole does
            proved = _read(file, position - packet, 1) != b"\0"
    return proved


def _follow_tags(file: BinaryIO, size: int) -> bool:
    """FLV: the size that most writers leave in the first tag; a file ends with the length of its last tag."""
    head = _read(file, 0, 4096)
    field = head.find(b"\x00\x08filesize\x00")
    (stated,) = struct.unpack(">d", head[field + 11 : field + 19]) if 0 <= field < 4000 else (0.0,)
    end = int(stated) if 0 < stated < 1 << 62 else 0
    _expect(end, size)
    if not (_is_end_of_tag(file, size) or (end and _is_end_of_tag(file, end))):  # padding may follow
        raise CutShortError("its last tag is incomplete")
    if end != size:
        _refuse_second(file, size, _FLV)
    return stated > 0


def _is_end_of_tag(file: BinaryIO, end: int) -> bool:
    length = int.from_bytes(_read(file, max(end - 4, 0), 4), "big")
    head = _read(file, max(end - 4 - length, 0), 4)
    return head[:1] != b"" and head[0] & 0x1F in (8, 9, 18) and int.from_bytes(head[1:], "big") + 11 == length


def _follow_pages(file: BinaryIO, size: int) -> bool:
    """Ogg: RFC 3533; the last page must be complete."""
    tail = _read(file, max(size - 0x20000, 0), 0x20000)  # twice the largest page
    start = tail.rfind(b"OggS\0")
    if start < 0:
        return False
    head = tail[start : start + 27 + 255]  # the byte before the lengths is their number
    count = head[26] if len(head) > 26 else 255
    end = start + 27 + count + sum(head[27 : 27 + count])
    if len(head) < 27 + count or end > len(tail) or (end < len(tail) and b"OggS".startswith(tail[end:])):
        raise CutShortError("its last page is incomplete")
    return False


def _follow_packets(file: BinaryIO, size: int) -> bool:
    """MPEG-TS ends with a complete packet."""
    _, length = _transport(file, size)
    if length and size % length:
        raise CutShortError(f"its last packet has {size % length} of {length} bytes")
    return False


def _transport(file: BinaryIO, size: int) -> tuple[int, int]:
    """Where packets of MPEG-TS begin with 0x47, and their length: with a time code before, or check bytes after them.

    The length is 0 for anything that is not such a stream.
    """
    head = _read(file, 0, 1024)
    for start, length in ((0, 188), (4, 192), (0, 204)):
        if all(head[at] == 0x47 for at in range(start, min(len(head), size), length)):
            return start, length
    return 0, 0


def is_joined(file: BinaryIO, size: int) -> bool:
    """Whether the counter of a transport stream's tables (PID 0) jumps: a second stream was appended to the first."""
    start, length = _transport(file, size)
    if not length:
        return False
    packets = np.frombuffer(_read(file, 0, size // length * length), np.uint8).reshape(-1, length)[:, start : start + 4]
    tables = packets[(packets[:, 1] & 0x1F == 0) & (packets[:, 2] == 0)]
    counters = tables[:, 3].astype(int) & 15
    return bool(((counters[1:] - counters[:-1]) % 16 != 1).any())


def _follow_blocks(file: BinaryIO, size: int) -> bool:
    """GIF89a, 12 to 27: every block is a series of lengths with their data; a complete last block may be the end."""
    data = _read(file, 0, size)
    position = 13 + _colours(data[10])
    while position < size and data[position] != 0x3B:  # the trailer
        if data[position] == 0x2C and position + 9 < size:
            position += 11 + _colours(data[position + 9])  # a picture: its position, and the width of its codes
        elif data[position] == 0x21:
            position += 2
        elif not data[position:].strip(b"\0"):
            raise CutShortError(f"there is a hole at byte {position:,} of {size:,}")
        else:
            return False
        while position < size and data[position]:
            position += 1 + data[position]
        position += 1
        _expect(position, size)
    return position < size


def _colours(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _follow_chunks_of_png(file: BinaryIO, size: int) -> bool:
    """PNG and APNG end with the chunk IEND."""
    for _ in chunks_of_png(file, size):
        pass
    return True


def chunks_of_png(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind of each chunk up to IEND, and where its data begin and their length; 4 bytes of checksum follow them.

    Raises:
        CutShortError: a chunk is incomplete, or IEND is missing.
        JoinedError: another PNG follows.
    """
    position = len(_PNG)
    while position + 8 <= size:
        length, kind = struct.unpack(">I4s", _read(file, position, 8))
        start = position + 8
        position = start + length + 4
        _expect(position, size)
        yield kind, start, length
        if kind == b"IEND":
            if _read(file, position, len(_PNG)) == _PNG:
                raise JoinedError(position)
            return
    raise CutShortError("its last chunk, IEND, is missing")


def _follow_frames(file: BinaryIO, size: int) -> bool:
    """IVF: a header, which states its own length, and frames, each after 12 bytes with its length."""
    position = int.from_bytes(_read(file, 6, 2), "little")
    while position < size:
        head = _read(file, position, 12)
        length = int.from_bytes(head[:4], "little")
        if not length:  # padding, or a hole
            break
        _expect(position + 12 + length if len(head) == 12 else position + 12, size)
        position += 12 + length
    return False


def _follow_pictures(file: BinaryIO, size: int) -> bool:
    """A series of JPEG pictures; each ends with the marker EOI, which padding may follow."""
    if not _read(file, max(size - 4096, 0), 4096).rstrip(b"\0\n\r").endswith(b"\xff\xd9"):
        raise CutShortError("its last picture is incomplete")
    return False


def _follow_partitions(file: BinaryIO, size: int) -> bool:
    """MXF: SMPTE ST 377-1; the first partition says where the last one begins, unless it was never closed."""
    head = _read(file, 0, 64)
    start, _ = _value_of(head)
    footer = int.from_bytes(head[start + 24 : start + 32], "big")
    if not head.startswith(_MXF_KEY) or not footer:
        return False
    position = footer
    if position < size and not _read(file, position, 16).strip(b"\0"):
        raise CutShortError(f"there is a hole at byte {position:,} of {size:,}")
    while position < size:  # it, its index, and the list of all partitions
        head = _read(file, position, 32)
        if not head.startswith(_MXF_KEY):
            return position > footer
        start, length = _value_of(head)
        position += start + length
        _expect(position, size)
    _expect(position + 17 if position == footer else position, size)
    return True


def _value_of(head: bytes) -> tuple[int, int]:
    """Where the value after a key of MXF begins, and its length."""
    if not head[16] & 0x80:
        return 17, head[16]
    start = 17 + (head[16] & 0x7F)
    return start, int.from_bytes(head[17:start], "big")


def _follow_flash(file: BinaryIO, size: int) -> bool:
    """SWF: its length follows the version; for compressed files it is that of the uncompressed content."""
    name, length = struct.unpack("<3sxI", _read(file, 0, 8))
    if name != b"FWS" or length == 100 << 20:  # what FFmpeg writes to a pipe
        return False
    _expect(length, size)
    if _read(file, length, 3) in (b"FWS", b"CWS"):
        raise JoinedError(length)
    return True


def _follow_real(file: BinaryIO, size: int) -> bool:
    """RealMedia states too little to be followed."""
    _refuse_second(file, size, _REAL)
    return False


def _follow_nut(file: BinaryIO, size: int) -> bool:
    """NUT: its packets have sizes, but nothing states how many follow."""
    _refuse_second(file, size, _NUT)
    return False


def _refuse_second(file: BinaryIO, size: int, beginning: re.Pattern[bytes], after: int = 1) -> None:
    """Look for the beginning of another file of the kind after the first one."""
    for start in range(after, size, _BLOCK):
        if found := beginning.search(_read(file, start, _BLOCK + _LONGEST)):
            raise JoinedError(start + found.start())


WALKS: dict[str, Callable[[BinaryIO, int], bool]] = {  # by FFmpeg's names of the formats
    "mov": _follow_boxes,
    "matroska": _follow_elements,
    "avi": _follow_chunks,
    "asf": _follow_objects,
    "flv": _follow_tags,
    "ogg": _follow_pages,
    "mpegts": _follow_packets,
    "gif": _follow_blocks,
    "apng": _follow_chunks_of_png,
    "ivf": _follow_frames,
    "mjpeg": _follow_pictures,
    "mxf": _follow_partitions,
    "swf": _follow_flash,
    "rm": _follow_real,
    "nut": _follow_nut,
}
