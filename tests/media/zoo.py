"""Sixty files of the world and more: containers, codecs, pixel formats and oddities, made by PyAV's encoders."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from .clips import picture

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
    with av.open(str(path), "w", format=muxer, options=mux or {}) as output:
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
