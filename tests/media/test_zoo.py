"""Every file of the zoo: FFmpeg's own frames, and other decoders only where they give the same ones."""

from __future__ import annotations

import importlib.util
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from hound_plugin.errors import MediaDecodeError
from hound_plugin.media.decode import probe, read_clip

from .zoo import FRAMES, ZOO, make


def played(path: Path) -> list[np.ndarray]:
    """What FFmpeg presents: decoded from beginning to end, upright; the first stream of several."""
    with av.open(str(path)) as container:
        frames = [(frame.rotation, scaled(frame)) for frame in container.decode(video=0)]
    return [np.rot90(frame, round(rotation / 90)) for rotation, frame in frames]


def scaled(frame: av.VideoFrame) -> np.ndarray:
    """A frame as RGB by FFmpeg's filter, which knows of matrices and ranges."""
    graph = av.filter.Graph()
    rate = Fraction(1, 25)
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=rate)
    nodes = source, graph.add("scale", "flags=bilinear"), graph.add("format", "pix_fmts=rgb24"), graph.add("buffersink")
    graph.link_nodes(*nodes).configure()
    graph.push(frame)
    return graph.pull().to_ndarray()


@pytest.fixture(params=ZOO)
def animal(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, list[np.ndarray]]:
    """A file, and what is in it."""
    path = make(request.param, tmp_path)
    frames = played(path)
    assert len(frames) == FRAMES or request.param not in ("h264.mp4", "mpeg2.ts", "vp8.webm"), "it is made otherwise"
    return path, frames


def test_every_decoder_gives_the_frames_of_ffmpeg_or_refuses(animal: tuple[Path, list[np.ndarray]]) -> None:
    path, expected = animal
    probe(path)
    for video, count in ((path, len(expected)), (path, 5), (path.read_bytes(), 3)):
        clip = read_clip(video, num_frames=count)
        assert clip.total_frames == len(expected)
        wrong = [i for i, a in zip(clip.indices, clip.frames, strict=True) if not np.array_equal(a, expected[i])]
        assert not wrong, f"frames {wrong} of {len(expected)} differ"
    if importlib.util.find_spec("decord"):
        refusal = None
        try:
            clip = read_clip(path, num_frames=len(expected), decoder="decord")
        except MediaDecodeError as error:
            refusal = str(error)
        if refusal is None:
            assert clip.decoder == "decord"
            assert np.array_equal(clip.frames, expected)
        else:
            assert refusal.startswith(f"`decoder: decord` does not return the exact frames of {path}: ")
            assert "Set `decoder: auto`" in refusal


def test_making_a_clip_leaves_the_scheduling_of_the_process_alone(tmp_path: Path) -> None:
    before = os.sched_getscheduler(0), os.sched_getparam(0).sched_priority
    make("av1.mp4", tmp_path)
    assert (os.sched_getscheduler(0), os.sched_getparam(0).sched_priority) == before
