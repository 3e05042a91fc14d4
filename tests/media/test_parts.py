"""Parts of clips, against every frame and its time by plain playing."""

from __future__ import annotations

import bisect
import importlib.util
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from hound_plugin.errors import EmptyMediaError, MediaDecodeError, MediaError, MediaNotFoundError
from hound_plugin.media import worker
from hound_plugin.media.container import build_index
from hound_plugin.media.decode import DECODERS, probe, read_clip
from hound_plugin.media.frame_cache import FrameCache
from hound_plugin.media.frame_sampling import POLICIES, sample_indices
from hound_plugin.media.pixel_cache import PixelCache
from hound_plugin.records.media_paths import with_part

from .clips import play
from .conftest import DECORD, READABLE

INSTALLED = [name for name in DECODERS if name in ("auto", "pyav") or importlib.util.find_spec(name)]


def times(path: Path) -> list[float]:
    """Seconds of every frame after the first, as the container has them."""
    with av.open(str(path)) as container:
        stamps = [frame.pts * frame.time_base for frame in container.decode(video=0)]
    return [float(stamp - stamps[0]) for stamp in stamps]


@pytest.mark.parametrize("name", READABLE)
@pytest.mark.parametrize("decoder", INSTALLED)
def test_a_part_is_the_frames_that_are_presented_in_it(clips, name: str, decoder: str) -> None:
    if decoder == "decord" and name not in DECORD:
        pytest.skip("refused for the whole file: test_decode.py")
    played, when = play(clips[name]), times(clips[name])
    middle = when[len(when) // 3]
    for start, end in ((None, middle), (middle, None), (middle / 2, when[-1] * 0.8), (when[-1], when[-1] + 60)):
        first = bisect.bisect_left(when, start or 0)
        after = len(when) if end is None else bisect.bisect_left(when, end)
        for sampling in POLICIES:
            part = with_part(str(clips[name]), start, end)
            clip = read_clip(part, num_frames=3, sampling=sampling, decoder=decoder)
            ends = [*when[first:after], when[after] if after < len(when) else when[-1] + 1 / 25]
            seconds = [second - when[first] for second in ends]
            expected = [first + i for i in sample_indices(sampling, after - first, 3, clip.fps, times=seconds)]
            assert (clip.indices, clip.total_frames, clip.source) == (expected, len(played), part)
            assert np.array_equal(clip.frames, [played[i] for i in expected])


def test_limits_are_exact(clips) -> None:
    """25 frames per second: frame 13 is presented at 0.52 s, which no binary fraction is."""

    def indices(part: str) -> list[int]:
        return sorted(set(read_clip(f"{clips['plain']}{part}", num_frames=60).indices))

    assert indices("#t=0.52,0.6") == [13, 14]
    assert indices("#t=0.5200001,0.6000001") == [14, 15]
    assert indices("#t=0,0.04") == [0]
    assert indices("#t=2.36,99") == [59]
    assert indices("#t=,2.36") == list(range(59))
    assert build_index(str(clips["plain"])).seconds == [float(f"{number * 0.04:.2f}") for number in range(60)]


def test_time_stamps_decide_and_not_the_average_rate(clips) -> None:
    """The first 30 frames of this clip are 20 ms long, the others 55 ms and 200 ms."""
    assert read_clip(f"{clips['vfr']}#t=0.2,0.3", num_frames=5).indices == [10, 11, 12, 13, 14]
    when = times(clips["vfr"])
    long = next(i for i in range(30, 59) if when[i + 1] - when[i] > 0.15)
    gap = with_part(str(clips["vfr"]), when[long] + 0.01, when[long + 1] - 0.01)
    for look in (read_clip, probe):
        with pytest.raises(EmptyMediaError, match=r"no frame from .* the clip has 60 frame\(s\) in 2\.\d+ s"):
            look(gap)


def test_a_clip_that_begins_late_counts_from_its_first_frame(clips) -> None:
    with av.open(str(clips["broadcast"])) as container:
        assert next(container.decode(video=0)).time > 0
    assert read_clip(f"{clips['broadcast']}#t=,0.2", num_frames=5).indices == [0, 1, 2, 3, 4]


def test_first_10s_counts_from_the_start_of_the_part(tmp_path: Path) -> None:
    from .clips import encode

    path = tmp_path / "slow.mp4"
    encode(str(path), frames=40, times_ms=[500 * number for number in range(40)])
    clip = read_clip(f"{path}#t=4", num_frames=2, sampling="first_10s")
    assert clip.indices == [8, 8 + int(clip.fps * 10) - 1]
    assert clip.fps == pytest.approx(2, rel=0.1)


def test_behind_the_end(clips) -> None:
    for look in (read_clip, probe):
        with pytest.raises(EmptyMediaError, match=r"no frame from 2\.4 s on in .*plain\.mp4: .* in 2\.400 s, the last"):
            look(f"{clips['plain']}#t=2.4")
    with pytest.raises(EmptyMediaError, match=r"from 100 s to 101 s") as caught:
        read_clip(f"{clips['mpeg4']}#t=100,101", timeout=60)
    assert caught.value.path == str(clips["mpeg4"])


def test_the_child_reads_the_same_part(clips) -> None:
    part = f"{clips['open_gop']}#t=0.7,1.3"
    here, there = read_clip(part), read_clip(part, timeout=60)
    worker._stop()
    assert np.array_equal(here.frames, there.frames)
    assert (here.indices, here.source) == (there.indices, there.source)


def test_a_name_that_looks_like_a_part(clips, tmp_path: Path) -> None:
    odd = tmp_path / "a.mp4#t=0,0.1"
    odd.write_bytes(clips["short"].read_bytes())
    assert read_clip(odd).total_frames == 3
    assert read_clip(f"{odd}#t=0.04", num_frames=2).indices == [1, 2]
    odd.rename(tmp_path / "a.mp4")
    assert set(read_clip(odd).indices) == {0, 1, 2}
    (tmp_path / "a.mp4").unlink()
    with pytest.raises(MediaNotFoundError, match=r"No video at .*a\.mp4\. Expected|No video at .*a\.mp4:"):
        read_clip(odd)


def test_what_has_no_clock(clips, tmp_path: Path) -> None:
    for number in (1, 2):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}.png")
    for video, what in (
        (f"{tmp_path}#t=1,2", "a folder of frames"),
        ([f"{tmp_path}/1.png#t=0", f"{tmp_path}/2.png"], "a list of frames"),
        (f"{tmp_path}/1.png#t=0,1", "an image"),
    ):
        for look in (read_clip, probe):
            with pytest.raises(MediaDecodeError, match=f"{what} has no timestamps"):
                look(video)
    with pytest.raises(MediaError, match="START < END"):
        read_clip(f"{clips['plain']}#t=2,1")


def test_caches_tell_part_and_whole_apart(clips, tmp_path: Path) -> None:
    cache, memory = FrameCache(tmp_path), PixelCache()
    names = [f"{clips['plain']}{part}" for part in ("", "#t=1", "#t=1,2", "#t=,1")]
    assert len({cache.key_for(name) for name in names} - {None}) == 4
    assert cache.key_for(names[1]) == cache.key_for(f"{names[0]}#t=1.000")
    for _ in range(2):
        for name in names:
            kept = memory.get_or_compute(name, "settings", lambda path: read_clip(path, num_frames=2).frames)
            assert np.array_equal(kept, read_clip(name, num_frames=2).frames)
    assert (memory.misses, memory.hits) == (4, 4)
