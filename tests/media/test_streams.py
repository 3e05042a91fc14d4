"""Which stream of a file is the clip, and files that have none."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from hound_plugin.errors import MediaDecodeError, MediaError
from hound_plugin.media import streams, worker
from hound_plugin.media.decode import probe, read_clip
from hound_plugin.processing.image_processor import open_image

from . import zoo
from .clips import encode_sound, picture, play
from .zoo import FRAMES, HEIGHT, RATE, WIDTH, Sound, write, write_streams


def picture_bytes(kind: str = "PNG", size: tuple[int, int] = (200, 160)) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(7, *size)).save(buffer, kind)
    return buffer.getvalue()


def with_cover(path: Path, first: bool, disposition: Disposition | None = Disposition.attached_pic) -> None:
    """A clip and one picture, as a track of its own before or behind it."""
    plain = path.with_name("plain.mp4")
    write(plain)
    with av.open(str(plain)) as old, av.open(str(path), "w") as new:
        source = old.streams.video[0]

        def cover() -> Any:
            stream = new.add_stream("mjpeg", rate=RATE)
            stream.width, stream.height, stream.pix_fmt = 400, 300, "yuvj420p"
            if disposition is not None:
                stream.disposition = disposition.value
            return stream

        before = cover() if first else None
        copy = new.add_stream_from_template(source)
        still = before or cover()
        frame = av.VideoFrame.from_ndarray(picture(3, 400, 300), format="rgb24")
        frame.pts = 0
        for packet in [*still.encode(frame), *still.encode()]:
            new.mux(packet)
        for packet in old.demux(source):
            if packet.size:
                packet.stream = copy
                new.mux(packet)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("kind", "disposition"),
    [(k, d) for k in ("mp4", "mkv") for d in (Disposition.attached_pic, Disposition.timed_thumbnails, None)]
    + [("mov", None)],
)
def test_a_cover_is_not_the_clip(kind: str, first: bool, disposition: Disposition | None, tmp_path: Path) -> None:
    """Tracks that are marked as covers, and tracks of one picture that are not."""
    path = tmp_path / f"clip.{kind}"
    with_cover(path, first, disposition)
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 2
    expected = play(tmp_path / "plain.mp4")
    for video in (path, path.read_bytes()):
        clip = read_clip(video, num_frames=FRAMES)
        assert clip.total_frames == FRAMES
        assert np.array_equal(clip.frames, expected)
        assert (probe(video).width, probe(video).height) == (WIDTH, HEIGHT)
    with pytest.raises(MediaDecodeError, match="it has several video streams"):
        read_clip(path, decoder="decord")


def test_an_attachment_that_is_shown_as_a_video(tmp_path: Path) -> None:
    write(tmp_path / "plain.mp4")
    for kind, suffix in (("PNG", "png"), ("JPEG", "jpeg")):
        path = tmp_path / f"{suffix}.mkv"
        with av.open(str(tmp_path / "plain.mp4")) as old, av.open(str(path), "w") as new:
            new.add_attachment(f"cover.{suffix}", f"image/{suffix}", picture_bytes(kind))
            copy = new.add_stream_from_template(old.streams.video[0])
            for packet in old.demux(video=0):
                if packet.size:
                    packet.stream = copy
                    new.mux(packet)
        clip = read_clip(path, num_frames=5)
        assert clip.total_frames == FRAMES
        assert clip.frames.shape == (5, HEIGHT, WIDTH, 3)


def test_only_a_cover(tmp_path: Path) -> None:
    """Music with a picture of its record."""
    path, plain = tmp_path / "music.mkv", tmp_path / "sound.mkv"
    encode_sound(plain)
    with av.open(str(plain)) as old, av.open(str(path), "w") as new:
        new.add_attachment("cover.jpeg", "image/jpeg", picture_bytes("JPEG"))
        copy = new.add_stream_from_template(old.streams.audio[0])
        for packet in old.demux(audio=0):
            if packet.size:
                packet.stream = copy
                new.mux(packet)
    for look in (read_clip, probe):
        with pytest.raises(MediaDecodeError, match="no video stream, only a cover picture") as caught:
            look(path)
        assert caught.value.path == str(path)


@pytest.mark.parametrize("kind", ["mkv", "mp4", "nut"])
def test_of_several_clips_the_default_one_then_the_largest_then_the_first(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"clip.{kind}"
    write_streams(path, [(FRAMES, 0), (FRAMES, 100)])
    assert np.array_equal(read_clip(path, num_frames=FRAMES).frames, play(path))
    with av.open(str(path), "w") as output:
        added = [output.add_stream("libx264", rate=RATE) for _ in range(3)]
        for stream, width in zip(added, (32, 96, 64), strict=True):
            stream.width, stream.height, stream.pix_fmt = width, 32, "yuv420p"
            stream.disposition = Disposition.default.value if width == 64 and kind == "mkv" else 0
        for number in range(3):
            for stream in added:
                frame = av.VideoFrame.from_ndarray(picture(number, stream.width, 32), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, RATE)
                output.mux(stream.encode(frame))
        for stream in added:
            output.mux(stream.encode())
    assert probe(path).width == {"mkv": 64, "nut": 96, "mp4": 32}[kind]  # in an MP4 without any, the first is default


def test_a_short_clip_beside_a_long_one_is_no_cover(tmp_path: Path) -> None:
    write_streams(tmp_path / "clip.mkv", [(2, 0), (FRAMES, 100)])
    assert read_clip(tmp_path / "clip.mkv").total_frames == 2
    write_streams(tmp_path / "clip.mkv", [(1, 0), (1, 100)])
    assert read_clip(tmp_path / "clip.mkv").total_frames == 1


SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="64" height="48"><rect width="9" height="9"/></svg>'


def test_streams_without_a_decoder(tmp_path: Path) -> None:
    write(tmp_path / "odd.mp4")
    content = (tmp_path / "odd.mp4").read_bytes().replace(b"avc1", b"zzz1").replace(b"avcC", b"zzzC")
    (tmp_path / "odd.mp4").write_bytes(content)
    (tmp_path / "drawing.mp4").write_text(SVG)
    for name in ("odd.mp4", "drawing.mp4"):
        for look in (read_clip, probe):
            with pytest.raises(MediaDecodeError, match=rf"{name}: FFmpeg's library has no decoder") as caught:
                look(tmp_path / name)
            assert caught.value.path == str(tmp_path / name)
    with pytest.raises(MediaDecodeError, match="no decoder"):
        read_clip(tmp_path / "odd.mp4", timeout=60)
    worker._stop()


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    write(tmp_path / "clip.mp4")
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    odd = os.path.join(os.fsencode(tmp_path), b"caf\xe9")
    os.link(tmp_path / "clip.mp4", odd + b".mp4")
    os.link(tmp_path / "1.png", odd + b".png")
    os.mkdir(odd)
    os.link(tmp_path / "1.png", odd + b"/1.png")
    os.mkdir(tmp_path / "folder")
    os.link(tmp_path / "1.png", os.path.join(os.fsencode(tmp_path / "folder"), b"caf\xe9_1.png"))
    clip, image, folder = (os.fsdecode(name) for name in (odd + b".mp4", odd + b".png", odd))
    for video in (clip, folder, [image], str(tmp_path / "folder")):
        for look in (read_clip, probe):
            with pytest.raises(MediaError, match=r"Expected a path in UTF-8; got '.*caf\\udce9") as caught:
                look(video)
            str(caught.value).encode()  # it can be logged and written
            assert "caf\udce9" in caught.value.path
    with pytest.raises(MediaError, match="UTF-8"):
        read_clip("half a character: \ud800.mp4")
    with pytest.raises(MediaError, match="UTF-8"):
        read_clip(clip, timeout=60)
    with pytest.raises(MediaError, match="UTF-8"):
        open_image(image)
    worker._stop()


def test_sound_that_appears_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind the first 5 MB, which FFmpeg looks through for streams."""
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)
    monkeypatch.setattr(zoo, "picture", lambda number, width, height: np.roll(noise, number, 0))
    path = tmp_path / "clip.flv"
    write(path, codec="flashsv", pixels="bgr24", frames=32, size=(320, 240), sound=Sound("mp3", 3.0, 3.2))
    with av.open(str(path)) as container:
        assert len(container.streams) == 1
        assert path.stat().st_size > 6_000_000
    probe(path)
    assert read_clip(path, num_frames=2).total_frames == 32


def test_the_index_of_a_file_is_what_is_read(tmp_path: Path) -> None:
    """Covers that come before the clip move its number."""
    with_cover(tmp_path / "clip.mkv", first=True, disposition=None)
    with streams.opened(str(tmp_path / "clip.mkv")) as (_, stream):
        assert stream.index == 1
        assert stream.codec_context.width == WIDTH


@pytest.mark.parametrize("look", ["probe", "read_clip"])
def test_a_stream_of_a_kind_that_ffmpeg_does_not_know(look: str, tmp_path: Path) -> None:
    """In a process of its own: PyAV ended it with a segmentation fault when asked for the stream's type."""
    path = tmp_path / "clip.ogv"
    write(path, codec="libvpx", muxer="ogg")
    path.write_bytes(path.read_bytes().replace(b"OVP80\x01\x01\x00", b"OVP80\x01\x01\x24"))
    code = f"from hound_plugin.media.decode import {look}; {look}({str(path)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "it has no video stream, only unknown" in done.stderr


FORKED = """
import gc, multiprocessing, sys
import av
from hound_plugin.media.decode import read_clip

def play(path):
    container = av.open(path)
    container.streams.video[0].codec_context.thread_count = 4
    next(container.decode(video=0))
    garbage = [container]
    garbage.append(garbage)

def read_in_worker(path):
    gc.collect()
    print(len(read_clip(path, num_frames=4).frames), flush=True)

gc.disable()
play(sys.argv[1])
worker = multiprocessing.get_context("fork").Process(target=read_in_worker, args=(sys.argv[1],))
worker.start()
worker.join(20)
sys.exit(worker.exitcode or (worker.is_alive() and (worker.kill() or "hangs")))
"""


@pytest.mark.parametrize("kind", ["SLICE", "FRAME"])
def test_a_forked_process_does_not_wait_for_threads_of_its_parent(kind: str, tmp_path: Path) -> None:
    """Somebody left a decoder with threads as garbage, and a loader worker collects it."""
    path = tmp_path / "clip.mp4"
    zoo.write(path)
    script = FORKED.replace("thread_count = 4", f'thread_count = 4; container.streams.video[0].thread_type = "{kind}"')
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "4\n"), done.stderr
