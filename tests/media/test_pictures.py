"""Pictures that are no clip's frame and no image, and those that an original would bend."""

from __future__ import annotations

import logging
import os
import struct
import subprocess
import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from hound_plugin.errors import MediaDecodeError, MediaError, MediaNotFoundError
from hound_plugin.media import pictures, worker
from hound_plugin.media.decode import probe, read_clip
from hound_plugin.processing.image_processor import open_image
from hound_plugin.processing.pixels import PixelSteps
from hound_plugin.processing.video_processor import frame_to_array, video_frames_to_tensor

from .clips import picture, play
from .zoo import write

GOOD = picture(1, 40, 30)
SMALL = partial(frame_to_array, steps=PixelSteps(32))


def _write(path: Path, value: Any, **options: Any) -> None:
    image = value if isinstance(value, Image.Image) else Image.fromarray(value)
    image.save(path, **options)


def _deep_tiff(path: Path) -> None:
    _write(path, np.full((30, 40), 0.5, np.float32), format="TIFF")


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "deep": (lambda path: _write(path, np.full((30, 40), 999, np.uint16)), r"8 bits per channel .* \(PIL mode I;16\)"),
    "float": (_deep_tiff, r"8 bits per channel .* \(PIL mode F\)"),
    "postscript": (lambda path: _write(path, GOOD, format="EPS"), "PostScript is a program"),
    "pipe": (lambda path: os.mkfifo(path), "a pipe, socket or device, which could block"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "a pipe, socket or device, which could block"),
    "text": (lambda path: path.write_text("no image") and None, "damaged or not an image"),
    "empty": (lambda path: path.touch(), "damaged or not an image"),
    "dangling": (lambda path: path.symlink_to(path.with_name("nowhere")), "does not exist"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_picture_is_refused_in_time_wherever_it_stands(kind: str, tmp_path: Path) -> None:
    make, message = BAD[kind]
    bad = tmp_path / "f_1.png"
    make(bad)
    for number in (2, 3):
        _write(tmp_path / f"f_{number}.png", GOOD)
    frames = [tmp_path / f"f_{number}.png" for number in (1, 2, 3)]
    looks: list[tuple[Callable[[Any], Any], Any]] = [
        (lambda video: read_clip(video, num_frames=3), tmp_path),
        (lambda video: read_clip(video, num_frames=3, timeout=60), tmp_path),
        (lambda video: read_clip(video, num_frames=3), frames),
        (probe, tmp_path),
        (probe, frames),
        (open_image, bad),
    ]
    for look, media in looks:
        with pytest.raises(MediaError, match=message) as caught:
            look(media)
        assert caught.value.path == str(bad)
        assert str(bad) in str(caught.value)
        assert isinstance(caught.value, MediaNotFoundError) == (kind == "dangling")


@pytest.mark.parametrize("kind", ["pipe", "device", "dangling"])
def test_probe_looks_at_every_frame_that_could_block(kind: str, tmp_path: Path) -> None:
    for number in (1, 2):
        _write(tmp_path / f"f_{number}.png", GOOD)
    BAD[kind][0](tmp_path / "f_3.png")
    for media in (tmp_path, [tmp_path / f"f_{number}.png" for number in (1, 2, 3)]):
        with pytest.raises(MediaError, match=BAD[kind][1]):
            probe(media)


def test_ghostscript_is_never_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "page.eps", GOOD)

    def start(*_: Any, **__: Any) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", start)
    monkeypatch.setattr(subprocess, "check_call", start)
    with Image.open(tmp_path / "page.eps") as image:
        for media in (image, (tmp_path / "page.eps").read_bytes(), str(tmp_path / "page.eps")):
            with pytest.raises(MediaDecodeError, match="PostScript"):
                read_clip([media])
            with pytest.raises(MediaDecodeError, match="PostScript"):
                open_image(media)


@pytest.mark.parametrize(
    "array", [np.zeros((3, 4), np.uint16), np.zeros((3, 4), np.int32), np.zeros((3, 4), np.float32)]
)
def test_arrays_of_more_than_8_bits(array: np.ndarray) -> None:
    with pytest.raises(MediaDecodeError, match="8 bits per channel"):
        open_image(array)
    with pytest.raises(MediaDecodeError, match=r"got \[3, 4, 3\] of float32"):
        open_image(np.zeros((3, 4, 3), np.float32))


def encoded(codec: str, layout: str) -> bytes:
    """The file that FFmpeg's encoder makes of a picture in a layout of pixels."""
    frame = av.VideoFrame.from_ndarray(GOOD, format="rgb24").reformat(format=layout)
    encoder = av.CodecContext.create(codec, "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, layout
    encoder.time_base = Fraction(1, 25)
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def avif(layout: str) -> bytes:
    file = BytesIO()
    with av.open(file, "w", format="avif") as container:
        stream = container.add_stream("libaom-av1", rate=1, options={"cpu-used": "8", "still-picture": "1"})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 40, 30, layout
        frame = av.VideoFrame.from_ndarray(GOOD, format="rgb24").reformat(format=layout)
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return file.getvalue()


def saved(image: Image.Image, kind: str) -> bytes:
    file = BytesIO()
    image.save(file, kind)
    return file.getvalue()


def icon(content: bytes) -> bytes:
    entry = bytes([40, 30, 0, 0]) + struct.pack("<HHII", 1, 32, len(content), 22)
    return struct.pack("<HHH", 0, 1, 1) + entry + content


DEEP: dict[str, tuple[Callable[[], bytes], int]] = {
    "PNG of colours": (lambda: encoded("png", "rgb48be"), 16),
    "PNG of colours and alpha": (lambda: encoded("png", "rgba64be"), 16),
    "PNG of grey and alpha": (lambda: encoded("png", "ya16be"), 16),
    "PNG in an icon": (lambda: icon(encoded("png", "rgba64be")), 16),
    "TIFF of colours": (lambda: encoded("tiff", "rgb48le"), 16),
    "TIFF of colours and alpha": (lambda: encoded("tiff", "rgba64le"), 16),
    "PPM": (lambda: encoded("ppm", "rgb48be"), 16),
    "PPM as text": (lambda: b"P3 2 1 1023\n1000 5 7 0 1 1023\n", 10),
    "PPM of 12 bits": (lambda: b"P6 1 1 4095\n" + struct.pack(">HHH", 4095, 17, 1), 12),
    "JPEG 2000": (lambda: encoded("jpeg2000", "rgb48le"), 16),
    "JPEG 2000 of alpha": (lambda: encoded("jpeg2000", "rgba64le"), 16),
    "SGI": (lambda: encoded("sgi", "rgb48be"), 16),
    "AVIF of 10 bits": (lambda: avif("yuv420p10le"), 10),
    "AVIF of 12 bits": (lambda: avif("yuv444p12le"), 12),
}
FLAT: dict[str, Callable[[], bytes]] = {
    "PNG": lambda: encoded("png", "rgb24"),
    "PNG of alpha": lambda: encoded("png", "rgba"),
    "PNG in an icon": lambda: icon(encoded("png", "rgba")),
    "PNG of a palette": lambda: saved(Image.fromarray(GOOD).quantize(), "PNG"),
    "TIFF of black and white": lambda: saved(Image.fromarray(GOOD).convert("1"), "TIFF"),
    "WebP": lambda: saved(Image.fromarray(GOOD), "WEBP"),
    "TIFF": lambda: encoded("tiff", "rgb24"),
    "PPM": lambda: encoded("ppm", "rgb24"),
    "PPM of 4 bits": lambda: b"P6 1 1 15\n\x0f\x01\x02",
    "JPEG 2000": lambda: encoded("jpeg2000", "rgb24"),
    "SGI": lambda: saved(Image.fromarray(GOOD), "SGI"),
    "BMP of 16 bits a pixel": lambda: encoded("bmp", "rgb565le"),
    "AVIF": lambda: avif("yuv420p"),
}


@pytest.mark.parametrize("kind", DEEP)
def test_colours_of_more_than_8_bits_are_refused(kind: str, tmp_path: Path) -> None:
    """PIL reads them as 8 bits and does not say so."""
    make, bits = DEEP[kind]
    content = make()
    (tmp_path / "deep.png").write_bytes(content)
    for given in (content, BytesIO(content), str(tmp_path / "deep.png")):
        with pytest.raises(MediaDecodeError, match=f"Expected 8 bits per channel in .*; it has {bits} bits"):
            open_image(given)
    with pytest.raises(MediaDecodeError, match=f"it has {bits} bits"):
        probe([tmp_path / "deep.png"])
    with Image.open(tmp_path / "deep.png") as image, pytest.raises(MediaDecodeError, match=f"it has {bits} bits"):
        open_image(image)


@pytest.mark.parametrize("kind", FLAT)
def test_8_bits_and_less_are_taken(kind: str) -> None:
    content = FLAT[kind]()
    with Image.open(BytesIO(content)) as image:
        expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(np.asarray(open_image(content)), expected)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_orientations_are_ignored_with_one_note(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pictures, "_turned", [])
    exif = Image.Exif()
    exif[0x0112] = 6
    for number in range(3):
        _write(
            tmp_path / f"{number}.{kind.lower()}",
            GOOD,
            format=kind,
            exif=exif,
            **({} if kind == "PNG" else {"quality": 90}),
        )
        _write(tmp_path / f"plain.{kind.lower()}", GOOD, format=kind, **({} if kind == "PNG" else {"quality": 90}))
    with caplog.at_level(logging.WARNING):
        plain = np.asarray(open_image(tmp_path / f"plain.{kind.lower()}"))
        assert not caplog.records
        for number in range(3):
            path = tmp_path / f"{number}.{kind.lower()}"
            assert np.array_equal(read_clip([path], num_frames=1).frames[0], plain)
            assert np.array_equal(np.asarray(open_image(path)), plain)
    assert len(caplog.records) == 1
    assert "EXIF orientation" in caplog.text
    assert f"0.{kind.lower()}" in caplog.text


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_an_exif_that_is_damaged_does_no_harm(tmp_path: Path) -> None:
    Image.fromarray(GOOD).save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    with Image.open(tmp_path / "a.png") as image:
        assert image.info["exif"]
    assert np.array_equal(np.asarray(open_image(tmp_path / "a.png")), GOOD)


@pytest.mark.parametrize("timeout", [None, 60])
@pytest.mark.parametrize("kind", ["file", "folder", "array"])
def test_one_frame_in_full_size_at_a_time(kind: str, timeout: float | None, tmp_path: Path) -> None:
    """Eight frames take 66 MB."""
    video: Any = tmp_path / "large.avi"
    if kind == "file":
        write(video, codec="mjpeg", pixels="yuvj420p", frames=8, size=(2560, 1088))
    elif kind == "folder":
        video = tmp_path
        for number in range(8):
            Image.new("RGB", (2560, 1088), (number, 0, 0)).save(video / f"{number}.bmp")
    else:
        video = np.zeros((8, 1088, 2560, 3), np.uint8)
    read_clip(video, num_frames=1, transform=SMALL, timeout=timeout)
    tracemalloc.start()
    try:
        clip = read_clip(video, num_frames=8, transform=SMALL, timeout=timeout)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        worker._stop()
    assert clip.frames.shape == (8, 3, 32, 32)
    assert peak < 30_000_000


def test_what_is_made_of_a_frame_is_what_is_made_of_all(tmp_path: Path) -> None:
    write(tmp_path / "clip.mp4")
    expected = video_frames_to_tensor(read_clip(tmp_path / "clip.mp4", num_frames=30).frames, 32)
    for video, timeout in (
        (tmp_path / "clip.mp4", None),
        (tmp_path / "clip.mp4", 60),
        (play(tmp_path / "clip.mp4"), None),
    ):
        clip = read_clip(video, num_frames=30, transform=SMALL, timeout=timeout)
        assert np.array_equal(clip.frames, expected.numpy())
        assert len(set(clip.indices)) == 24, "some are there twice"
    worker._stop()


@pytest.mark.parametrize("how", ["baseline", "progressive"])
def test_a_jpeg_that_ends_in_zeros(how: str, tmp_path: Path) -> None:
    """PIL takes the zeros for data and shows grey; behind the end of a whole picture they are padding."""
    path = tmp_path / "1.jpg"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, progressive=how == "progressive")
    content = path.read_bytes()
    for end in (len(content) // 2, len(content) - 20):
        path.write_bytes(content[:end].ljust(len(content), b"\0"))
        for source in (path, path.read_bytes()):
            with pytest.raises(MediaDecodeError, match=rf"its data end in zeros at byte [\d,]+ of {len(content):,}"):
                pictures.open_picture(source)
        with pytest.raises(MediaDecodeError, match="end in zeros"):
            read_clip(tmp_path)
    path.write_bytes(content + bytes(5000))
    assert np.array_equal(pictures.open_picture(path), pictures.open_picture(content))


SEVERAL: dict[str, dict[str, Any]] = {
    "clip.gif": {"duration": 100}, "clip.png": {"duration": 100}, "clip.webp": {"lossless": True},
    "clip.avif": {}, "pages.tiff": {},
}  # fmt: skip


@pytest.mark.parametrize("name", SEVERAL)
def test_an_animation_is_not_an_image(name: str, tmp_path: Path) -> None:
    frames = [Image.fromarray(np.roll(GOOD, 7 * number, axis=0)) for number in range(4)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **SEVERAL[name])
    frames[0].save(tmp_path / f"one_{name}")
    looks: list[Callable[[Any], Any]] = [open_image, lambda picture: read_clip([picture]), lambda p: probe([p])]
    for look in looks:
        for media in (tmp_path / name, (tmp_path / name).read_bytes()):
            with pytest.raises(MediaDecodeError, match=r"Expected one picture in .*; it has 4, as an animation"):
                look(media)
        look(tmp_path / f"one_{name}")
    with Image.open(tmp_path / name) as opened:  # whoever opened it chose the picture
        opened.seek(2)
        assert open_image(opened).size == (40, 30)


@pytest.mark.parametrize("look", [open_image, lambda path: read_clip([path]), pictures.picture_size])
def test_a_raw_file_of_a_camera_is_not_its_thumbnail(look: Callable[[str], Any], tmp_path: Path) -> None:
    thumbnail = Image.fromarray(GOOD).resize((16, 12))
    for name, info in {"plain.tif": {0x00FE: 0}, "b.tif": {}, "a.dng": {0x00FE: 1}}.items():
        thumbnail.save(tmp_path / name, format="TIFF", tiffinfo=info)
    look(str(tmp_path / "plain.tif"))
    look(str(tmp_path / "b.tif"))
    with pytest.raises(MediaDecodeError, match=r"Expected a picture in .*; its first one is a thumbnail of 16x12"):
        look(str(tmp_path / "a.dng"))


@pytest.mark.parametrize("name", ["p.jpg", "p.png", "p.webp", "p.bmp", "p.tiff", "p.avif", "p.ppm", "p.ico", "p.mp4"])
def test_a_picture_is_not_a_clip(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    Image.fromarray(GOOD).save(path, "JPEG" if name == "p.mp4" else None)
    for look in (read_clip, probe):
        for video in (path, path.read_bytes()):
            with pytest.raises(MediaDecodeError, match=r"expected a clip, got a picture\. Give it as an image"):
                look(video)
    assert read_clip([path]).total_frames == 1
