"""The pixels of a frame as RGB, by the matrix and the range that the file states for its colours.

PyAV hands swscale neither of them unless source and target differ, so that its plain conversion takes every file for
BT.601 of limited range: HD clips state BT.709, HDR BT.2020, and screen recordings often the full range.
"""

from __future__ import annotations

from typing import Any

import numpy as np

# Numbers of ISO/IEC 23091-2, which are AVColorSpace's and swscale's alike
_BT_601 = 5
_STATED = {1, 4, 5, 6, 7, 9, 10}  # BT.709, FCC, BT.601 (twice), SMPTE 240M, BT.2020 (twice); swscale has no others
_LIMITED, _FULL = 1, 2  # AVColorRange


def to_rgb(frame: Any) -> np.ndarray:
    """A decoded frame as FFmpeg shows it: uint8 ``[H, W, 3]``, RGB, as stored (not turned).

    A file that states no matrix is taken for BT.601, as FFmpeg does at any size.
    """
    layout = frame.format
    if layout.is_rgb or layout.name.startswith("xyz") or len(layout.components) < 3:  # grey, palette: no matrix
        return frame.to_ndarray(format="rgb24")
    matrix = int(frame.colorspace)
    matrix = matrix if matrix in _STATED else _BT_601
    is_full = int(frame.color_range) == _FULL or layout.name.startswith("yuvj")
    return frame.to_ndarray(
        format="rgb24",
        src_colorspace=matrix,
        dst_colorspace=_BT_601,  # of RGB, which has none; where all are equal PyAV's plain conversion is right
        src_color_range=_FULL if is_full else _LIMITED,
        dst_color_range=_LIMITED,
    )
