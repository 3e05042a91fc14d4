"""Clips that benchmarks read."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

RATE, GOP = 30, 250


def write_clip(path: Path, seconds: int, height: int, seed: int = 0) -> Path:
    """A moving picture, H.264 in MP4, with a keyframe every 250 frames as x264 sets them by default."""
    width = height * 16 // 9 // 2 * 2
    y, x = np.mgrid[:height, :width]
    base = np.stack([x % 256, y % 256, (x // 16 + y // 16 + seed) % 2 * 200], -1).astype(np.uint8)
    base[: height // 3, : width // 3] = np.random.default_rng(seed).integers(0, 256, (height // 3, width // 3, 3))
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = width, height, "yuv420p", GOP
        stream.options = {"preset": "veryfast"}
        for number in range(seconds * RATE):
            picture = np.ascontiguousarray(np.roll(base, 2 * number, axis=1))
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode())
    return path
