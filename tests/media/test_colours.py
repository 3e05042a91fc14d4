"""Colours: the matrix and the range that a file states, by the formula of ISO/IEC 23091-2 (8.1 and 8.3)."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from hound_plugin.media.decode import read_clip

MATRICES = {"bt709": (1, 0.2126, 0.0722), "bt470bg": (5, 0.299, 0.114), "smpte240m": (7, 0.212, 0.087)}
MATRICES |= {"bt2020": (9, 0.2627, 0.0593), "fcc": (4, 0.3, 0.11), "unstated": (2, 0.299, 0.114)}
RANGES = {"limited": 1, "full": 2}


def patches(bits: int) -> np.ndarray:
    """Values of Y, U and V on a grid of 16 x 16 patches of 8 x 8 pixels, ``[3, H, W]``."""
    luma, chroma = np.meshgrid(np.linspace(70, 180, 16), np.linspace(-40, 40, 16))
    grid = np.stack([luma, 128 + chroma, 128 - chroma[:, ::-1] * 0.7]).round()
    return np.kron(grid, np.ones((1, 8, 8))).astype(np.uint16) << (bits - 8)


def formula(values: np.ndarray, bits: int, red: float, blue: float, is_full: bool) -> np.ndarray:
    """RGB of 8 bits, ``[H, W, 3]``."""
    scale = 2 ** (bits - 8)
    luma, chroma = (255.0, 255.0) if is_full else (219.0, 224.0)
    top = (2**bits - 1) / (255 * scale) if is_full else 1.0  # the full range of 10 bits ends at 1023, not at 1020
    y = (values[0] / scale - (0 if is_full else 16)) / (luma * top)
    u, v = ((plane / scale - 128) / (chroma * top) for plane in values[1:])
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    return np.clip(255 * np.stack([r, (y - red * r - blue * b) / (1 - red - blue), b], -1), 0, 255)


def write(
    path: Path, codec: str, pixels: str, values: np.ndarray, matrix: int, colour_range: int, **options: str
) -> None:
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=10)
        stream.height, stream.width = values.shape[1:]
        stream.pix_fmt = pixels
        stream.options = options
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, colour_range
        for number in range(4):
            frame = av.VideoFrame(values.shape[2], values.shape[1], pixels)
            for plane, value in zip(frame.planes, values, strict=True):
                sample = value[:: value.shape[0] // plane.height, :: value.shape[1] // plane.width]
                width = plane.line_size // (2 if "10" in pixels else 1)
                rows = np.zeros((plane.height, width), np.uint16 if "10" in pixels else np.uint8)
                rows[:, : plane.width] = sample
                plane.update(rows.tobytes())
            frame.pts, frame.colorspace, frame.color_range = number, matrix, colour_range
            output.mux(stream.encode(frame))
        output.mux(stream.encode())


@pytest.mark.parametrize("extent", RANGES)
@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize(
    ("name", "codec", "pixels", "options"),
    [
        ("clip.mkv", "ffv1", "yuv444p", {}),
        ("10_bit.mkv", "ffv1", "yuv420p10le", {}),
        ("clip.mp4", "libx264", "yuv420p", {"qp": "0"}),
        ("clip.webm", "libvpx-vp9", "yuv420p", {"lossless": "1"}),
    ],
)
def test_colours_are_those_that_the_file_states(
    name: str, codec: str, pixels: str, options: dict[str, str], matrix: str, extent: str, tmp_path: Path
) -> None:
    path, bits, (number, red, blue) = tmp_path / name, 10 if "10" in pixels else 8, MATRICES[matrix]
    if codec == "libvpx-vp9" and matrix == "fcc":
        pytest.skip("VP9 has no number for it")
    write(path, codec, pixels, patches(bits), number, RANGES[extent], **options)
    frames = read_clip(path, num_frames=2).frames
    difference = np.abs(frames - formula(patches(bits), bits, red, blue, extent == "full"))
    # swscale rounds: to tables, and more with 10 bits; by another matrix or range the largest difference is 8 to 40
    assert difference.max() < (4 if bits == 8 else 6), (difference.max(), difference.mean())
    if name in ("clip.mp4", "clip.webm"):
        assert np.array_equal(read_clip(path, num_frames=2, decoder="decord").frames, frames)
