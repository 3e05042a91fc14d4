"""Did a clip lose packets before it was written? Its packets tell, without decoding.

A recorder that drops frames writes a whole file. FFmpeg makes up what the pictures after a lost one are predicted from,
and does not show some of them at all. What it makes up depends on all that it decoded before: only decoding everything
from the beginning gives the frames that a player shows.

H.264, HEVC and MPEG-1/2 count their pictures or name those that they need. Of other codecs whose pictures depend on
each other, timestamps show what is missing. VP8, VP9 and AV1 make up nothing: a picture follows from the packets since
the last key picture.
"""

from __future__ import annotations

import itertools
import statistics
from typing import Any

from hound_plugin.media.nal_units import FrameNumbers, ReferenceSets

_GAP = 1.5  # of the usual time between two pictures
# A picture of these is decoded by itself, or from the packets since the last key picture and nothing else.
_EXACT = {
    *("vp8", "vp9", "av1", "libdav1d", "libaom-av1", "mjpeg", "prores", "dnxhd", "cfhd", "png", "rawvideo", "huffyuv"),
    *("ffvhuff", "utvideo", "magicyuv", "v210", "jpeg2000", "dvvideo"),
}
_TELLING = {"h264", "hevc"}  # whose headers alone show what is missing


class LostPackets:
    """Follows the packets of one stream, in the order of the file.

    Args:
        context: the stream's codec context.
    """

    def __init__(self, context: Any) -> None:
        makers = {"h264": FrameNumbers, "hevc": ReferenceSets, "mpeg1video": _References, "mpeg2video": _References}
        self._counter: Any = None
        self._stamps: list[int] | None = None
        if context.name == "mpeg4":
            self._counter = _Vops()
        elif context.name in makers:
            self._counter = makers[context.name](context.extradata or b"")
        if context.name not in _EXACT | _TELLING:
            self._stamps = []

    def see(self, packet: Any, pts: int) -> None:
        """Record a packet that is not empty."""
        if self._counter is not None:
            self._counter.see(memoryview(packet), pts)
        if self._stamps is not None:
            self._stamps.append(pts)

    def any(self) -> bool:
        """Whether pictures are missing, or whether that is unknown."""
        return (self._counter is not None and self._counter.any()) or has_gap(self._stamps or [])


def has_gap(stamps: list[int]) -> bool:
    """Whether somewhere more time passes between two pictures than usually."""
    steps = [after - before for before, after in itertools.pairwise(sorted(stamps))]
    return bool(steps) and max(steps) > _GAP * statistics.median(steps)


class _Between:
    """MPEG: a picture between two others (B) comes in the file after both."""

    def __init__(self) -> None:
        self._lost = False
        self._latest: int | None = None

    def _order(self, is_between: bool, pts: int) -> None:
        if is_between:
            self._lost = self._lost or self._latest is None or pts > self._latest
        else:
            self._latest = pts if self._latest is None else max(pts, self._latest)

    def any(self) -> bool:
        return self._lost


class _References(_Between):
    """MPEG-1 and MPEG-2: `temporal_reference` numbers the pictures of a group (ISO/IEC 13818-2, 6.3.9)."""

    def __init__(self, _: bytes) -> None:
        super().__init__()
        self._groups: list[list[int]] = []

    def see(self, data: Any, pts: int) -> None:
        content = bytes(data)
        at = content.find(b"\0\0\1\0")
        if at < 0 or len(content) < at + 6:
            self._lost = True
            return
        if not self._groups or b"\0\0\1\xb8" in content[:at]:
            self._groups.append([])
        fields = int.from_bytes(content[at + 4 : at + 6], "big")
        self._groups[-1].append(fields >> 6)
        self._order(fields >> 3 & 7 == 3, pts)

    def any(self) -> bool:
        return super().any() or any(sorted(group) != list(range(len(group))) for group in self._groups)


class _Vops(_Between):
    """MPEG-4 part 2: the type of each picture (ISO/IEC 14496-2, 6.3.5); timestamps show the rest."""

    def see(self, data: Any, pts: int) -> None:
        content = bytes(data)
        at = content.find(b"\0\0\1\xb6")
        if at < 0 or len(content) < at + 5:
            self._lost = True
            return
        self._order(content[at + 4] >> 6 == 2, pts)
