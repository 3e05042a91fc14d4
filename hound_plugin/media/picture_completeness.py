"""Is the file of a picture complete? The cases in which PIL shows something else instead of what is missing.

PIL refuses most files that are cut short. It does not check the checksums of a PNG's data, shows grey for zeros in a
JPEG, black for the missing end of a DDS with plain colours, and grey levels for a PCX without its palette; and it reads
as many digits of the last number of a PPM as there are.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO

from PIL import Image

from hound_plugin.errors import MediaDecodeError
from hound_plugin.media.stated_sizes import CutShortError, JoinedError, chunks_of_png

_BLOCK = 1 << 20
_PALETTE = 1 + 3 * 256  # bytes of a PCX's palette, with the byte before it
_PALETTE_BEGINS, _GREY_LEVELS = 12, 2  # ZSoft's technical reference: that byte, and the header's word for no palette


def check_complete(image: Image.Image, name: str, path: str | None) -> None:
    """Refuse a picture whose file lacks something that PIL would make up.

    Args:
        image: opened by PIL, whose pixels are not read yet; of others, nothing is known.
        name: for messages.
        path: its path, if it has one.

    Raises:
        MediaDecodeError: it is cut short, has a hole, or several pictures were joined; the message says where.
    """
    check, file = _CHECKS.get(image.format or ""), getattr(image, "fp", None)
    if check is None or file is None or file.closed or not getattr(image, "tile", None):
        return
    position = file.tell()
    try:
        check(image, file)
    except CutShortError as error:
        raise MediaDecodeError(
            f"{name} cannot be decoded: {error}. It was not written completely, or is damaged; replace it, or leave "
            "its record out.",
            path,
        ) from error
    except JoinedError as error:
        raise MediaDecodeError(
            f"{name} cannot be decoded: it is several pictures in one file; the second begins at {error}, and would "
            "not be seen. Split them.",
            path,
        ) from error
    finally:
        file.seek(position)


def _size(file: BinaryIO) -> int:
    return file.seek(0, os.SEEK_END)


def _check_jpeg(_: Image.Image, file: BinaryIO) -> None:
    """Zeros after the end of a JPEG (marker EOI) are padding; within a scan (marker SOS) EOI cannot occur."""
    file.seek(-1, os.SEEK_END)
    if file.read() != b"\0":
        return
    file.seek(0)
    content = file.read()
    if content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda"):
        end = len(content.rstrip(b"\0"))
        raise CutShortError(f"its data end in zeros at byte {end:,} of {len(content):,}")


def _check_png(_: Image.Image, file: BinaryIO) -> None:
    """Every chunk up to IEND is there, and the data have their checksums (RFC 2083, 3.4)."""
    for kind, start, length in chunks_of_png(file, _size(file)):
        if kind != b"IDAT":  # PIL checks the others
            continue
        file.seek(start)
        checksum, left = zlib.crc32(kind), length
        while left:
            block = file.read(min(left, _BLOCK))
            checksum, left = zlib.crc32(block, checksum), left - len(block)
        if checksum != int.from_bytes(file.read(4), "big"):
            raise CutShortError(f"its data from byte {start:,} to {start + length:,} do not have their checksum")


def _check_dds(image: Any, file: BinaryIO) -> None:
    """Plain colours: PIL takes pixels behind the end of the file for black."""
    tile = image.tile[0]
    if tile[0] != "dds_rgb":
        return
    start, bits = file.tell(), tile[3][0]
    end, size = start + image.width * image.height * max(bits // 8, 1), _size(file)
    if end > size:
        raise CutShortError(f"it states {end:,} bytes and has {size:,}")


def _check_pcx(image: Any, file: BinaryIO) -> None:
    """256 colours: their palette is the end of the file, behind the pixels, whose lengths of runs are followed here."""
    if image.mode not in ("L", "P"):
        return
    file.seek(0)
    content = file.read()
    if content[3] != 8 or int.from_bytes(content[68:70], "little") == _GREY_LEVELS:
        return
    position, left = image.tile[0][2], image.tile[0][3][1] * image.height
    while left > 0 and position < len(content):
        run = content[position] & 0x3F if content[position] >= 0xC0 else 1
        position, left = position + (2 if content[position] >= 0xC0 else 1), left - run
    palette = len(content) - _PALETTE
    if palette < position or content[palette] != _PALETTE_BEGINS:
        raise CutShortError(
            f"its palette is incomplete: expected {_PALETTE} bytes after byte {position:,}, up to the end, and found "
            f"{max(len(content) - position, 0):,}"
        )


def _check_ppm(_: Image.Image, file: BinaryIO) -> None:
    """Numbers as text: only white space after the last one says that it is complete."""
    file.seek(0)
    if file.read(2) not in (b"P2", b"P3"):
        return
    file.seek(-1, os.SEEK_END)
    if file.read().isdigit():
        raise CutShortError("nothing follows its last number, which may have had more digits: expected a line's end")


_CHECKS: dict[str, Callable[[Any, BinaryIO], None]] = {
    "JPEG": _check_jpeg,
    "MPO": _check_jpeg,
    "PNG": _check_png,
    "DDS": _check_dds,
    "PCX": _check_pcx,
    "PPM": _check_ppm,
}
