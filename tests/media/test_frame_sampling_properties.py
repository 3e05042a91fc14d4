"""Whatever the length, the rate and the number of frames: numbers of the clip, in order, the ends where promised."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hound_plugin.errors import EmptyMediaError, SettingsError
from hound_plugin.media.frame_sampling import POLICIES, sample_indices

LENGTHS = st.integers(1, 10**7)
NUMBERS = st.integers(1, 128)
RATES = st.floats(1e-3, 1e4)


@given(policy=st.sampled_from(POLICIES), total=LENGTHS, number=NUMBERS, fps=RATES, target=RATES)
def test_numbers_are_of_the_clip_and_in_order(policy: str, total: int, number: int, fps: float, target: float) -> None:
    indices = sample_indices(policy, total, number, fps, target)  # type: ignore[arg-type]
    assert len(indices) == number
    assert all(type(index) is int for index in indices)
    assert indices == sorted(indices)
    assert 0 <= indices[0] <= indices[-1] < total


@given(total=LENGTHS, number=st.integers(2, 128))
def test_uniform_takes_both_ends_and_even_steps(total: int, number: int) -> None:
    indices = sample_indices("uniform", total, number)
    assert (indices[0], indices[-1]) == (0, total - 1)
    steps = [after - before for before, after in itertools.pairwise(indices)]
    assert max(steps) - min(steps) <= 1


@given(total=LENGTHS, number=NUMBERS, fps=RATES)
def test_first_10s_stays_there(total: int, number: int, fps: float) -> None:
    indices = sample_indices("first_10s", total, number, fps)
    assert indices[-1] <= max(0, fps * 10 - 1)
    if total <= int(fps * 10):
        assert indices == sample_indices("uniform", total, number)


@given(total=LENGTHS, number=NUMBERS, fps=RATES)
def test_fps_at_the_clips_own_rate_is_uniform(total: int, number: int, fps: float) -> None:
    assert sample_indices("fps", total, number, fps, fps) == sample_indices("uniform", total, number)


@given(total=st.one_of(st.integers(max_value=0), st.booleans(), st.floats(), st.text(), st.none()))
def test_no_length(total: object) -> None:
    with pytest.raises((EmptyMediaError, SettingsError), match="total_frames"):
        sample_indices("uniform", total)  # type: ignore[arg-type]


@given(rate=st.one_of(st.floats(max_value=0), st.just(float("nan")), st.just(float("inf")), st.text("abc"), st.none()))
def test_no_rate(rate: object) -> None:
    for policy in ("first_10s", "fps"):
        with pytest.raises(SettingsError, match="Expected fps to be a positive number"):
            sample_indices(policy, 100, fps=rate)  # type: ignore[arg-type]
