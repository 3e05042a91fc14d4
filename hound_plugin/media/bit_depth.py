"""Bits a channel of a picture, from its header: PIL reads 16 bits of colour as 8 and does not say so.

PIL has modes of more than 8 bits for grey alone. Headers: PNG (RFC 2083, 4.1.1), TIFF (BitsPerSample), PNM (maxval),
JPEG 2000 (ISO/IEC 15444-1, A.5.1), AVIF (``pixi`` of ISO/IEC 23008-12, ``av1C`` of AV1-ISOBMFF), SGI, and the PNG files
in an ICO.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

from PIL import Image

_PNG = b"\x89PNG\r\n\x1a\n"
_CODESTREAM = b"\xff\x4f\xff\x51"  # SOC, then SIZ
_BITS_PER_SAMPLE = 258


def bits_per_channel(image: Image.Image) -> int | None:
    """The largest number of bits of a channel, as the file states it; None if PIL's mode says it, or nothing does.

    Args:
        image: opened by PIL, whose pixels are not read yet.

    Raises:
        OSError, struct.error, IndexError: the header is damaged.
    """
    if image.format == "TIFF":
        return max(getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (1,)))
    if image.format == "PPM":
        return max((_largest_value(tile).bit_length() for tile in getattr(image, "tile", ())), default=None)
    read, file = _READERS.get(image.format or ""), getattr(image, "fp", None)
    if read is None or file is None or file.closed:
        return None
    position = file.tell()
    try:
        return read(file)
    finally:
        file.seek(position)


def _largest_value(tile: Any) -> int:
    args = tile[3]
    return args[-1] if isinstance(args, tuple) and isinstance(args[-1], int) else 0


def _read(file: BinaryIO, position: int, count: int) -> bytes:
    file.seek(position)
    return file.read(count)


def _of_png(file: BinaryIO) -> int:
    return _read(file, 24, 1)[0]


def _of_sgi(file: BinaryIO) -> int:
    return 8 * _read(file, 3, 1)[0]


def _of_ico(file: BinaryIO) -> int:
    (count,) = struct.unpack("<H", _read(file, 4, 2))
    starts = [struct.unpack("<I", _read(file, 18 + 16 * number, 4))[0] for number in range(count)]
    heads = [_read(file, start, 25) for start in starts]
    return max((head[24] for head in heads if head.startswith(_PNG)), default=8)


def _of_jpeg2000(file: BinaryIO) -> int | None:
    start = 0
    if _read(file, 0, 4) != _CODESTREAM:
        size = file.seek(0, 2)
        start = next((start for kind, start, _ in _boxes(file, 0, size) if kind == b"jp2c"), -1)
    if start < 0:
        return None
    (count,) = struct.unpack(">H", _read(file, start + 40, 2))
    return max((size & 0x7F) + 1 for size in _read(file, start + 42, 3 * count)[::3])


def _of_avif(file: BinaryIO) -> int | None:
    bits: list[int] = []
    size = file.seek(0, 2)
    for kind, start, end in _boxes(file, 0, size):
        if kind == b"meta":
            for inner, begin, stop in _boxes(file, start + 4, end):
                if inner == b"iprp":
                    bits += _of_properties(file, begin, stop)
    return max(bits, default=None)


def _of_properties(file: BinaryIO, start: int, end: int) -> Iterator[int]:
    containers = [box for box in _boxes(file, start, end) if box[0] == b"ipco"]
    for kind, begin, stop in (box for _, first, last in containers for box in _boxes(file, first, last)):
        content = _read(file, begin, min(stop - begin, 64))
        if kind == b"pixi":
            yield from content[5 : 5 + content[4]]
        elif kind == b"av1C":
            yield 8 + 2 * bool(content[2] & 0x40) + 2 * bool(content[2] & 0x20)


def _boxes(file: BinaryIO, position: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, and begin and end of the content, of each box (ISO/IEC 14496-12, 4.2)."""
    while position + 8 <= end:
        length, kind = struct.unpack(">I4s", _read(file, position, 8))
        head = 8
        if length == 1:
            head, (length,) = 16, struct.unpack(">Q", _read(file, position + 8, 8))
        stop = end if length == 0 else position + length
        if stop < position + head or stop > end:
            return
        yield kind, position + head, stop
        position = stop


_READERS: dict[str, Callable[[BinaryIO], int | None]] = {
    "PNG": _of_png,
    "SGI": _of_sgi,
    "ICO": _of_ico,
    "JPEG2000": _of_jpeg2000,
    "AVIF": _of_avif,
}
