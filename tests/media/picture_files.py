"""A picture in every format that Pillow reads, by its own writers, by FFmpeg's, or by hand."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from io import BytesIO
from typing import Any

import av
import numpy as np
from PIL import Image

WIDTH, HEIGHT = 24, 16
NOISE = np.random.default_rng(0).integers(1, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
GREY = NOISE[..., 0]
ALPHA = np.dstack([NOISE, GREY[..., None]])


def saved(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    image, file = Image.fromarray(NOISE), BytesIO()
    image = image.quantize() if mode == "P" else image.convert(mode)
    image.save(file, kind, **options)
    return file.getvalue()


def encoded(codec: str, layout: str) -> bytes:
    frame = av.VideoFrame.from_ndarray(NOISE, format="rgb24").reformat(format=layout)
    encoder = av.CodecContext.create(codec, "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = WIDTH, HEIGHT, layout
    encoder.time_base = Fraction(1, 25)
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def ppm(kind: int) -> bytes:
    depth = b"" if kind == 1 else b"255\n"
    values = NOISE.ravel() if kind == 3 else GREY.ravel() & (1 if kind == 1 else 255)
    return b"P%d %d %d\n" % (kind, WIDTH, HEIGHT) + depth + b" ".join(b"%d" % value for value in values) + b"\n"


def bmp_of_runs() -> bytes:
    rows = b"".join(b"\0" + bytes([WIDTH]) + row.tobytes() + b"\0\0" for row in GREY[::-1]) + b"\0\1"
    colours = b"".join(bytes([level, level, level, 0]) for level in range(256))
    start = 54 + len(colours)
    header = struct.pack("<IiiHHIIiiII", 40, WIDTH, HEIGHT, 1, 8, 1, len(rows), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + header + colours + rows


def psd(packed: bool) -> bytes:
    head = b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, HEIGHT, WIDTH, 8, 3) + bytes(12) + struct.pack(">H", packed)
    planes = NOISE.transpose(2, 0, 1)
    if not packed:
        return head + planes.tobytes()
    rows = [bytes([WIDTH - 1]) + row.tobytes() for row in planes.reshape(-1, WIDTH)]
    return head + b"".join(struct.pack(">H", len(row)) for row in rows) + b"".join(rows)


def brush(channels: int) -> bytes:
    pixels = ALPHA if channels == 4 else GREY
    head = struct.pack(">5I4sI", 29, 2, WIDTH, HEIGHT, channels, b"GIMP", 1) + b"\0"
    return head + pixels.tobytes()


def pixar() -> bytes:
    head = b"\200\350\0\0".ljust(416, b"\0") + struct.pack("<HHHHHH", HEIGHT, WIDTH, 0, 0, 14, 2)
    return head.ljust(1024, b"\0") + NOISE.tobytes()


def mcidas() -> bytes:
    words = [0] * 64
    words[1], words[8], words[9], words[10], words[13], words[33] = 4, HEIGHT, WIDTH, 1, 1, 256
    return struct.pack(">64i", *words) + GREY.tobytes()


def photo_cd() -> bytes:
    content = bytearray(96 * 2048)
    content[2048:2055] = b"PCD_IPI"
    return bytes(content) + np.random.default_rng(1).integers(0, 255, 768 * 512 * 3 // 2, dtype=np.uint8).tobytes()


def flick() -> bytes:
    colours = struct.pack("<H2x", 1) + np.random.default_rng(1).integers(0, 255, 768, dtype=np.uint8).tobytes()
    rows = b"".join(bytes([1, 256 - WIDTH]) + row.tobytes() for row in GREY)
    chunks = [struct.pack("<IH", 6 + len(data), kind) + data for kind, data in ((4, colours), (15, rows))]
    frame = struct.pack("<IHH8x", 16 + sum(map(len, chunks)), 0xF1FA, 2) + b"".join(chunks)
    head = struct.pack("<IHHHHHHI", 128 + len(frame), 0xAF12, 1, WIDTH, HEIGHT, 8, 3, 40)
    return head.ljust(128, b"\0") + frame


def texture(packed: bool) -> bytes:
    pixels = NOISE.tobytes()[: WIDTH * HEIGHT // 2] if packed else NOISE.tobytes()
    words = (0x10000, WIDTH, HEIGHT, 1, 1, 0 if packed else 1, 32, len(pixels))
    return b"FTEX" + struct.pack("<8i", *words) + pixels


def blizzard() -> bytes:
    pixels = NOISE.tobytes()[: WIDTH * HEIGHT // 2]
    head = b"BLP2" + struct.pack("<iBBBBII", 1, 2, 0, 0, 0, WIDTH, HEIGHT)
    offsets, lengths = [len(head) + 128 + 1024] + [0] * 15, [len(pixels)] + [0] * 15
    return head + struct.pack("<32I", *offsets, *lengths) + bytes(1024) + pixels


def iptc() -> bytes:
    fields = [
        (3, 20, struct.pack(">H", WIDTH)), (3, 30, struct.pack(">H", HEIGHT)), (3, 60, b"\1\0"), (3, 65, b"\0"),
        (3, 120, b"\1"), (8, 10, GREY.tobytes()),
    ]  # fmt: skip
    return b"".join(bytes([0x1C, one, two]) + struct.pack(">H", len(data)) + data for one, two, data in fields)


def cursor() -> bytes:
    bitmap = bytearray(saved("DIB"))
    struct.pack_into("<i", bitmap, 8, 2 * HEIGHT)
    content = bytes(bitmap) + bytes(4 * HEIGHT)
    entry = bytes([WIDTH, HEIGHT, 0, 0]) + struct.pack("<HHII", 0, 0, len(content), 22)
    return struct.pack("<HHH", 0, 2, 1) + entry + content


def pixmap() -> bytes:
    rows = b",\n".join(b'"' + bytes(97 + (level & 1) for level in row) + b'"' for row in GREY)
    colours = b'"a c #ff0000",\n"b c #00ff00",\n'
    return b'/* XPM */\nstatic char *a[] = {\n"%d %d 2 1",\n' % (WIDTH, HEIGHT) + colours + rows + b"\n};\n"


def fits() -> bytes:
    cards = {"SIMPLE": "T", "BITPIX": "8", "NAXIS": "2", "NAXIS1": str(WIDTH), "NAXIS2": str(HEIGHT)}
    lines = [f"{name:8}= {value:>20}".ljust(80) for name, value in cards.items()] + ["END".ljust(80)]
    return "".join(lines).ljust(2880).encode() + GREY.tobytes()


PICTURES: dict[str, Callable[[], bytes]] = {
    **{f"{kind} {mode}": lambda kind=kind, mode=mode: saved(kind, mode) for kind, modes in {
        "PNG": ("RGB", "RGBA", "L", "LA", "P", "1"), "JPEG": ("RGB", "L", "CMYK"), "BMP": ("RGB", "RGBA", "P", "1"),
        "DIB": ("RGB",), "GIF": ("RGB", "L"), "ICO": ("RGBA", "P"), "IM": ("RGB", "P", "1"), "JPEG2000": ("RGB", "LA"),
        "PCX": ("RGB", "P", "1"), "PPM": ("RGB", "L", "1"), "SGI": ("RGB", "RGBA", "L"), "TGA": ("RGB", "RGBA", "P"),
        "TIFF": ("RGB", "P", "1", "CMYK"), "WEBP": ("RGB", "RGBA"), "AVIF": ("RGB", "RGBA"), "QOI": ("RGB", "RGBA"),
        "DDS": ("RGB", "RGBA", "L", "LA"), "MSP": ("1",), "XBM": ("1",), "BLP": ("P",),
    }.items() for mode in modes},
    "JPEG progressive": lambda: saved("JPEG", progressive=True),
    "WEBP lossless": lambda: saved("WEBP", lossless=True),
    **{f"DDS {layout}": lambda layout=layout: saved("DDS", "RGBA", pixel_format=layout) for layout in ("DXT1", "DXT5")},
    **{f"TIFF {how}": lambda how=how: saved("TIFF", compression=how) for how in ("tiff_lzw", "packbits", "jpeg")},
    "TIFF group4": lambda: saved("TIFF", "1", compression="group4"),
    "TGA of runs": lambda: saved("TGA", compression="tga_rle"),
    "ICO of bitmaps": lambda: saved("ICO", bitmap_format="bmp", sizes=[(8, 8), (16, 16)]),
    "BMP of runs": bmp_of_runs, "BMP of 16 bits": lambda: encoded("bmp", "rgb565le"),
    "SUN": lambda: encoded("sunrast", "bgr24"), "SUN grey": lambda: encoded("sunrast", "gray"),
    "PBM text": lambda: ppm(1), "PGM text": lambda: ppm(2), "PPM text": lambda: ppm(3),
    "PPM of 100 levels": lambda: b"P6 %d %d 100\n" % (WIDTH, HEIGHT) + (NOISE % 100).tobytes(),
    "PSD": lambda: psd(False), "PSD packed": lambda: psd(True), "GBR": lambda: brush(4), "GBR grey": lambda: brush(1),
    "PIXAR": pixar, "MCIDAS": mcidas, "PCD": photo_cd, "FLI": flick, "FTEX": lambda: texture(False),
    "FTEX packed": lambda: texture(True), "BLP2": blizzard, "IPTC": iptc, "CUR": cursor, "XPM": pixmap, "FITS": fits,
    "DCX": lambda: struct.pack("<III", 0x3ADE68B1, 12, 0) + saved("PCX"),
    "XVTHUMB": lambda: b"P7 332\n#END_OF_COMMENTS\n%d %d 255\n" % (WIDTH, HEIGHT) + GREY.tobytes(),
    "IMT": lambda: b"pixel n8\nwidth %d\nheight %d\n\x0c" % (WIDTH, HEIGHT) + GREY.tobytes(),
    "ICNS": lambda: saved("ICNS", "1"),
}  # fmt: skip
"""Name -> the content of a file; a name begins with Pillow's name of the format, or of a relative."""

NEVER = {"BUFR", "GRIB", "HDF5", "WMF", "MPEG", "EPS", "SPIDER"}
"""Formats that are refused whole: Pillow only recognises them, they are programs, or have more than 8 bits."""
