"""When the frames of a clip are shown, where the timestamps of its packets cannot be used as they are.

AVI and ASF state one time a packet, that of decoding: with B pictures, and in whatever was copied from there, FFmpeg
attaches it to the wrong frames. Raw streams state none. Then FFmpeg's command takes the times of decoding, which
ascend, or the duration of a picture that the stream states; the rate in the header may be the container's default or
its clock.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

_NO_TIMESTAMPS = 0x80  # AVFMT_NOTIMESTAMPS, of raw streams: what FFmpeg attaches to their packets is a guess


class Stamp(NamedTuple):
    """Timestamps of presentation and of decoding, and duration of a frame, in units of the stream; None if unknown."""

    pts: int | None
    dts: int | None
    duration: int


def stamp(frame: Any) -> Stamp:
    """Of a decoded frame."""
    return Stamp(frame.pts, frame.dts, frame.duration or 0)


def ascending(stamps: Sequence[Stamp], container: Any) -> list[int] | None:
    """When each frame is shown, in units of the stream, ascending; None if nothing tells.

    Args:
        stamps: in order of presentation.
        container: the open file.
    """
    if not container.format.flags & _NO_TIMESTAMPS:
        pts = [entry.pts for entry in stamps]
        if _ascends(pts):
            return pts  # type: ignore[return-value]
        dts = _with_end([entry.dts for entry in stamps])
        if _ascends(dts):
            return dts  # type: ignore[return-value]
    if all(entry.duration > 0 for entry in stamps):
        return list(itertools.accumulate((entry.duration for entry in stamps[:-1]), initial=0))
    return None


def average_rate(times: Sequence[int], base: Fraction) -> float | None:
    """Frames per second between the first and the last one; None if they are shown at once."""
    span = times[-1] - times[0] if times else 0
    return float((len(times) - 1) / (span * base)) if span > 0 else None


def _ascends(times: Sequence[int | None]) -> bool:
    return None not in times and all(after >= before for before, after in itertools.pairwise(times))  # type: ignore[operator]


def _with_end(times: Sequence[int | None]) -> list[int | None]:
    """Times of decoding, continued at their usual distance: a decoder's last frames come after the last packet."""
    known = list(itertools.takewhile(lambda time: time is not None, times))
    steps = [after - before for before, after in itertools.pairwise(known)]  # type: ignore[operator]
    if not steps or any(time is not None for time in times[len(known) :]):
        return list(times)
    step = int(statistics.median_low(steps))
    last: int = known[-1]  # type: ignore[assignment]
    return [*known, *(last + step * number for number in range(1, len(times) - len(known) + 1))]
