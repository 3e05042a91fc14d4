"""Display matrices: turned and mirrored clips, and angles that are refused."""

from __future__ import annotations

import contextlib
import importlib.util
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hound_plugin.errors import MediaDecodeError
from hound_plugin.media.decode import probe, read_clip

from .clips import play
from .zoo import write

Shown = Callable[[np.ndarray], np.ndarray]
RIGHT: dict[str, tuple[tuple[float, ...], Shown]] = {
    "mirrored": ((-1, 0, 0, 1), lambda frame: frame[:, ::-1]),  # a front camera
    "upside down": ((1, 0, 0, -1), lambda frame: frame[::-1]),
    "turned by 180": ((-1, 0, 0, -1), lambda frame: frame[::-1, ::-1]),
    "turned by 90": ((0, 1, -1, 0), lambda frame: np.rot90(frame, 3)),
    "turned by 270": ((0, -1, 1, 0), lambda frame: np.rot90(frame)),
    "turned and mirrored": ((0, 1, 1, 0), lambda frame: frame.transpose(1, 0, 2)),
    "turned back and mirrored": ((0, -1, -1, 0), lambda frame: frame.transpose(1, 0, 2)[::-1, ::-1]),
    "of zeros": ((0, 0, 0, 0), lambda frame: frame),
    "nearly turned": ((0.004, 1, -1, 0.004), lambda frame: np.rot90(frame, 3)),
    "stretched": ((2, 0, 0, 1), lambda frame: frame),  # pixels are used as stored, whatever their shape
}
WRONG = {
    "at 10 degrees": (0.985, 0.174, -0.174, 0.985),
    "at 45 degrees": (0.7, 0.7, -0.7, 0.7),
    "sheared": (1, 1, 0, 1),
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[np.ndarray]]:
    """A clip, and its frames as stored."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write(path, frames=8)
    return path, play(path)


def tagged(source: Path, target: Path, linear: tuple[float, ...]) -> Path:
    """A copy with another display matrix in its track header."""
    data = bytearray(source.read_bytes())
    at = data.find(b"tkhd") + 4 + 40
    a, b, c, d = (round(value * (1 << 16)) for value in linear)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    target.write_bytes(data)
    return target


@pytest.mark.parametrize("name", RIGHT)
def test_a_clip_is_shown_as_its_matrix_says(clip: tuple[Path, list[np.ndarray]], name: str, tmp_path: Path) -> None:
    source, stored = clip
    linear, shown = RIGHT[name]
    path = tagged(source, tmp_path / "clip.mp4", linear)
    for video in (path, path.read_bytes()):
        frames = read_clip(video, num_frames=3).frames
        assert np.array_equal(frames, [shown(stored[number]) for number in (0, 3, 7)])
        assert frames.flags.c_contiguous
    if importlib.util.find_spec("decord"):
        with contextlib.suppress(MediaDecodeError):
            assert np.array_equal(read_clip(path, num_frames=3, decoder="decord").frames, frames)
        if name in ("mirrored", "upside down", "turned and mirrored", "turned back and mirrored"):
            with pytest.raises(MediaDecodeError, match="are to be mirrored"):
                probe(path, decoder="decord")


@pytest.mark.parametrize("name", WRONG)
def test_other_angles_are_refused(clip: tuple[Path, list[np.ndarray]], name: str, tmp_path: Path) -> None:
    path = tagged(clip[0], tmp_path / "clip.mp4", WRONG[name])
    with pytest.raises(MediaDecodeError, match=r"clip\.mp4 upright: expected .* another angle") as caught:
        read_clip(path)
    assert caught.value.path == str(path)
