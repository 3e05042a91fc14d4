"""A picture whose file was cut, or has a hole, is refused; or every pixel is there and what is missing is not."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from hound_plugin.errors import MediaDecodeError
from hound_plugin.media.pictures import open_picture

from .picture_files import HEIGHT, NEVER, PICTURES, WIDTH, ppm, saved

# What is behind the last pixel of these may be missing: an end mark, a footer, another size or a mask.
END_MARKS = {"BMP", "CUR", "GIF", "ICNS", "ICO", "PPM", "QOI", "TGA", "TIFF", "XBM", "XPM"}


def _format(content: bytes) -> str:
    with Image.open(BytesIO(content)) as image:
        return str(image.format)


def test_every_format_of_pillow_is_here() -> None:
    Image.init()
    have = {_format(make()).upper() for make in PICTURES.values()}
    assert set(map(str.upper, Image.OPEN)) == have | NEVER


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_that_was_cut(name: str) -> None:
    content = PICTURES[name]()
    whole = np.asarray(open_picture(content))
    size = len(content)
    cuts = {*range(1, min(size, 60)), *range(1, size, max(size // 40, 1))}
    kept = []
    for cut in sorted(cuts):
        try:
            shown = np.asarray(open_picture(content[:-cut]))
        except MediaDecodeError:
            continue
        assert np.array_equal(shown, whole), f"cut by {cut} of {size} bytes"
        kept.append(cut)
    assert not kept or _format(content) in END_MARKS, f"the cuts {kept} of {size} bytes"


@pytest.mark.parametrize("name", [name for name in PICTURES if name.startswith("PNG")])
def test_a_hole_in_a_png(name: str) -> None:
    """PIL does not compare the checksums of data: zeros may be a code of theirs."""
    content = PICTURES[name]()
    for hole in range(30, len(content) - 60, max(len(content) // 30, 1)):
        with pytest.raises(MediaDecodeError, match="cannot be decoded"):
            open_picture(content[:-hole] + bytes(hole))


def test_data_of_a_png_that_decode_to_something_else() -> None:
    rows = b"".join(b"\0" + bytes(3 * WIDTH) for _ in range(HEIGHT))
    head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) ^ (kind == b"IDAT"))
        for kind, data in chunks
    )
    with Image.open(BytesIO(content)) as image:
        image.load()  # nothing is said
    with pytest.raises(MediaDecodeError, match=r"from byte 41 to [\d,]+ do not have their checksum.*replace it"):
        open_picture(content)


def test_a_lazy_picture_of_others_is_looked_at_too() -> None:
    with Image.open(BytesIO(saved("DDS")[:-100])) as image:
        with pytest.raises(MediaDecodeError, match=r"states 1,280 bytes and has 1,180.*replace it"):
            open_picture(image)
        image.load()  # from here on it is pixels
        assert open_picture(image).size == (WIDTH, HEIGHT)


def test_a_grey_pcx_needs_no_palette() -> None:
    content = bytearray(saved("PCX", "L")[:-769])
    with pytest.raises(MediaDecodeError, match="its palette is incomplete: expected 769 bytes after byte"):
        open_picture(bytes(content))
    content[68:70] = b"\2\0"  # grey levels, says the header
    assert np.array_equal(np.asarray(open_picture(bytes(content))), np.asarray(open_picture(saved("PCX", "L"))))


def test_digits_that_may_go_on() -> None:
    assert open_picture(ppm(3)).size == (WIDTH, HEIGHT)
    with pytest.raises(MediaDecodeError, match="nothing follows its last number"):
        open_picture(ppm(3).rstrip())


def test_two_png_in_one_file() -> None:
    with pytest.raises(MediaDecodeError, match=r"several pictures in one file; the second begins at byte [\d,]+"):
        open_picture(saved("PNG") + saved("PNG", "L"))


@pytest.mark.parametrize("zeros", [1, 3, 9])
def test_a_small_hole_at_the_end_of_a_jpeg(zeros: int) -> None:
    content = saved("JPEG")
    with pytest.raises(MediaDecodeError, match="its data end in zeros"):
        open_picture(content[:-zeros] + bytes(zeros))
