"""Exact frames of a video file with PyAV (FFmpeg): the reference that every other backend must match.

Frame ``i`` is the ``i``-th picture that FFmpeg presents when it plays the file from its beginning: edit lists are
honoured, pictures that cannot be shown are not counted. For MP4/MOV and Matroska/WebM the packet headers give the
numbering without decoding (7 to 14 ms for 10 to 60 s clips); then only the stretches that contain sampled frames are
decoded, and between sampled frames those pictures on which no other depends are skipped. A file whose frames do not
match its packet headers exactly is decoded from beginning to end instead.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections.abc import Generator, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from hound_plugin.errors import EmptyMediaError, MediaDecodeError
from hound_plugin.media.clip import VideoInfo, check_size
from hound_plugin.media.colours import to_rgb
from hound_plugin.media.completeness import LastPacket, check_end, check_sizes
from hound_plugin.media.container_crop import Crop, stated_crop
from hound_plugin.media.frame_times import Stamp, ascending, average_rate, stamp
from hound_plugin.media.lost_packets import LostPackets, has_gap
from hound_plugin.media.orientation import Linear, is_only_turned, matrix_of, upright
from hound_plugin.media.streams import NotExactError, Source, describe, opened, packets, path_of

Numbered = Generator[tuple[int, np.ndarray], None, None]
"""Frames with their numbers, one at a time: uint8 ``[H, W, 3]``, RGB, upright."""
_NOT_CODED = 16  # bytes; a packet of MPEG-4 part 2 that is smaller may mean a picture that is not shown
_RANDOM_AFTER_LOSS = {"ffv1"}  # FFmpeg decodes such a picture differently each time
_INDEXED = {"mov", "mp4", "matroska", "webm"}
_TURNED = {"mov", "mp4"}
_NO_KEYS = {"rpza"}  # FFmpeg's encoder marks every picture as one from which decoding can start


@dataclasses.dataclass(frozen=True)
class FrameIndex:
    """Numbering of the frames of one video stream.

    Attributes:
        total: number of frames.
        fps: average frames per second, from the header, or else from the timestamps.
        pts: timestamp per frame in units of ``time_base`` seconds, ascending; None if only decoding reveals them.
        keys: timestamps of pictures from which decoding can start, ascending.
        codec, pixel_format: as FFmpeg names them.
        time_base: seconds per unit of ``pts``.
        clean: nothing after one of ``keys`` depends on what precedes it (H.264: it is an IDR picture, unlike in open
            groups of pictures).
        seconds: when each frame is presented, counted from the first one, ascending.
        last: seconds for which the last frame is shown.
        videos: number of video streams in the file.
        width, height: pixels as stored.
    """

    total: int
    fps: float
    pts: list[int] | None
    keys: list[int]
    codec: str
    pixel_format: str
    time_base: float
    clean: bool
    seconds: list[float]
    last: float
    videos: int = 1
    width: int = 0
    height: int = 0

    @property
    def duration(self) -> float:
        """Seconds from the first frame to the end of the last one."""
        return self.seconds[-1] + self.last

    def times(self, within: range) -> list[float]:
        """When each frame of a part begins, counted from the first one, and when the last one ends."""
        end = self.seconds[within.stop] if within.stop < self.total else self.duration
        first = self.seconds[within.start]
        return [second - first for second in (*self.seconds[within.start : within.stop], end)]


def build_index(source: Source) -> FrameIndex:
    """Number the frames: from packet headers if they can be trusted, otherwise by decoding everything.

    Raises:
        MediaDecodeError: not readable, cut short, or damaged.
        EmptyMediaError: no frame can be decoded.
    """
    return index_by_headers(source) or count_by_decoding(source)


def index_by_headers(source: Source) -> FrameIndex | None:
    """Number the frames without decoding; None if packet headers cannot be trusted.

    Raises:
        MediaError: as :func:`build_index`.
    """
    with opened(source) as (container, stream):
        is_complete = check_sizes(source, container)
        if _INDEXED & set(container.format.name.split(",")):
            last = LastPacket(container, source, is_complete)
            stamps = _stamps(container, stream, last)
            if stamps is not None:
                if not is_complete:
                    last.check()
                return _index(stream, *stamps, source)
    return None


def count_by_decoding(source: Source) -> FrameIndex:
    """Number the frames by decoding all of them (about 1.5 ms per frame at 720p).

    Raises:
        MediaError: as :func:`build_index`.
    """
    with opened(source) as (container, stream):
        is_complete = check_sizes(source, container)
        last = LastPacket(container, source)
        stamps: list[Stamp] = []
        depends = False
        for frame in _frames(container, stream, source, last):
            stamps.append(stamp(frame))
            depends = depends or not frame.key_frame
        if not is_complete:
            last.check()
        times = [entry.pts for entry in stamps]
        known = [time for time in times if time is not None]
        is_random = depends and stream.codec_context.name in _RANDOM_AFTER_LOSS
        if is_random and len(known) == len(times) and has_gap(known):
            raise MediaDecodeError(
                f"Cannot decode {describe(source)}: its timestamps have gaps, as where packets were lost before it was "
                "written, and what FFV1 shows after a lost picture is random. Encode it from its source with every "
                "picture a key picture (`-g 1`), or as H.264; or leave its record out.",
                path_of(source),
            )
        length = stamps[-1].duration if stamps else 0
        shown = ascending(stamps, container)
        index = _index(stream, shown or times, length, [], False, source)
        if shown is not None and shown != times:  # a header whose times cannot be used may state any rate
            index = dataclasses.replace(index, fps=average_rate(shown, stream.time_base) or index.fps)
    return dataclasses.replace(index, pts=None)


def read_frames(source: Source, index: FrameIndex, indices: list[int]) -> Numbered:
    """Decode the named frames, one at a time.

    Args:
        source: path or bytes.
        index: numbering of this source.
        indices: each in ``0 .. index.total - 1``.

    Yields:
        Each number once, ascending, with its frame: uint8 ``[H, W, 3]``, RGB, upright.

    Raises:
        NotExactError: the packet headers of this file cannot be trusted; use :func:`count_by_decoding`.
        MediaDecodeError: not readable, or damaged.
    """
    unique = sorted(set(indices))
    with opened(source) as (container, stream):
        crop = stated_crop(source, container, stream) or Crop()
        if index.pts is None:
            yield from _play(container, stream, unique, source, crop)
        else:
            yield from _seek(container, stream, index, unique, source, crop)


def is_mirrored(source: Source) -> bool:
    """Whether the first frame is to be mirrored, or turned by an angle or in a container that other decoders ignore.

    They know turns by right angles in MP4 and MOV.

    Raises:
        MediaError: as :func:`build_index`.
    """
    with opened(source) as (container, stream):
        frames = _frames(container, stream, source, LastPacket(container, source))
        knows_turns = bool(_TURNED & set(container.format.name.split(",")))
        return any(not is_only_turned(frame, knows_turns) for frame in itertools.islice(frames, 1))


def is_cropped(source: Source) -> bool:
    """Whether the container crops the pictures, or their stream does at the left, which other decoders do not follow.

    Raises:
        MediaError: as :func:`build_index`.
    """
    from av.codec.context import Flags

    with opened(source) as (container, stream):
        if stated_crop(source, container, stream):
            return True
        stream.codec_context.flags &= ~Flags.unaligned  # as the others decode
        frames = _frames(container, stream, source, LastPacket(container, source))
        return any(frame.width != stream.codec_context.width for frame in itertools.islice(frames, 1))


def probe_container(source: Source) -> VideoInfo:
    """What the header says (0.3 to 13 ms, depending on picture size, as FFmpeg reads the first picture).

    Raises:
        MediaDecodeError: not readable, cut short, or without pictures.
    """
    with opened(source) as (container, stream):
        is_complete = check_sizes(source, container)
        rate = float(stream.average_rate) if stream.average_rate else None
        width, height = _size(container, stream, source)
        info = VideoInfo("file", stream.frames or None, rate, width, height)
    if not is_complete:
        check_end(source)
    return info


def _size(container: Any, stream: Any, source: Source) -> tuple[int, int]:
    """Width and height by FFmpeg's probe, or of the first picture if it saw none (a file that begins with sound)."""
    context = stream.codec_context
    if context.width and context.height:
        return context.width, context.height
    for frame in _frames(container, stream, source, LastPacket(container, source)):
        return frame.width, frame.height
    raise EmptyMediaError(f"There is no decodable frame in {describe(source)}.", path_of(source))


def _stamps(container: Any, stream: Any, last: LastPacket) -> tuple[list[int], int, list[int], bool] | None:
    """``pts``, the duration of the last frame, ``keys`` and ``clean`` of :class:`FrameIndex`.

    None if timestamps do not identify the frames.
    """
    presented: list[int] = []
    latest = length = 0
    keys: list[int] = []
    clean = True
    number, codec = stream.index, stream.codec_context.name
    # pal8: some demuxers give the palette with the first packet they read, alone
    if stream.codec_context.pix_fmt == "pal8" or codec in _NO_KEYS:
        return None
    lost = LostPackets(stream.codec_context)
    for packet in packets(container):
        last.see(packet)
        if not packet.size or packet.stream_index != number:
            continue
        pts, is_key = packet.pts, packet.is_keyframe
        empty = codec == "mpeg4" and packet.size < _NOT_CODED
        if pts is None or (not keys and not is_key) or empty:
            return None
        lost.see(packet, pts)
        if is_key:
            keys.append(pts)
            clean = clean and _is_clean(stream.codec_context, packet)
        hidden = codec == "vp8" and not bytes(packet)[0] & 0x10  # bit show_frame, RFC 6386, 9.1
        if not (packet.is_discard or hidden):
            presented.append(pts)
            if pts >= latest or len(presented) == 1:
                latest, length = pts, packet.duration or 0
    unique = len(set(presented)) == len(presented)
    # Timestamps in the order of decoding, as for raw streams that were copied into a container, number no B pictures.
    misnumbered = stream.codec_context.has_b_frames and len(presented) > 1 and presented == sorted(presented)
    # Pictures before the first key cannot be decoded; what lost packets do to the others, only decoding shows.
    if not presented or not unique or min(presented) < keys[0] or lost.any() or misnumbered:
        return None
    return sorted(presented), length, sorted(keys), clean


def _is_clean(context: Any, packet: Any) -> bool:
    """Whether a key packet of H.264 is an IDR picture; the other codecs used here have no other kind of key."""
    if context.name != "h264":
        return True
    header, data = context.extradata or b"", bytes(packet)
    if len(header) < 5 or header[0] != 1:  # not the MP4 way of storing H.264 (ISO/IEC 14496-15): lengths, then units
        return False
    width, position = (header[4] & 3) + 1, 0
    while position + width < len(data):
        if data[position + width] & 31 == 5:
            return True
        position += width + int.from_bytes(data[position : position + width], "big")
    return False


def _index(stream: Any, pts: list[Any], length: int, keys: list[int], clean: bool, source: Source) -> FrameIndex:
    if not pts:
        raise EmptyMediaError(f"There is no decodable frame in {describe(source)}.", path_of(source))
    base = float(stream.time_base)
    rate = float(stream.average_rate) if stream.average_rate else 0.0
    if rate <= 0 and len(pts) > 1 and pts[0] is not None and pts[-1] is not None and pts[-1] > pts[0]:
        rate = (len(pts) - 1) / ((pts[-1] - pts[0]) * base)
    context = stream.codec_context
    rate = rate if rate > 0 else 1.0
    seconds = _seconds(pts, stream.time_base, rate)
    last, videos = length * base or 1 / rate, len(stream.container.streams.video)
    pixels, size = context.pix_fmt or "", (context.width, context.height)
    return FrameIndex(len(pts), rate, pts, keys, context.name, pixels, base, clean, seconds, last, videos, *size)


def _seconds(pts: list[Any], base: Fraction, rate: float) -> list[float]:
    """Times after the first frame; by the frame rate if timestamps are missing or jump back."""
    if None in pts or any(after < before for before, after in itertools.pairwise(pts)):
        return [number / rate for number in range(len(pts))]
    first, ticks, unit = pts[0], base.numerator, base.denominator
    return [(stamp - first) * ticks / unit for stamp in pts]  # integers: rounded only once


def _frames(container: Any, stream: Any, source: Source, last: LastPacket) -> Iterator[Any]:
    """Decode from beginning to end.

    Raises:
        MediaDecodeError: a packet or a frame is marked as damaged.
    """
    number = 0
    for packet in packets(container):
        last.see(packet)
        if packet.stream.index != stream.index:
            continue
        for frame in packet.decode():
            if frame.is_corrupt:
                raise MediaDecodeError(
                    f"Cannot decode {describe(source)}: its frame {number} is damaged; the decoder had to guess parts "
                    "of it. Copy or encode the file again, or leave its record out.",
                    path_of(source),
                )
            number += 1
            yield frame


def _play(container: Any, stream: Any, wanted: list[int], source: Source, crop: Crop) -> Numbered:
    missing = set(wanted)
    matrix = None  # H.264 and HEVC state it with some pictures; it stays until the next one
    for number, frame in enumerate(_frames(container, stream, source, LastPacket(container, source))):
        matrix = matrix_of(frame) or matrix
        if number in missing:
            yield number, _pixels(frame, source, matrix, crop)
            missing.discard(number)
        if not missing:
            return


def _seek(container: Any, stream: Any, index: FrameIndex, wanted: list[int], source: Source, crop: Crop) -> Numbered:
    """Frames by timestamp: one seek per stretch between key pictures that contains a wanted frame."""
    stamps = index.pts or []
    valid_stamps = set(stamps)
    position = 0
    while position < len(wanted):
        after = bisect.bisect_right(index.keys, stamps[wanted[position]])
        until = index.keys[after] if after < len(index.keys) else None
        stretch = {stamps[i]: i for i in wanted[position:] if until is None or stamps[i] < until}
        container.seek(index.keys[after - 1], stream=stream, backward=True)
        position += len(stretch)
        yield from _decode_stretch(container, stream, stretch, valid_stamps, source, crop)


def _decode_stretch(
    container: Any, stream: Any, missing: dict[int, int], valid_stamps: set[int], source: Source, crop: Crop
) -> Numbered:
    context = stream.codec_context
    for packet in container.demux(stream):
        # Pictures on which no other depends need not be decoded unless they are wanted (a third of the time saved).
        context.skip_frame = "NONREF" if packet.size and packet.pts not in missing else "DEFAULT"
        for frame in packet.decode():
            # One field per packet: packets are not frames. Damaged: only decoding everything shows what is wrong.
            if frame.pts not in valid_stamps or frame.interlaced_frame or frame.is_corrupt:
                raise NotExactError
            if frame.pts in missing:
                yield missing.pop(frame.pts), _pixels(frame, source, matrix_of(frame), crop)
        if not missing:
            return
    raise NotExactError


def _pixels(frame: Any, source: Source, matrix: Linear | None, crop: Crop) -> np.ndarray:
    path = path_of(source)
    check_size(frame.width, frame.height, f"a frame of {describe(source)}", path)  # maybe larger than its header says
    pixels = np.ascontiguousarray(crop.cut(to_rgb(frame), frame.format))
    return upright(matrix, pixels, describe(source), path)
