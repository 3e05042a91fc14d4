"""Real clips for the tests, encoded and re-muxed with PyAV."""

from __future__ import annotations

import itertools
import statistics
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

# https://developer.apple.com/documentation/quicktime-file-format/track_header_atom: a, b, c, d of the matrix
_TURNS = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}


def picture(number: int, width: int, height: int) -> np.ndarray:
    """A picture that differs from its neighbours and from its own mirror images: uint8 ``[H, W, 3]``."""
    y, x = np.mgrid[:height, :width]
    red = (x * 3 + number * 7) % 256
    green = (y * 5 + number * 3) % 256
    blue = np.where((x // 8 + y // 8 + number) % 2, 200, 30)
    frame = np.stack([red, green, blue], axis=-1).astype(np.uint8)
    frame[: height // 4, : width // 4] = (number * 37) % 256
    return frame


def encode(
    target: Any,
    frames: int = 60,
    width: int = 96,
    height: int = 64,
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    container: str | None = None,
    gop: int = 12,
    times_ms: list[int] | None = None,
    options: dict[str, str] | None = None,
) -> None:
    """Encode a clip at 25 frames per second, or with the given time stamps (variable frame rate)."""
    with av.open(target, "w", format=container) as output:
        stream = output.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        stream.gop_size = gop
        stream.codec_context.max_b_frames = 2 if codec in ("libx264", "mpeg4", "mpeg2video") else 0
        stream.options = options or {}
        if times_ms is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number, width, height), format="rgb24")
            if times_ms is not None:
                frame.pts, frame.time_base = times_ms[number], Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())


class Pipe:
    """A target that cannot seek, so that the muxer cannot go back and fill in counts and duration."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def write(self, data: bytes) -> int:
        return self._file.write(data)

    def close(self) -> None:
        self._file.close()


def encode_streamed(path: Path, container: str, **settings: Any) -> None:
    """Encode through a pipe: no frame count and no duration in the header."""
    pipe = Pipe(path)
    encode(pipe, container=container, **settings)
    pipe.close()


def remux(source: Path, target: Path, start: float | None = None, options: dict[str, str] | None = None) -> None:
    """Copy the packets without encoding, from ``start`` seconds on (the cut begins inside a group of pictures)."""
    with av.open(str(source)) as old, av.open(str(target), "w", options=options or {}) as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        shift = 0
        if start is not None:
            shift = int(start / stream.time_base)
            old.seek(shift, stream=stream)
        for packet in old.demux(stream):
            if packet.size:
                packet.stream = copy
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                new.mux(packet)


def hide_pictures(source: Path, target: Path) -> None:
    """Put a copy that is not to be shown before every tenth picture of a VP8 clip, as its alternate references are."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        copy = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(p for p in old.demux(video=0) if p.size):
            if number % 10 == 5:
                data = bytearray(bytes(packet))
                data[0] &= ~0x10  # show_frame
                hidden = av.Packet(bytes(data))
                hidden.pts = hidden.dts = packet.pts - 1
                hidden.time_base, hidden.stream = packet.time_base, copy
                new.mux(hidden)
            packet.stream = copy
            new.mux(packet)


def tag_rotation(source: Path, target: Path, degrees: int) -> None:
    """Write a display matrix into the track header of an MP4, as phones do."""
    data = bytearray(source.read_bytes())
    matrix = data.find(b"tkhd") + 4 + 40  # version 0: 24 bytes of fields, 8 reserved, layer, group, volume, reserved
    a, b, c, d = (value << 16 for value in _TURNS[degrees])
    data[matrix : matrix + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    target.write_bytes(data)


def encode_sound(path: Path) -> None:
    """A file with sound and no picture."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=44100)
        for _ in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
            frame.rate = 44100
            output.mux(stream.encode(frame))
        output.mux(stream.encode())


def play(path: Path) -> list[np.ndarray]:
    """Every frame by plain decoding from beginning to end, upright; the yardstick for quicker ways."""
    frames = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            frames.append(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))
    return frames


def lose_packets(source: Path, target: Path, lost: set[int], close_gaps: bool = False) -> None:
    """Copy all packets but those with the given numbers, as a recorder that drops them; maybe without gaps in time."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        copy = new.add_stream_from_template(old.streams.video[0])
        kept = [p for number, p in enumerate(p for p in old.demux(video=0) if p.size) if number not in lost]
        order = sorted(packet.pts for packet in kept)
        step = round(statistics.median(after - before for before, after in itertools.pairwise(order)))
        for number, packet in enumerate(kept):
            if close_gaps:
                packet.pts = order[0] + order.index(packet.pts) * step
                packet.dts = order[0] + (number - 3) * step
            packet.stream = copy
            new.mux(packet)
