"""Did a clip lose packets before it was written? Its packets tell, without decoding.

A recorder that drops frames writes a whole file, and FFmpeg plays it with pictures that it makes up for the missing ones;
some it does not show at all. What it makes up depends on all that it decoded before, so that neither the number of
frames nor their pixels can be known but by decoding everything from the beginning.

H.264, HEVC and MPEG-1/2 count their pictures. Of other codecs whose pictures depend on each other, timestamps show what
is missing. VP8, VP9 and AV1 decode a packet from what the packets since the last key picture left, without making up
anything.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator
from typing import Any

_HOLE = 1.5  # of the usual time between two pictures
# A picture of these is decoded by itself, or from the packets since the last key picture and nothing else.
_EXACT = set(
    "vp8 vp9 av1 libdav1d libaom-av1 mjpeg prores dnxhd cfhd png rawvideo huffyuv ffvhuff utvideo magicyuv v210 jpeg2000 "
    "dvvideo".split()
)
_HIGH_PROFILES = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}  # of H.264, with a field for colour
_HEADER = 32  # bytes of a picture's header that are read


class LostPackets:
    """Follows the packets of one stream, in the order of the file.

    Args:
        context: the stream's codec context.
    """

    def __init__(self, context: Any) -> None:
        makers = {"h264": _FrameNumbers, "hevc": _OrderCounts, "mpeg1video": _References, "mpeg2video": _References}
        self._counter: Any = None
        self._stamps: list[int] | None = None
        if context.name == "mpeg4":
            self._counter = _Vops()
        elif context.name in makers:
            self._counter = makers[context.name](context.extradata or b"")
        if context.name != "h264" and context.name not in _EXACT:
            self._stamps = []

    def see(self, packet: Any) -> None:
        """Record a packet that is not empty."""
        if self._counter is not None:
            self._counter.see(memoryview(packet), packet.pts)
        if self._stamps is not None:
            self._stamps.append(packet.pts)

    def any(self) -> bool:
        """Whether pictures are missing, or whether that cannot be told."""
        return (self._counter is not None and self._counter.any()) or (bool(self._stamps) and _hole(self._stamps or []))


def _hole(stamps: list[int]) -> bool:
    """Whether somewhere more time passes between two pictures than usually."""
    steps = [after - before for before, after in itertools.pairwise(sorted(stamps))]
    return bool(steps) and max(steps) > _HOLE * statistics.median(steps)


class _Bits:
    """Reads the bits of a NAL unit's header; the bytes that only prevent start codes are left out."""

    def __init__(self, data: Any) -> None:
        content = bytes(data)
        if b"\0\0\3" in content:
            content = content.replace(b"\0\0\3", b"\0\0")
        self._value, self._left = int.from_bytes(content, "big"), 8 * len(content)

    def take(self, count: int) -> int:
        """The next bits as a number.

        Raises:
            IndexError: there are not as many.
        """
        self._left -= count
        if self._left < 0:
            raise IndexError
        return (self._value >> self._left) & ((1 << count) - 1)

    def ue(self) -> int:
        """The next number in Exp-Golomb code."""
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)

    def se(self) -> int:
        """The next signed number in Exp-Golomb code."""
        code = self.ue()
        return (code + 1) // 2 if code % 2 else -(code // 2)


class _Nal:
    """What H.264 and HEVC have in common: NAL units, each after its length (ISO/IEC 14496-15)."""

    def __init__(self, extradata: bytes) -> None:
        self._lost = False
        self._width = 0
        try:
            for unit in self._sets(extradata):
                self._set(unit)
        except IndexError:
            self._width = 0  # not in this form: nothing can be told

    def _sets(self, extradata: bytes) -> Iterator[bytes]:
        raise NotImplementedError

    def _set(self, unit: Any) -> bool:
        """Read a parameter set; False if the unit is not one."""
        raise NotImplementedError

    def _picture(self, unit: Any) -> bool:
        """Read the first slice of a picture; False if the unit is not one."""
        raise NotImplementedError

    def see(self, data: Any, pts: int) -> None:
        width, position = self._width, 0
        if self._lost or not width:
            return
        try:
            while position + width < len(data):
                start = position + width
                if self._picture(data[start : start + _HEADER]):
                    return
                position = start + int.from_bytes(data[position:start], "big")
                self._set(data[start:position])
        except (IndexError, KeyError):
            self._lost = True

    def any(self) -> bool:
        return self._lost or not self._width


class _FrameNumbers(_Nal):
    """H.264: `frame_num` goes up by one after each picture that others depend on (ITU-T H.264, 7.4.3)."""

    def __init__(self, extradata: bytes) -> None:
        self._previous = 0
        self._sizes: tuple[int, int] | None = None  # bits of frame_num, and of colour_plane_id
        super().__init__(extradata)

    def _sets(self, extradata: bytes) -> Iterator[bytes]:
        if extradata[0] == 1:
            self._width, position = (extradata[4] & 3) + 1, 6
            for _ in range(extradata[5] & 31):
                size = int.from_bytes(extradata[position : position + 2], "big")
                yield extradata[position + 2 : position + 2 + size]
                position += 2 + size

    def _set(self, unit: Any) -> bool:
        if unit[0] & 31 != 7:
            return False
        bits = _Bits(unit[1:])
        profile, planes, _ = bits.take(8), 0, (bits.take(16), bits.ue())
        if profile in _HIGH_PROFILES:
            chroma = bits.ue()
            planes = 2 * bits.take(1) if chroma == 3 else 0
            _ = bits.ue(), bits.ue(), bits.take(1)
            if bits.take(1):
                self._skip_scaling(bits, 12 if chroma == 3 else 8)
        sizes = bits.ue() + 4, planes
        if self._sizes not in (None, sizes):
            raise IndexError  # several sets that differ
        self._sizes = sizes
        return True

    @staticmethod
    def _skip_scaling(bits: _Bits, lists: int) -> None:
        for number in range(lists):
            last = following = 8
            for _ in range((16 if number < 6 else 64) if bits.take(1) else 0):
                following = (last + bits.se()) % 256 if following else 0
                last = following or last

    def _picture(self, unit: Any) -> bool:
        kind = unit[0] & 31
        if kind not in (1, 2, 5):
            return False
        if self._sizes is None:
            raise IndexError
        size, planes = self._sizes
        bits = _Bits(unit[1:])
        _ = bits.ue(), bits.ue(), bits.ue(), bits.take(planes)
        number = bits.take(size)
        self._lost = kind != 5 and (number - self._previous) % (1 << size) > 1
        if unit[0] & 0x60:
            self._previous = number
        return True


class _OrderCounts(_Nal):
    """HEVC: the order counts of the pictures from one instantaneous refresh to the next have no gap (H.265, 8.3.1)."""

    def __init__(self, extradata: bytes) -> None:
        self._size: tuple[int, int] | None = None  # bits of slice_pic_order_cnt_lsb, and of colour_plane_id
        self._before: dict[int, tuple[int, int]] = {}  # picture parameter set -> extra bits, bits of pic_output_flag
        self._counts: list[list[int]] = []
        self._anchor = 0
        super().__init__(extradata)

    def _sets(self, extradata: bytes) -> Iterator[bytes]:
        if extradata[0] == 1:
            self._width, position = (extradata[21] & 3) + 1, 23
            for _ in range(extradata[22]):
                units = int.from_bytes(extradata[position + 1 : position + 3], "big")
                position += 3
                for _ in range(units):
                    size = int.from_bytes(extradata[position : position + 2], "big")
                    yield extradata[position + 2 : position + 2 + size]
                    position += 2 + size

    def _set(self, unit: Any) -> bool:
        kind = unit[0] >> 1 & 63
        if kind == 34:
            bits = _Bits(unit[2:_HEADER])
            number, _ = bits.ue(), (bits.ue(), bits.take(1))
            output = bits.take(1)
            self._before[number] = bits.take(3), output
        elif kind == 33:
            size = self._order_size(_Bits(unit[2:]))
            if self._size not in (None, size):
                raise IndexError  # several sets that differ
            self._size = size
        return kind in (33, 34)

    @staticmethod
    def _order_size(bits: _Bits) -> tuple[int, int]:
        layers = (bits.take(7) & 7, bits.take(1))[0]
        bits.take(96)  # profile, tier and level
        flags = [(bits.take(1), bits.take(1)) for _ in range(layers)]
        bits.take(2 * (8 - layers) if layers else 0)
        for profile, level in flags:
            bits.take(88 * profile + 8 * level)
        bits.ue()
        planes = 2 * bits.take(1) if bits.ue() == 3 else 0
        _ = bits.ue(), bits.ue()
        if bits.take(1):
            _ = bits.ue(), bits.ue(), bits.ue(), bits.ue()
        _ = bits.ue(), bits.ue()
        return bits.ue() + 4, planes

    def _picture(self, unit: Any) -> bool:
        kind = unit[0] >> 1 & 63
        if kind > 31:
            return False
        if self._size is None:
            raise IndexError
        size, planes = self._size
        bits = _Bits(unit[2:])
        bits.take(2 if 16 <= kind <= 23 else 1)
        extra, output = self._before[bits.ue()]
        bits.take(extra)
        _ = bits.ue(), bits.take(output + planes)
        if kind in (19, 20):
            count = 0
        else:
            half = 1 << (size - 1)
            count = self._anchor + (bits.take(size) - self._anchor + half) % (2 * half) - half
        if not self._counts or 16 <= kind <= 20:
            self._counts.append([])
        self._counts[-1].append(count)
        if unit[1] & 7 == 1 and not 6 <= kind <= 9 and not (kind < 16 and kind % 2 == 0):
            self._anchor = count
        return True

    def any(self) -> bool:
        counts = [sorted(period) for period in self._counts]
        steps = {after - before for period in counts for before, after in itertools.pairwise(period)}
        return super().any() or len(steps) > 1 or 0 in steps


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
