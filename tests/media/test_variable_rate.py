"""`frame_sampling: fps` against FFmpeg's own `fps` filter, for constant and variable rates."""

from __future__ import annotations

import contextlib
from pathlib import Path

import av
import av.filter
import numpy as np
import pytest

from hound_plugin.media.decode import read_clip

from .clips import play
from .zoo import write

TIMES = {
    "slow": [0, 40, 80, 2000, 2040, 6000, 6500, 6540],
    "burst": [*range(0, 400, 20), *range(400, 5400, 500)],
    "long pause": [*range(0, 1000, 100), *range(9000, 10000, 100)],
    "even": list(range(0, 2400, 100)),
}


def filtered(path: Path, rate: int) -> list[np.ndarray]:
    """What FFmpeg's filter makes of a clip."""
    pictures = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        graph = av.filter.Graph()
        graph.link_nodes(graph.add_buffer(template=stream), graph.add("fps", str(rate)), graph.add("buffersink"))
        graph.configure()
        for frame in [*container.decode(stream), None]:
            graph.push(frame)
            with contextlib.suppress(av.error.BlockingIOError, av.error.EOFError):
                while True:
                    pictures.append(graph.pull().to_ndarray(format="rgb24"))
    return pictures


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_frames_are_those_of_the_filter(name: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"clip.{suffix}"
    write(path, frames=len(TIMES[name]), times_ms=TIMES[name])
    played, pictures = play(path), filtered(path, 2)
    numbers = [next(i for i, frame in enumerate(played) if np.array_equal(frame, picture)) for picture in pictures]
    assert len(numbers) > 3
    for count in (len(numbers), 8, 3):
        expected = [numbers[i] for i in np.linspace(0, len(numbers) - 1, count, dtype=int)]
        assert read_clip(path, num_frames=count, sampling="fps").indices == expected
