"""A hundred files of the world: containers, codecs, pixel formats and oddities, made by PyAV's encoders."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from .clips import encode_streamed, hide_pictures, picture, remux, tag_rotation

WIDTH, HEIGHT, RATE, FRAMES = 64, 48, 10, 24


@dataclasses.dataclass(frozen=True)
class Sound:
    """A second stream of silence: its codec, where it starts and ends (seconds), and its channels."""

    codec: str = "aac"
    start: float = 0.0
    end: float = FRAMES / RATE
    layout: str = "stereo"
    rate: int = 44100


def write(
    path: Path,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    *,
    muxer: str | None = None,
    frames: int = FRAMES,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    rate: int | Fraction = RATE,
    gop: int = 8,
    bframes: int = 0,
    times_ms: list[int] | None = None,
    start: float = 0.0,
    sound: Sound | None = None,
    mux: dict[str, str] | None = None,
    interlaced: bool = False,
    **options: str,
) -> None:
    """Encode a clip, with sound beside it if asked for."""
    with _own_priority(), av.open(str(path), "w", format=muxer, options=mux or {}) as output:
        stream = output.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        stream.codec_context.gop_size = gop
        stream.codec_context.max_b_frames = bframes
        stream.codec_context.thread_count = 1
        stream.options = options
        if times_ms is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        noise = add_sound(output, sound) if sound else None
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
            if times_ms is not None:
                frame.pts, frame.time_base = times_ms[number] + round(start * 1000), Fraction(1, 1000)
            else:
                frame.pts, frame.time_base = number + round(start * rate), 1 / Fraction(rate)
            if noise:
                noise(float(frame.pts * frame.time_base))
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
        if noise:
            noise(None)


@contextlib.contextmanager
def _own_priority() -> Iterator[None]:
    """Give the process its scheduling back: SVT-AV1 puts a process of root at the highest real-time priority for good.

    Every process that a test starts after that would inherit it, and starve all others.
    """
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, *before)


def add_sound(output: Any, sound: Sound) -> Callable[[float | None], None]:
    """Add a stream of silence; gives what writes it up to a moment (None: to its end)."""
    stream = output.add_stream(sound.codec, rate=sound.rate, layout=sound.layout)
    context = stream.codec_context
    context.open()
    step = context.frame_size or 1024
    done = round(sound.start * sound.rate)

    def up_to(moment: float | None) -> None:
        nonlocal done
        end = sound.end if moment is None else min(moment, sound.end)
        while done + step <= end * sound.rate:
            frame = av.AudioFrame(format=context.format.name, layout=sound.layout, samples=step)
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            frame.sample_rate, frame.pts, frame.time_base = sound.rate, done, Fraction(1, sound.rate)
            output.mux(stream.encode(frame))
            done += step
        if moment is None:
            output.mux(stream.encode())

    return up_to


_TONE, _MP2, _MP3 = Sound(), Sound("mp2"), Sound("mp3")
_X265 = {"codec": "libx265", "x265-params": "log-level=none:pools=1"}
_AOM = {"codec": "libaom-av1", "cpu-used": "8"}
_VPX = {"auto-alt-ref": "1", "lag-in-frames": "12", "b": "60k"}
_MPEG2: dict[str, Any] = {"codec": "mpeg2video", "rate": 25, "bframes": 2}
_OPEN = "open-gop=1:keyint=8:bframes=3"
_SLOW = [0, 40, 80, 2000, 2040, 6000, 6500, 6540]

ENCODED: dict[str, dict[str, Any]] = {
    # H.264
    "h264.mp4": {"sound": _TONE},
    "h264_b.mp4": {"bframes": 2},
    "h264_b.mkv": {"bframes": 2},
    "h264_mono.mov": {"sound": Sound(layout="mono")},
    "h264.3gp": {"sound": Sound(layout="mono")},
    "h264.ts": {"muxer": "mpegts", "sound": _MP2},
    "h264.m2ts": {"muxer": "mpegts", "mux": {"mpegts_m2ts_mode": "1"}},
    "h264.flv": {"sound": _TONE},
    "h264.avi": {"sound": _MP3},
    "h264.wmv": {"muxer": "asf", "sound": _TONE},
    "h264.nut": {"bframes": 2, "sound": Sound("libvorbis")},
    "h264.ismv": {"muxer": "ismv"},
    "h264.h264": {"muxer": "h264"},
    "h264_fragments.mp4": {"sound": _TONE, "mux": {"movflags": "frag_keyframe+empty_moov"}},
    "h264_dash.mp4": {"mux": {"movflags": "frag_keyframe+default_base_moof+global_sidx"}},
    "h264_hybrid.mp4": {"mux": {"movflags": "hybrid_fragmented"}},
    "h264_faststart.mp4": {"bframes": 2, "mux": {"movflags": "faststart"}},
    "h264_open.mkv": {"bframes": 3, "x264-params": _OPEN},
    "h264_open.mp4": {"bframes": 3, "x264-params": _OPEN},
    "h264_refresh.mp4": {"x264-params": "intra-refresh=1:keyint=10"},
    "h264_interlaced.mp4": {"x264-params": "interlaced=1:keyint=8"},
    "h264_interlaced.ts": {"muxer": "mpegts", "x264-params": "interlaced=1:keyint=8"},
    "h264_10_bit.mkv": {"pixels": "yuv420p10le"},
    "h264_422_10_bit.mp4": {"pixels": "yuv422p10le"},
    "h264_444_odd_size.mp4": {"pixels": "yuv444p", "size": (63, 47)},
    "h264_grey.mp4": {"pixels": "gray"},
    "h264_rgb.mkv": {"codec": "libx264rgb", "pixels": "rgb24"},
    "h264_variable.mp4": {"frames": 8, "times_ms": _SLOW},
    "h264_variable.mkv": {"frames": 8, "times_ms": _SLOW, "bframes": 2},
    "h264_negative.mp4": {"bframes": 2, "mux": {"avoid_negative_ts": "disabled", "movflags": "negative_cts_offsets"}},
    "h264_late.mp4": {"start": 5.0, "sound": Sound(end=7.4)},
    "h264_one.mkv": {"frames": 1},
    # HEVC, AV1, VP8, VP9
    "hevc.mp4": {**_X265},
    "hevc_10_bit.mp4": {**_X265, "pixels": "yuv420p10le"},
    "hevc_open.mkv": {**_X265, "bframes": 2, "x265-params": f"log-level=none:pools=1:{_OPEN}"},
    "hevc.ts": {**_X265, "muxer": "mpegts"},
    "hevc.hevc": {**_X265, "muxer": "hevc"},
    "av1.mp4": {"codec": "libsvtav1", "preset": "10"},
    "av1_hidden.mkv": {**_AOM, "lag-in-frames": "12"},
    "av1.ivf": {**_AOM},
    "av1.obu": {**_AOM, "muxer": "obu"},
    "vp8.webm": {"codec": "libvpx", "sound": Sound("libvorbis")},
    "vp8_hidden.mkv": {"codec": "libvpx", **_VPX},
    "vp8_alpha.webm": {"codec": "libvpx", "pixels": "yuva420p", "auto-alt-ref": "0"},
    "vp8.ogv": {"codec": "libvpx", "muxer": "ogg", "sound": Sound("libopus", rate=48000)},
    "vp9.webm": {"codec": "libvpx-vp9", "sound": Sound("libopus", rate=48000)},
    "vp9_hidden.mp4": {"codec": "libvpx-vp9", **_VPX},
    "vp9_444.webm": {"codec": "libvpx-vp9", "pixels": "yuv444p"},
    # MPEG-1, MPEG-2, MPEG-4 part 2 and their kin
    "mpeg1.mpg": {**_MPEG2, "codec": "mpeg1video", "sound": _MP2},
    "mpeg2.mpg": {**_MPEG2, "sound": _MP2},
    "mpeg2.vob": {**_MPEG2},
    "mpeg2.ts": {**_MPEG2, "muxer": "mpegts"},
    "mpeg2.mkv": {**_MPEG2},
    "mpeg2.m2v": {"codec": "mpeg2video", "rate": 25, "muxer": "mpeg2video"},
    "mpeg2_422.mxf": {**_MPEG2, "pixels": "yuv422p"},
    "mpeg4.avi": {"codec": "mpeg4", "sound": _MP3},
    "mpeg4_b.avi": {"codec": "mpeg4", "bframes": 2},
    "mpeg4_b.mp4": {"codec": "mpeg4", "bframes": 2},
    "mpeg4.m4v": {"codec": "mpeg4", "muxer": "m4v"},
    "msmpeg4.avi": {"codec": "msmpeg4"},
    "wmv1.wmv": {"codec": "wmv1", "muxer": "asf"},
    "wmv2.wmv": {"codec": "wmv2", "muxer": "asf", "sound": _MP3},
    "flv1.flv": {"codec": "flv", "sound": _MP3},
    "h263.3gp": {"codec": "h263", "size": (176, 144), "rate": 25, "frames": 8},
    "rv20.rm": {"codec": "rv20", "muxer": "rm"},
    "svq1.mov": {"codec": "svq1", "pixels": "yuv410p"},
    "cinepak.avi": {"codec": "cinepak", "pixels": "rgb24", "frames": 8},
    "snow.avi": {"codec": "snow"},
    "flash.swf": {"codec": "flv", "muxer": "swf"},
    # every picture by itself, and without loss
    "mjpeg.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "mjpeg_422.mov": {"codec": "mjpeg", "pixels": "yuvj422p"},
    "mjpeg.mjpeg": {"codec": "mjpeg", "pixels": "yuvj420p", "muxer": "mjpeg"},
    "prores.mov": {"codec": "prores_ks", "pixels": "yuv422p10le"},
    "prores_alpha.mov": {"codec": "prores_ks", "pixels": "yuva444p10le", "profile": "4444"},
    "dnxhd.mov": {"codec": "dnxhd", "pixels": "yuv422p", "size": (256, 120), "profile": "dnxhr_sq", "frames": 6},
    "cineform.mov": {"codec": "cfhd", "pixels": "yuv422p10le", "frames": 6},
    "dv.dv": {"codec": "dvvideo", "size": (720, 576), "rate": 25, "frames": 2, "muxer": "dv"},
    "ffv1.mkv": {"codec": "ffv1", "pixels": "yuv444p"},
    "ffv1_alpha.mkv": {"codec": "ffv1", "pixels": "bgra"},
    "ffv1_16_bit.mkv": {"codec": "ffv1", "pixels": "gray16le"},
    "huffyuv.avi": {"codec": "huffyuv", "pixels": "yuv422p"},
    "utvideo.avi": {"codec": "utvideo", "pixels": "gbrp"},
    "magicyuv.avi": {"codec": "magicyuv", "pixels": "gbrp"},
    "jpeg2000.mxf": {"codec": "jpeg2000", "pixels": "rgb24", "rate": 25, "frames": 6},
    "raw.avi": {"codec": "rawvideo", "pixels": "bgr24"},
    "raw.nut": {"codec": "rawvideo", "pixels": "rgb24"},
    "raw.y4m": {"codec": "wrapped_avframe", "muxer": "yuv4mpegpipe"},
    "v210.mov": {"codec": "v210", "pixels": "yuv422p10le", "frames": 6},
    "gif.gif": {"codec": "gif", "pixels": "rgb8"},
    "apng.apng": {"codec": "apng", "pixels": "rgb24", "muxer": "apng"},
    "png.mov": {"codec": "png", "pixels": "rgb24"},
    "animation.mov": {"codec": "qtrle", "pixels": "rgb24"},
    "screen.avi": {"codec": "zmbv", "pixels": "bgr0"},
    "screen.flv": {"codec": "flashsv", "pixels": "bgr24"},
}


def _streamed(path: Path) -> None:
    codecs = {".mkv": ("matroska", "libx264"), ".webm": ("webm", "libvpx"), ".avi": ("avi", "mpeg4")}
    muxer, codec = codecs[path.suffix]
    encode_streamed(path, muxer, codec=codec, frames=FRAMES, width=WIDTH, height=HEIGHT)


def _cut(path: Path, first: str = "first.mp4", **settings: Any) -> None:
    source = path.with_name(first)
    write(source, **{"bframes": 2, **settings})
    remux(source, path, start=1.3)
    source.unlink()


def _turned(path: Path) -> None:
    source = path.with_name("first.mp4")
    write(source)
    tag_rotation(source, path, int(path.stem.rpartition("_")[2]))
    source.unlink()


def _without_beginning(path: Path) -> None:
    write(path, muxer="mpegts", bframes=2)
    packets = path.stat().st_size // 188
    path.write_bytes(path.read_bytes()[packets // 3 * 188 :])


def _joined(path: Path) -> None:
    write(path, muxer="mpegts", bframes=2, sound=_MP2)
    path.write_bytes(path.read_bytes() * 2)


def _hidden(path: Path) -> None:
    source = path.with_name("first.mkv")
    write(source, codec="libvpx")
    hide_pictures(source, path)
    source.unlink()


def _padded(path: Path) -> None:
    write(path)
    path.write_bytes(path.read_bytes() + bytes(5000))


def _several(path: Path) -> None:
    """Two clips of one size in a file: the first one is shown."""
    write_streams(path, [(FRAMES, 0), (FRAMES, 100)])


def write_streams(path: Path, streams: list[tuple[int, int]], codecs: tuple[str, ...] = ()) -> None:
    """Several video streams in one file: their numbers of frames, and the number of the first picture of each."""
    with av.open(str(path), "w") as output:
        added = [output.add_stream((*codecs, *["libx264"] * len(streams))[i], rate=RATE) for i in range(len(streams))]
        for stream in added:
            stream.width, stream.height = WIDTH, HEIGHT
            stream.pix_fmt = "yuvj420p" if stream.codec_context.name == "mjpeg" else "yuv420p"
            stream.codec_context.max_b_frames = 0
        for number in range(max(frames for frames, _ in streams)):
            for stream, (frames, first) in zip(added, streams, strict=True):
                if number < frames:
                    frame = av.VideoFrame.from_ndarray(picture(first + number, WIDTH, HEIGHT), format="rgb24")
                    frame.pts, frame.time_base = number, Fraction(1, RATE)
                    output.mux(stream.encode(frame))
        for stream in added:
            output.mux(stream.encode())


ODD: dict[str, Callable[[Path], None]] = {
    "streamed.mkv": _streamed,
    "streamed.webm": _streamed,
    "streamed.avi": _streamed,
    "cut.mp4": _cut,
    "cut.mov": _cut,
    "cut.mkv": _cut,
    "cut.ts": _cut,
    "cut_open.mkv": functools.partial(_cut, **{"x264-params": _OPEN}),
    "cut_hevc.mkv": functools.partial(_cut, **{**_X265, "x265-params": f"log-level=none:pools=1:{_OPEN}"}),
    "turned_90.mp4": _turned,
    "turned_180.mov": _turned,
    "turned_270.mp4": _turned,
    "without_beginning.ts": _without_beginning,
    "joined.ts": _joined,
    "hidden.webm": _hidden,
    "padded.mp4": _padded,
    "several.mkv": _several,
    "several.mp4": _several,
}
ZOO = [*ENCODED, *ODD]


def make(name: str, folder: Path) -> Path:
    """Make one file of the zoo."""
    path = folder / name
    if name in ENCODED:
        write(path, **ENCODED[name])
    else:
        ODD[name](path)
    return path
