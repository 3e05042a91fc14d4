"""Times of frames where packets state none, or one of decoding alone: parts, rates and ``frame_sampling: fps``."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext

from hound_plugin.media.container import build_index
from hound_plugin.media.decode import read_clip
from hound_plugin.media.frame_times import Stamp, ascending

from .zoo import write

PLAIN = {"frames": 60, "gop": 12, "bframes": 2}


def copied(source: Path, target: Path, muxer: str | None = None) -> Path:
    """The packets in another container, as ``ffmpeg -i SOURCE -c copy TARGET`` writes them."""
    with av.open(str(source)) as old, av.open(str(target), "w", format=muxer) as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        copy.time_base, first = Fraction(1, 600), None  # the clock that the command gives to AVI files
        annexb = BitStreamFilterContext("h264_mp4toannexb", stream)
        for packet in (packet for read in old.demux(stream) for packet in annexb.filter(read if read.size else None)):
            if packet.size:
                first = packet.dts if first is None else first  # below 0 in MP4, which AVI does not take
                packet.pts, packet.dts = packet.pts - first, packet.dts - first
                packet.stream = copy
                new.mux(packet)
    return target


@pytest.mark.parametrize("rate", [10, 24, Fraction(30000, 1001)])
@pytest.mark.parametrize("kind", ["copied.avi", "copied.wmv", "written.avi", "raw.h264", "raw.hevc"])
def test_frames_are_where_their_times_are(kind: str, rate: int | Fraction, tmp_path: Path) -> None:
    first, path = tmp_path / "first.mp4", tmp_path / kind
    write(first, rate=rate, **PLAIN)
    if kind.startswith("copied"):
        copied(first, path, "asf" if kind.endswith("wmv") else None)
    elif kind == "written.avi":
        write(path, rate=rate, **PLAIN)
    else:
        options = {"codec": "libx265", "x265-params": "log-level=none:pools=1"} if kind == "raw.hevc" else {}
        write(path, rate=rate, muxer=path.suffix[1:], **PLAIN, **options)
    index = build_index(str(path))
    wanted = [number / float(rate) for number in range(60)]
    assert index.total == 60
    assert np.abs(np.array(index.seconds) - wanted).max() < 0.002  # ASF counts milliseconds
    assert index.fps == pytest.approx(float(rate), rel=2e-3)
    begin, end = 20.5 / float(rate), 40.5 / float(rate)
    assert read_clip(f"{path}#t={begin:.4f},{end:.4f}", num_frames=20).indices == list(range(21, 41))
    for sampling in ("fps", "first_10s", "uniform"):
        expected = read_clip(first, num_frames=5, sampling=sampling).indices
        assert read_clip(path, num_frames=5, sampling=sampling).indices == expected, sampling


class _Open:
    """A container of which only the flags of its format are looked at."""

    def __init__(self, flags: int = 0) -> None:
        self.format = type("Format", (), {"flags": flags})


def test_the_times_that_are_taken() -> None:
    pts = [Stamp(3, 9, 1), Stamp(5, None, 1)]
    assert ascending(pts, _Open()) == [3, 5]
    assert ascending(pts, _Open(0x80)) == [0, 1]  # of a raw stream they are a guess
    jumping = [Stamp(0, 4, 0), Stamp(4, 6, 0), Stamp(2, 8, 0), Stamp(6, None, 0), Stamp(5, None, 0)]
    assert ascending(jumping, _Open()) == [4, 6, 8, 10, 12]
    assert ascending([Stamp(1, None, 2), Stamp(0, 3, 2), Stamp(4, None, 3)], _Open()) == [0, 2, 4]
    assert ascending([Stamp(1, None, 0), Stamp(0, 3, 2)], _Open()) is None
    assert ascending([], _Open()) == []
