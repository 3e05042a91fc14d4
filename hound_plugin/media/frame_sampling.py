"""Which frames of a clip are used: pure arithmetic from a frame count to frame numbers.

No file is opened here, and no decoder decides anything: only the policy chooses the frames.
"""

from __future__ import annotations

import math
import operator
from typing import Any, Literal, get_args

import numpy as np

from hound_plugin.errors import EmptyMediaError, SettingsError

FrameSampling = Literal["uniform", "first_10s", "fps"]
POLICIES: tuple[str, ...] = get_args(FrameSampling)
_SECONDS = 10


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
      ``round(total_frames * target_fps / fps)`` pictures, at least one.

    A clip with fewer frames than requested repeats numbers (3 frames: ``0 0 0 0 1 1 1 2``).

    Args:
        policy: one of the three.
        total_frames: number of frames of the clip.
        num_frames: how many to take, at least 1.
        fps: average frames per second of the clip; needed by ``first_10s`` and ``fps``.
        target_fps: frames per second of the list of policy ``fps``.

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
    step = rate / _positive("target_fps", target_fps, "frame_sampling: fps needs it")
    count = max(1, math.floor(total / step + 0.5))
    return [min(max(math.ceil((k + 0.5) * step) - 1, 0), total - 1) for k in _spread(count, num_frames)]


def _spread(total: int, num_frames: int) -> list[int]:
    return np.linspace(0, total - 1, num_frames, dtype=int).tolist()


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
