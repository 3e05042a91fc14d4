from __future__ import annotations

import bisect
import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hound_plugin.errors import EmptyMediaError, SettingsError
from hound_plugin.media.frame_sampling import POLICIES, sample_indices

from .clips import play

GOLDEN = Path(__file__).parents[1] / "golden"
TABLES = json.loads((GOLDEN / "golden" / "j_sampling_tables.json").read_text())
LENGTHS = [int(length) for length in TABLES["frames"] if length != "0"]


@pytest.mark.parametrize("length", LENGTHS)
def test_uniform_is_the_originals_rule_for_frames(length: int) -> None:
    assert sample_indices("uniform", length) == TABLES["frames"][str(length)]


@pytest.mark.parametrize("row", TABLES["decord"], ids=lambda row: f"{row['n']}@{row['fps']:.5g}")
def test_first_10s_is_the_originals_rule_for_decord(row: dict) -> None:
    expected = row["indices"]
    if row["fps"] < 0.1:  # the original asked for frame -1
        assert min(expected) < 0
        expected = [0] * 8
    assert sample_indices("first_10s", row["n"], fps=row["fps"]) == expected


@pytest.mark.parametrize(("clip", "fps"), [("clip_long", 25.0), ("clip_portrait", 30.0), ("clip_short", 10.0)])
def test_fps_lists_the_frames_that_ffmpeg_extracted(clip: str, fps: float) -> None:
    """The recorded folders are FFmpeg's own list at 2 per second: each file must show the frame that we name."""
    frames = play(GOLDEN / "media" / f"{clip}.mp4")
    size = (frames[0].shape[1], frames[0].shape[0])
    shown = []
    for path in sorted((GOLDEN / "frames" / clip).iterdir()):
        extracted = np.asarray(Image.open(path).convert("RGB").resize(size, Image.Resampling.BICUBIC), dtype=int)
        shown.append(int(np.argmin([np.abs(extracted - frame).mean() for frame in frames])))
    assert sample_indices("fps", len(frames), num_frames=len(shown), fps=fps) == shown


def test_fps_takes_its_frames_from_the_list() -> None:
    listed = sample_indices("fps", 310, num_frames=25, fps=25.0)
    assert sample_indices("fps", 310, fps=25.0) == [listed[i] for i in sample_indices("uniform", 25)]
    assert sample_indices("fps", 100, num_frames=4, fps=1.0) == [0, 33, 66, 99]  # listed at twice its own rate
    assert sample_indices("fps", 40, num_frames=4, fps=20.0, target_fps=1.0) == [9, 9, 9, 29]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("total", [1, 2, 7, 1000])
@pytest.mark.parametrize("fps", [0.01, 0.7, 29.97, 1000.0])
@pytest.mark.parametrize("count", [1, 8, 33])
def test_indices_ascend_within_the_clip(policy, total, fps, count) -> None:
    indices = sample_indices(policy, total, count, fps)
    assert len(indices) == count
    assert all(type(index) is int for index in indices)
    assert indices == sorted(indices)
    assert indices[0] >= 0
    assert indices[-1] < total


def test_no_frames() -> None:
    with pytest.raises(EmptyMediaError, match="no frame"):
        sample_indices("uniform", 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"policy": "random"}, "uniform, first_10s, fps; got 'random'"),
        ({"num_frames": 0}, "num_frames of at least 1; got 0"),
        ({"num_frames": 2.5}, r"num_frames to be a whole number; got 2\.5"),
        ({"num_frames": True}, "whole number; got True"),
        ({"total_frames": -1}, "total_frames of at least 0; got -1"),
        ({"policy": "first_10s"}, "fps to be a positive number.*first_10s.*got None"),
        ({"policy": "fps", "fps": float("nan")}, "fps to be a positive number.*got nan"),
        ({"policy": "fps", "fps": 25.0, "target_fps": 0}, "target_fps to be a positive number.*got 0"),
    ],
)
def test_bad_values_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        sample_indices(**{"policy": "uniform", "total_frames": 10, **arguments})


def listed_exactly(total: int, rate: Fraction, target: Fraction) -> list[int]:
    """Policy ``fps`` by its definition, in whole numbers."""
    rounded = [math.floor(i * target / rate + Fraction(1, 2)) for i in range(total + 1)]
    return [bisect.bisect_right(rounded[:total], k) - 1 for k in range(max(1, rounded[total]))]


RATES = ["12.5", "15", "23.976", "24", "24000/1001", "30", "30000/1001", "50", "120"]
TARGETS = ["0.06", "0.15", "0.35", "0.6", "0.7", "1.2", "1.4", "2.4", "3.3", "12"]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("target", TARGETS)
def test_fps_is_exact_where_a_frame_is_half_way(rate: str, target: str) -> None:
    for total in (7, 210, 509):
        listed = listed_exactly(total, Fraction(rate), Fraction(target))
        got = sample_indices("fps", total, num_frames=len(listed), fps=float(Fraction(rate)), target_fps=float(target))
        assert got == listed


def test_fps_is_exact_for_variable_rates() -> None:
    """Each frame begins exactly between two pictures: of 0.1 or 0.7 a second a float is less or more than that."""
    for target in ("0.1", "0.3", "0.7", "1.1", "2.3"):
        ticks = [0, *(Fraction(2 * k + 1, 2) / Fraction(target) for k in range(60)), 90 / Fraction(target)]
        times = [float(tick) for tick in ticks]  # the last frame stays for 30 pictures
        got = sample_indices("fps", 61, num_frames=90, fps=61 / times[-1], target_fps=float(target), times=times)
        assert got == [*range(60), *[60] * 30]
