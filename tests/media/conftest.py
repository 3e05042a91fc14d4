"""Odd files of the world, made once per run."""

from __future__ import annotations

from pathlib import Path

import pytest

from .clips import encode, encode_sound, encode_streamed, hide_pictures, remux, tag_rotation


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Readable clips by name."""
    root = tmp_path_factory.mktemp("clips with spaces & 'quotes'")
    paths = {path.stem: path for path in (root / name for name in _NAMES)}
    encode(str(paths["plain"]))
    encode(str(paths["one_gop"]), gop=250)
    encode(str(paths["open_gop"]), options={"x264-params": "open-gop=1:keyint=12:bframes=3"})
    encode(str(paths["odd_size"]), width=97, height=65, pixel_format="yuv444p")
    encode(str(paths["cropped"]), width=94, height=62)
    encode(str(paths["short"]), frames=3)
    encode(str(paths["tall"]), width=64, height=96)
    encode(str(paths["hevc"]), codec="libx265", options={"x265-params": "log-level=none"})
    encode(str(paths["mpeg4"]), codec="mpeg4")
    encode(str(paths["vp8"]), codec="libvpx", options={"auto-alt-ref": "1", "lag-in-frames": "16", "b": "80k"})
    encode(str(paths["vp9"]), codec="libvpx-vp9", options={"auto-alt-ref": "1", "lag-in-frames": "16"})
    encode(str(paths["program_stream"]), codec="mpeg2video")
    encode(str(paths["broadcast"]), container="mpegts")
    times = [sum(20 if n < 30 else 200 if n % 7 == 0 else 55 for n in range(number)) for number in range(60)]
    encode(str(paths["vfr"]), times_ms=times)
    encode_streamed(paths["streamed"], "matroska")
    encode_streamed(paths["streamed_web"], "webm", codec="libvpx-vp9")
    remux(paths["plain"], paths["cut"], start=1.0)
    remux(paths["plain"], paths["cut_mkv"], start=1.0)
    hide_pictures(paths["vp8"], paths["vp8_hidden"])
    for degrees in (90, 180, 270):
        tag_rotation(paths["plain"], paths[f"turned_{degrees}"], degrees)
    return paths


_NAMES = [
    "plain.mp4",
    "one_gop.mp4",
    "open_gop.mp4",
    "odd_size.mp4",
    "cropped.mp4",
    "short.mp4",
    "tall.mov",
    "hevc.mp4",
    "mpeg4.avi",
    "vp8.webm",
    "vp8_hidden.webm",
    "vp9.webm",
    "program_stream.mpg",
    "broadcast.ts",
    "vfr.mp4",
    "streamed.mkv",
    "streamed_web.webm",
    "cut.mp4",
    "cut_mkv.mkv",
    "turned_90.mp4",
    "turned_180.mp4",
    "turned_270.mp4",
]
READABLE = [name.split(".")[0] for name in _NAMES]
DECORD = {"plain", "one_gop", "odd_size", "cropped", "short", "tall", "vp8", "vp9", "vfr", "cut_mkv"}  # it is exact
DECORD |= {"turned_90", "turned_180", "turned_270"}


@pytest.fixture(scope="session")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files that are no clip, by name."""
    root = tmp_path_factory.mktemp("broken")
    whole, early = root / "whole.mp4", root / "early.mp4"
    encode(str(whole))
    remux(whole, early, options={"movflags": "+faststart"})
    for source, name in ((whole, "no_index.mp4"), (early, "cut_short.mp4")):
        data = source.read_bytes()
        (root / name).write_bytes(data[: len(data) * 6 // 10])
    (root / "empty.mp4").touch()
    (root / "text.mp4").write_text("no video " * 500)
    (root / "playlist.mp4").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{whole}\n#EXT-X-ENDLIST\n")
    (root / "script.mp4").write_text(f"ffconcat version 1.0\nfile '{whole.name}'\n")
    encode_sound(root / "sound.mp4")
    return {path.stem: path for path in root.iterdir()}
