"""Clips that lost packets before they were written show what a player shows, or are refused; whole ones stay quick."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from hound_plugin.errors import MediaDecodeError
from hound_plugin.media.container import index_by_headers
from hound_plugin.media.decode import read_clip
from hound_plugin.media.nal_units import FrameNumbers, ReferenceSets

from .clips import lose_packets, play
from .zoo import FRAMES, make, write


def hevc(options: str) -> dict[str, Any]:
    return {"codec": "libx265", "x265-params": f"log-level=none:pools=1:keyint=8:{options}"}


MPEG: dict[str, Any] = {"rate": 25, "bframes": 2}
CLIPS: dict[str, dict[str, Any]] = {
    "h264_b.mp4": {"bframes": 3},
    "h264_no_b.mkv": {},
    "h264_pyramid.mkv": {"bframes": 3, "x264-params": "b-pyramid=normal:ref=4:open-gop=1:keyint=8"},
    "h264_444.mov": {"pixels": "yuv444p", "bframes": 2},
    "h264_scaling.mp4": {"bframes": 2, "x264-params": "cqm=jvt:keyint=8"},
    "h264_fields.mp4": {"x264-params": "interlaced=1:keyint=8"},
    "h264_refresh.mp4": {"x264-params": "intra-refresh=1:keyint=10"},
    "hevc.mkv": hevc("bframes=4:b-pyramid=1"),
    "hevc_closed.mp4": hevc("bframes=2:open-gop=0:ref=1"),
    "hevc_low_delay.mp4": hevc("bframes=0"),
    "mpeg4.mov": {"codec": "mpeg4", "bframes": 1},
    "mpeg4.mkv": {"codec": "mpeg4", "bframes": 2},
    "mpeg2.mp4": {"codec": "mpeg2video", **MPEG},
    "mpeg1.mkv": {"codec": "mpeg1video", **MPEG},
    "vp8.mkv": {"codec": "libvpx", "auto-alt-ref": "1", "lag-in-frames": "12", "b": "60k"},
    "vp9.mp4": {"codec": "libvpx-vp9", "lag-in-frames": "12", "b": "60k"},
    "h263.mov": {"codec": "h263", "size": (176, 144), "rate": 25},
    "svq1.mov": {"codec": "svq1", "pixels": "yuv410p"},
    "msmpeg4.avi": {"codec": "msmpeg4"},
}
_rng = random.Random(7)
LOSSES = [
    {1},
    {5},
    {13},
    {16},
    {FRAMES - 2},
    {FRAMES - 1},
    {4, 5},
    *(set(_rng.sample(range(1, FRAMES), 3)) for _ in "ab"),
]


@pytest.mark.parametrize("name", CLIPS)
def test_a_clip_that_lost_packets_shows_what_a_player_shows(name: str, tmp_path: Path) -> None:
    whole, path = tmp_path / name, tmp_path / f"lossy_{name}"
    write(whole, **CLIPS[name])
    assert np.array_equal(read_clip(whole, num_frames=FRAMES).frames, play(whole))
    for lost in LOSSES:
        for close_gaps in (False, True):
            lose_packets(whole, path, lost, close_gaps)
            shown = play(path)
            for count in (2, 3, 8):
                clip = read_clip(path, num_frames=count)
                case = f"{sorted(lost)} lost, gaps closed: {close_gaps}, {count} frames"
                assert clip.total_frames == len(shown), case
                assert np.array_equal(clip.frames, [shown[number] for number in clip.indices]), case


def test_ffv1_that_lost_packets_is_refused(tmp_path: Path) -> None:
    """What FFmpeg makes of the pictures after a lost one differs from run to run."""
    whole, path = tmp_path / "whole.mkv", tmp_path / "lossy.mkv"
    for lost in ({2}, {8}, {FRAMES - 3}):
        write(whole, codec="ffv1")
        lose_packets(whole, path, lost)
        with pytest.raises(MediaDecodeError, match=r"timestamps have gaps.*`-g 1`"):
            read_clip(path)
        write(whole, codec="ffv1", gop=1)  # no picture depends on another one
        lose_packets(whole, path, lost)
        clip = read_clip(path, num_frames=FRAMES)
        assert clip.total_frames == FRAMES - 1
        assert np.array_equal(clip.frames, [play(path)[number] for number in clip.indices])


WHOLE = [
    "h264.mp4", "h264_b.mp4", "h264_b.mkv", "h264_mono.mov", "h264_fragments.mp4", "h264_open.mkv", "h264_open.mp4",
    "h264_refresh.mp4", "h264_10_bit.mkv", "h264_444_odd_size.mp4", "h264_rgb.mkv", "h264_variable.mp4",
    "h264_variable.mkv", "h264_late.mp4", "h264_one.mkv", "hevc.mp4", "hevc_10_bit.mp4", "hevc_open.mkv", "av1.mp4",
    "vp8.webm", "vp9.webm", "mpeg2.mkv", "mpeg4_b.mp4", "svq1.mov", "mjpeg_422.mov", "ffv1.mkv", "cut_open.mkv",
]  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_clip_is_numbered_without_decoding(name: str, tmp_path: Path) -> None:
    index = index_by_headers(str(make(name, tmp_path)))
    assert index is not None
    assert index.total == len(index.pts or [])


@pytest.mark.parametrize("options", ["b-pyramid=none:bframes=1", "bframes=8:ref=4:weightb=1", "scaling-list=default"])
def test_a_whole_hevc_clip_of_a_varying_rate_is_numbered_without_decoding(options: str, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write(path, times_ms=[40 * n + 2000 * (n > 9) for n in range(FRAMES)], **hevc(options))
    assert index_by_headers(str(path)) is not None


@pytest.mark.parametrize(("name", "reader"), [("h264_444.mov", FrameNumbers), ("hevc.mkv", ReferenceSets)])
def test_damaged_headers_end_in_an_answer(
    name: str, reader: type[FrameNumbers | ReferenceSets], tmp_path: Path
) -> None:
    write(tmp_path / name, **CLIPS[name])
    with av.open(str(tmp_path / name)) as container:
        header = container.streams.video[0].codec_context.extradata or b""
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    rng = random.Random(3)

    def damaged(content: bytes) -> bytes:
        data = bytearray(content)
        for _ in range(rng.randint(0, 4)):
            data[rng.randrange(min(len(data), 80))] = rng.randrange(256)
        return bytes(data[: rng.randint(0, len(data))] if rng.random() < 0.3 else data)

    answers = set()
    for _ in range(300):
        pictures = reader(damaged(header))
        for packet in packets:
            pictures.see(memoryview(damaged(packet)), 0)
        answers.add(pictures.any())
    assert True in answers
