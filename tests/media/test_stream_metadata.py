"""What H.264 and HEVC say of their own pictures: columns and rows to crop away, and how to turn what is left."""

from __future__ import annotations

import contextlib
import importlib.util
from pathlib import Path

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext

from hound_plugin.errors import MediaDecodeError
from hound_plugin.media.decode import read_clip

from .clips import encode, play

CODECS = {"h264": "libx264", "hevc": "libx265"}
FRAMES = 40
TURNS = {90: 1, 180: 2, 270: 3}  # degrees anticlockwise -> times of np.rot90


def state(source: Path, target: Path, said: str, container: str | None = None) -> Path:
    """A copy of the packets whose headers say more, by FFmpeg's filter for them."""
    with av.open(str(source)) as old, av.open(str(target), "w", format=container) as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        filters = BitStreamFilterContext(f"{stream.codec_context.name}_metadata={said}", stream, copy)
        for packet in [*(packet for packet in old.demux(stream) if packet.size), None]:
            for filtered in filters.filter(packet):
                filtered.stream = copy
                new.mux(filtered)
    return target


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize(
    ("said", "left", "right", "top"),
    [("crop_left=4", 4, 0, 0), ("crop_left=18:crop_right=6", 18, 6, 0), ("crop_left=2:crop_top=6", 2, 0, 6)],
)
@pytest.mark.parametrize("codec", CODECS)
def test_cropped_columns_are_not_shown(
    codec: str, said: str, left: int, right: int, top: int, suffix: str, tmp_path: Path
) -> None:
    """Without FFmpeg's flag `unaligned`, columns on the left are only cropped by multiples of 32."""
    encode(str(tmp_path / "whole.mp4"), FRAMES, codec=CODECS[codec])
    whole = play(tmp_path / "whole.mp4")
    path = state(tmp_path / "whole.mp4", tmp_path / f"cropped.{suffix}", said)
    clip = read_clip(path, num_frames=FRAMES)
    height, width = whole[0].shape[:2]
    assert clip.frames.shape == (FRAMES, height - top, width - left - right, 3)
    assert np.array_equal(clip.frames, [frame[top:, left : width - right] for frame in whole])
    if importlib.util.find_spec("decord"):
        with contextlib.suppress(MediaDecodeError):
            assert np.array_equal(read_clip(path, num_frames=FRAMES, decoder="decord").frames, clip.frames)


@pytest.mark.parametrize("degrees", TURNS)
def test_a_turn_that_the_stream_states_once_holds_for_all_that_follows(degrees: int, tmp_path: Path) -> None:
    """`h264_metadata=rotate=180` turns a file without encoding it: only its first picture says so."""
    encode(str(tmp_path / "clip.mp4"), FRAMES)
    stored = play(tmp_path / "clip.mp4")
    for suffix in ("mp4", "mkv", "ts"):
        said = f"display_orientation=insert:rotate={degrees}"
        path = state(tmp_path / "clip.mp4", tmp_path / f"turned.{suffix}", said)
        for video in (path, f"{path}#t=1.0,1.4"):
            clip = read_clip(video, num_frames=5)
            expected = [np.rot90(stored[number], TURNS[degrees]) for number in clip.indices]
            assert np.array_equal(clip.frames, expected)
        if importlib.util.find_spec("decord"):
            with pytest.raises(MediaDecodeError, match=r"can only be numbered by decoding|turned outside of MP4"):
                read_clip(path, num_frames=5, decoder="decord")


def test_a_turn_in_the_middle_holds_from_there(tmp_path: Path) -> None:
    encode(str(tmp_path / "clip.mp4"), FRAMES)
    stored = play(tmp_path / "clip.mp4")
    first = state(tmp_path / "clip.mp4", tmp_path / "first.ts", "level=4")
    second = state(tmp_path / "clip.mp4", tmp_path / "second.ts", "display_orientation=insert:rotate=180")
    (tmp_path / "both.ts").write_bytes(first.read_bytes() + second.read_bytes())
    frames = read_clip(tmp_path / "both.ts", num_frames=2 * FRAMES).frames
    assert np.array_equal(frames, [*stored, *(frame[::-1, ::-1] for frame in stored)])
