"""Which frames of a clip are used: pure arithmetic from a frame count to frame numbers.

No file is opened here, and no decoder decides anything: only the policy chooses the frames.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Literal, get_args

import numpy as np

from hound_plugin.errors import EmptyMediaError, SettingsError

FrameSampling = Literal["uniform", "first_10s", "fps"]
POLICIES: tuple[str, ...] = get_args(FrameSampling)
_SECONDS = 10
_REGULAR = 0.5  # of a frame's time
_HALF = Fraction(1, 2)
_LARGEST_DENOMINATOR = 1_000_000  # of a rate
_DIGITS = 9  # of a time in pictures: a half that misses by less is a half


def check_sampling(policy: str, num_frames: int) -> None:
    """Refuse an unknown policy or an impossible number of frames.

    Raises:
        SettingsError: ``policy`` is unknown, or ``num_frames`` is not an integer of at least 1.
    """
    if policy not in POLICIES:
        raise SettingsError(f"Expected frame_sampling to be one of {', '.join(POLICIES)}; got {policy!r}.")
    if _integer("num_frames", num_frames) < 1:
        raise SettingsError(f"Expected num_frames of at least 1; got {num_frames}.")


def sample_indices(
    policy: FrameSampling,
    total_frames: int,
    num_frames: int = 8,
    fps: float | None = None,
    target_fps: float = 2.0,
    times: Sequence[float] | None = None,
) -> list[int]:
    """Frame numbers of a clip under a policy, in order of presentation.

    * ``uniform``: spread over the full clip, first and last frame included, positions truncated to integers.
      What the released checkpoints were trained on (frame folders) and what the original's OpenCV path does.
    * ``first_10s``: the same over the first ``min(int(fps * 10), total_frames)`` frames, the rule of the original's
      decord path. Corrected: below 0.1 frames per second the original arrived at zero frames and requested frame -1;
      here at least one frame is used.
    * ``fps``: the clip is first resampled to ``target_fps`` as by FFmpeg's ``fps`` filter (the way the original
      extracted its training frames, at 2 per second), then ``uniform`` over that list. Picture ``k`` of the list
      is the last frame ``i`` with ``round(i * target_fps / fps) <= k``, halves rounded up; the list has
      ``round(total_frames * target_fps / fps)`` pictures, at least one. Where ``times`` show that the rate varies, they
      take the place of ``i / fps``.

    A clip with fewer frames than requested repeats numbers (3 frames: ``0 0 0 0 1 1 1 2``).

    Args:
        policy: one of the three.
        total_frames: number of frames of the clip.
        num_frames: how many to take, at least 1.
        fps: average frames per second of the clip; needed by ``first_10s`` and ``fps``.
        target_fps: frames per second of the list of policy ``fps``.
        times: seconds at which each frame begins, from 0, ascending, and at which the last one ends:
            ``total_frames + 1`` numbers. None: the rate is constant.

    Returns:
        ``num_frames`` numbers in ``0 .. total_frames - 1``, ascending.

    Raises:
        SettingsError: unknown policy, or a number outside its range.
        EmptyMediaError: ``total_frames`` is 0.
    """
    check_sampling(policy, num_frames)
    total = _integer("total_frames", total_frames)
    if total < 0:
        raise SettingsError(f"Expected total_frames of at least 0; got {total}.")
    if total == 0:
        raise EmptyMediaError("There is no frame to sample from (total_frames is 0).")
    if policy == "uniform":
        return _spread(total, num_frames)
    rate = _positive("fps", fps, f"frame_sampling: {policy} needs the frame rate of the clip")
    if policy == "first_10s":
        return _spread(max(1, min(int(rate * _SECONDS), total)), num_frames)
    target = _positive("target_fps", target_fps, "frame_sampling: fps needs it")
    if times is not None and _varies(times, rate):
        return _by_time(np.asarray(times), target, num_frames)
    step = _exact(rate) / _exact(target)
    count = max(1, math.floor(total / step + _HALF))
    return [min(max(math.ceil((k + _HALF) * step) - 1, 0), total - 1) for k in _spread(count, num_frames)]


def _spread(total: int, num_frames: int) -> list[int]:
    return np.linspace(0, total - 1, num_frames, dtype=int).tolist()


def _varies(times: Sequence[float], rate: float) -> bool:
    """Whether a frame begins more than half a frame's time away from where a constant rate would have it."""
    return bool(np.abs(np.asarray(times)[:-1] * rate - np.arange(len(times) - 1)).max() > _REGULAR)


def _by_time(times: np.ndarray, target: float, num_frames: int) -> list[int]:
    numbers = np.floor(np.round(times * target, _DIGITS) + 0.5).astype(int)
    pictures = _spread(max(1, int(numbers[-1])), num_frames)
    return (np.searchsorted(numbers[:-1], pictures, side="right") - 1).tolist()


def _exact(number: float) -> Fraction:
    """The fraction that a number stands for: 0.3 is 3/10, the float of 30000/1001 is that; halves are exact then."""
    simplest = Fraction(number).limit_denominator(_LARGEST_DENOMINATOR)
    return simplest if float(simplest) == number else Fraction(number)


def _integer(name: str, value: Any) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise SettingsError(f"Expected {name} to be a whole number; got {value!r}.") from None


def _positive(name: str, value: Any, why: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise SettingsError(f"Expected {name} to be a positive number ({why}); got {value!r}.")
    return number
