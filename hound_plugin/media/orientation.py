"""Turn and mirror a frame as its display matrix says: phones store what the sensor sees, upright or not."""

from __future__ import annotations

from typing import Any

import numpy as np

from hound_plugin.errors import MediaDecodeError

_SLOPE = 0.02  # of a row or column of pixels, about 1 degree: what FFmpeg's own player takes for a right angle
Linear = tuple[int, int, int, int]
"""``a, b, c, d``: the pixel ``x, y`` is shown at ``a * x + c * y, b * x + d * y`` (ISO/IEC 14496-12, 6.2.2)."""


def upright(matrix: Linear | None, pixels: np.ndarray, name: str, path: str | None = None) -> np.ndarray:
    """The pixels of a frame as they are to be shown.

    Args:
        matrix: of :func:`matrix_of`; None: as stored.
        pixels: ``[H, W, 3]``, as stored.
        name: of the clip, for messages.
        path: of the clip, if it is a file.

    Raises:
        MediaDecodeError: it is to be shown at an angle other than a multiple of 90 degrees, or sheared.
    """
    if matrix is None:
        return pixels
    a, b, c, d = matrix
    if max(abs(b), abs(c)) <= _SLOPE * min(abs(a), abs(d)):
        shown = pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    elif max(abs(a), abs(d)) <= _SLOPE * min(abs(b), abs(c)):
        shown = pixels.transpose(1, 0, 2)[:: -1 if b < 0 else 1, :: -1 if c < 0 else 1]
    else:
        raise MediaDecodeError(
            f"Cannot show {name} upright: expected a display matrix that turns by 90, 180 or 270 degrees or mirrors, "
            f"got {[round(value / (1 << 16), 3) for value in matrix]}, another angle. Encode the clip again with the "
            "turn applied.",
            path,
        )
    return np.ascontiguousarray(shown)


def is_only_turned(frame: Any, by_right_angles: bool = True) -> bool:
    """Whether a frame is shown as stored, or turned by a multiple of 90 degrees: not mirrored, not at an angle.

    Args:
        frame: of PyAV.
        by_right_angles: whether such turns count as well as none.
    """
    matrix = matrix_of(frame)
    if matrix is None:
        return True
    a, b, c, d = matrix
    if not by_right_angles:
        return a > 0 and d > 0 and b == c == 0
    return a * d - b * c > 0 and (b == c == 0 or a == d == 0)


def matrix_of(frame: Any) -> Linear | None:
    """Of a frame; None if it has none, or one of zeros, as some writers leave it."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return None
    a, b, _, c, d, *_ = np.frombuffer(bytes(data), np.int32).tolist()
    return (a, b, c, d) if any((a, b, c, d)) else None
