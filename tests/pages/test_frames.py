"""The frames next to an answer are those that the model's own reading of the clip gives."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hound_plugin.media.decode import read_clip
from hound_plugin.media.jpeg_frames import jpeg_frames
from hound_plugin.pages.frames import NO_CLIP, FrameReader, read_many
from tests.media.clips import encode, picture


def opened(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "wide.mp4"
    encode(str(path), 20, 128, 64)
    return path


def test_the_first_seconds_of_a_longer_clip(tmp_path: Path) -> None:
    clip = str(tmp_path / "long.mp4")
    encode(clip, 300, 32, 32)
    labels = [[frame.label for frame in FrameReader(4, sampling)(clip).frames] for sampling in ("uniform", "first_10s")]
    assert (labels[0][-1], labels[1][-1]) == ("frame 300", "frame 250")


@pytest.mark.parametrize(("number", "sampling"), [(8, "uniform"), (4, "uniform"), (8, "first_10s")])
def test_the_frames_are_those_that_are_read(clip: Path, number: int, sampling: str) -> None:
    strip = FrameReader(number, sampling, size=128)(str(clip))  # type: ignore[arg-type]
    read = read_clip(str(clip), num_frames=number, sampling=sampling)  # type: ignore[arg-type]
    assert len(strip.frames) == number
    for frame, pixels, index in zip(strip.frames, read.frames, read.indices, strict=True):
        assert np.abs(opened(frame.data) - pixels.astype(int)).mean() < 12, "up to the compression"
        assert frame.label == f"frame {index + 1}"


def test_what_the_tower_does_not_see_is_dark(clip: Path) -> None:
    plain, dimmed = (jpeg_frames(str(clip), 2, 128, dims_border=dims).pictures[1] for dims in (False, True))
    before, after = opened(plain), opened(dimmed)
    assert np.abs(before[:, 34:94] - after[:, 34:94]).mean() < 8
    assert after[:, :30].mean() < 0.4 * before[:, :30].mean()
    assert after[:, 98:].mean() < 0.4 * before[:, 98:].mean()
    whole, cut = (opened(FrameReader(2, size=128, crops=crops)(str(clip)).frames[1].data) for crops in (False, True))
    assert cut[:, :30].mean() < 0.4 * whole[:, :30].mean()


def test_an_image_is_one_frame_without_a_border(tmp_path: Path) -> None:
    Image.fromarray(picture(3, 64, 32)).save(tmp_path / "a.png")
    strip = FrameReader(crops=True)(str(tmp_path / "a.png"))
    (frame,) = strip.frames
    assert frame.label == ""
    assert np.abs(opened(frame.data) - picture(3, 64, 32).astype(int)).mean() < 16


def test_a_bad_clip_is_a_note(tmp_path: Path, clip: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"clip")
    reader = FrameReader(2)
    strips = read_many(
        {"bad": str(tmp_path / "bad.mp4"), "none": None, "gone": "/no/such.mp4", "ok": str(clip)}, reader
    )
    assert strips["bad"].frames == strips["gone"].frames == ()
    assert "cannot be shown" in strips["bad"].note
    assert "/no/such.mp4" in strips["gone"].note
    assert strips["none"].note == NO_CLIP
    assert len(strips["ok"].frames) == 2


def test_the_legend_says_what_is_shown() -> None:
    assert FrameReader().legend == "8 frames of each clip, spread evenly over the clip, as the model saw them."
    assert "cut off" in FrameReader(crops=True).legend
    assert "as the model saw them" not in FrameReader(caution="Which ones it saw is unknown.").legend
