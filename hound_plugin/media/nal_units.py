"""Do the pictures of an H.264 or HEVC stream have the pictures that they are predicted from? Only headers are read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

_HIGH_PROFILES = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}  # of H.264, with a field for colour
_HEADER = 48  # bytes of a picture's header that are read
_START = 16  # of them for `frame_num`
_NO_MORE = 64  # numbers in a list of a header; more are an error
_ORIENTATION = 47  # the message that turns pictures: "display orientation"


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
        zeros = self._left - (self._value & ((1 << self._left) - 1)).bit_length()
        return self.take(2 * zeros + 1) - 1

    def skip(self, count: int) -> None:
        """Skip numbers in Exp-Golomb code."""
        for _ in range(count):
            self.ue()

    def at_most(self, limit: int) -> int:
        """The next number in Exp-Golomb code.

        Raises:
            IndexError: it is larger than ``limit``.
        """
        if (number := self.ue()) > limit:
            raise IndexError
        return number

    def se(self) -> int:
        """The next signed number in Exp-Golomb code."""
        code = self.ue()
        return (code + 1) // 2 if code % 2 else -(code // 2)


class _NalUnits:
    """What H.264 and HEVC have in common: NAL units, each after its length (ISO/IEC 14496-15)."""

    def __init__(self, extradata: bytes) -> None:
        self._lost = False
        self._turned = False
        self._width = 0
        try:
            for unit in self._sets(extradata):
                self._set(unit)
        except IndexError:
            self._width = 0  # not in this form: nothing can be told

    def _sets(self, extradata: bytes) -> Iterator[bytes]:
        raise NotImplementedError

    def _set(self, unit: Any) -> None:
        """Read a parameter set; other units are passed over."""
        raise NotImplementedError

    def _picture(self, unit: Any) -> bool:
        """Read the first slice of a picture; False if the unit is not one."""
        raise NotImplementedError

    def see(self, data: Any, pts: int) -> None:
        width, position = self._width, 0
        if self._lost or not width:
            return
        size = len(data)
        try:
            while (start := position + width) < size:
                if self._picture(data[start : start + _HEADER]):
                    return
                position = start + int.from_bytes(data[position:start], "big")
                self._set(data[start:position])
        except (IndexError, KeyError):
            self._lost = True

    def any(self) -> bool:
        """Whether only decoding from the beginning tells how the pictures are shown."""
        return self._lost or self._turned or not self._width


def _turns(messages: Any) -> bool:
    """Whether one of the messages (SEI, ITU-T H.264, 7.3.2.3) turns this picture and, as a rule, all that follow.

    Raises:
        IndexError: they are cut short.
    """
    content, position = bytes(messages).replace(b"\0\0\3", b"\0\0"), 0
    while position + 2 < len(content):
        numbers = []
        for _ in ("type", "size"):
            number = 0
            while content[position] == 255:
                number, position = number + 255, position + 1
            numbers.append(number + content[position])
            position += 1
        if numbers[0] == _ORIENTATION:
            return True
        position += numbers[1]
    return False


class FrameNumbers(_NalUnits):
    """H.264: `frame_num` goes up by one after each picture that others depend on (ITU-T H.264, 7.4.3)."""

    def __init__(self, extradata: bytes) -> None:
        self._previous: int | None = None
        self._sizes: tuple[int, int] | None = None  # bits of frame_num, and of colour_plane_id
        super().__init__(extradata)

    def _sets(self, extradata: bytes) -> Iterator[bytes]:
        if extradata[0] == 1:
            self._width, position = (extradata[4] & 3) + 1, 6
            for _ in range(extradata[5] & 31):
                size = int.from_bytes(extradata[position : position + 2], "big")
                yield extradata[position + 2 : position + 2 + size]
                position += 2 + size

    def _set(self, unit: Any) -> None:
        if unit[0] & 31 == 6:
            self._turned = self._turned or _turns(unit[1:])
        if unit[0] & 31 != 7:
            return
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
        number = _after_three(bytes(unit[1:_START]), planes, size)
        self._lost = kind != 5 and self._previous is not None and (number - self._previous) % (1 << size) > 1
        if unit[0] & 0x60:  # others depend on it
            self._previous = number
        return True


def _after_three(content: bytes, ignored: int, size: int) -> int:
    """The bits after three Exp-Golomb numbers: :class:`_Bits` in one go, as every packet of a clip is read."""
    if b"\0\0\3" in content:
        content = content.replace(b"\0\0\3", b"\0\0")
    left = 8 * len(content)
    value = int.from_bytes(content, "big")
    for _ in range(3):
        left -= 2 * (left - value.bit_length()) + 1
        if left < 0:
            raise IndexError
        value &= (1 << left) - 1
    left -= ignored + size
    if left < 0:
        raise IndexError
    return (value >> left) & ((1 << size) - 1)


@dataclasses.dataclass(frozen=True)
class _Sequence:
    """What a picture's header needs of HEVC's sequence parameter set."""

    size: int  # bits of slice_pic_order_cnt_lsb
    planes: int  # bits of colour_plane_id
    sets: tuple[tuple[int, ...], ...]  # short-term reference picture sets: differences of order counts


class ReferenceSets(_NalUnits):
    """HEVC: each picture names those that must have been decoded, by order count (ITU-T H.265, 7.4.8 and 8.3)."""

    def __init__(self, extradata: bytes) -> None:
        self._sequence: _Sequence | None = None
        self._before: dict[int, tuple[int, int]] = {}  # picture parameter set -> extra bits, bits of pic_output_flag
        self._kept: set[int] = set()  # order counts of decoded pictures that may still be named
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

    def _set(self, unit: Any) -> None:
        kind = unit[0] >> 1 & 63
        if kind == 39:
            self._turned = self._turned or _turns(unit[2:])
        elif kind == 34:
            bits = _Bits(unit[2:_HEADER])
            number, _ = bits.ue(), (bits.ue(), bits.take(1))
            output = bits.take(1)
            self._before[number] = bits.take(3), output
        elif kind == 33:
            sequence = _sequence(_Bits(unit[2:]))
            if self._sequence not in (None, sequence):
                raise IndexError  # several sets that differ
            self._sequence = sequence

    def _picture(self, unit: Any) -> bool:
        kind = unit[0] >> 1 & 63
        if kind > 31:
            return False
        if self._sequence is None:
            raise IndexError
        bits = _Bits(unit[2:])
        bits.take(2 if 16 <= kind <= 23 else 1)
        extra, output = self._before[bits.ue()]
        bits.take(extra)
        _ = bits.ue(), bits.take(output + self._sequence.planes)
        count = 0 if kind in (19, 20) else self._count(bits.take(self._sequence.size))
        if 16 <= kind <= 20:
            self._kept = set()
        else:  # what a picture does not name is not kept for later ones, either
            named = {count + step for step in self._references(bits)}
            self._lost = count in self._kept or (kind != 21 and not named <= self._kept)
            self._kept &= named
        self._kept.add(count)
        if unit[1] & 7 == 1 and not 6 <= kind <= 9 and not (kind < 16 and kind % 2 == 0):
            self._anchor = count
        return True

    def _count(self, low: int) -> int:
        """The order count with these lower bits that is nearest to the last anchor's."""
        size = 1 << (self._sequence.size if self._sequence else 0)
        return self._anchor + (low - self._anchor + size // 2) % size - size // 2

    def _references(self, bits: _Bits) -> tuple[int, ...]:
        sets = self._sequence.sets if self._sequence else ()
        if not bits.take(1):
            return _reference_set(bits, list(sets), True)
        return sets[bits.take((len(sets) - 1).bit_length())]


def _sequence(bits: _Bits) -> _Sequence:
    """Read a sequence parameter set of HEVC (7.3.2.2)."""
    layers = (bits.take(7) & 7, bits.take(1))[0]
    bits.take(96)  # profile, tier and level
    flags = [(bits.take(1), bits.take(1)) for _ in range(layers)]
    bits.take(2 * (8 - layers) if layers else 0)
    for profile, level in flags:
        bits.take(88 * profile + 8 * level)
    bits.ue()
    planes = 2 * bits.take(1) if bits.ue() == 3 else 0
    bits.skip(2)
    if bits.take(1):
        bits.skip(4)
    bits.skip(2)
    size = bits.ue() + 4
    bits.skip(3 * (layers + 1 if bits.take(1) else 1))
    bits.skip(6)
    if bits.take(1) and bits.take(1):
        raise IndexError  # scaling lists of its own: not read here
    bits.take(2)
    if bits.take(1):
        bits.take(8)
        bits.skip(2)
        bits.take(1)
    sets: list[tuple[int, ...]] = []
    for _ in range(bits.at_most(_NO_MORE)):
        sets.append(_reference_set(bits, sets, False))
    return _Sequence(size, planes, tuple(sets))


def _reference_set(bits: _Bits, sets: list[tuple[int, ...]], in_slice: bool) -> tuple[int, ...]:
    """Read one short-term reference picture set (7.3.7): differences before it, nearest first, then those after it."""
    if sets and bits.take(1):
        base = sets[-1 - (bits.ue() if in_slice else 0)]
        shift = (1 - 2 * bits.take(1)) * (bits.ue() + 1)
        kept = []
        for step in (*base, 0):
            if bits.take(1) or bits.take(1):  # used by this picture, or at least kept
                kept.append(step + shift)
        return (*sorted((k for k in kept if k < 0), reverse=True), *sorted(k for k in kept if k > 0))
    before, after = bits.at_most(_NO_MORE), bits.at_most(_NO_MORE)
    steps, last = [], 0
    for _ in range(before):
        last -= bits.ue() + 1
        steps.append(last)
        bits.take(1)
    last = 0
    for _ in range(after):
        last += bits.ue() + 1
        steps.append(last)
        bits.take(1)
    return tuple(steps)
