"""Is a file complete? The lengths that it states are compared with its content; nothing is decoded.

Containers that state the sizes of their parts (MP4/MOV, Matroska/WebM, AVI, ASF/WMV, FLV) are followed from part to
part: one that reaches beyond the end of the file, or begins with a hole, reveals a truncated download. Where sizes
prove nothing, a stated duration is compared with the last packet of any stream. Transport, program and raw streams
state no length: half of one that ends with a complete packet is a valid shorter clip.
"""

from __future__ import annotations

import contextlib
import functools
import os
import struct
from collections.abc import Iterator
from io import BytesIO
from typing import Any, BinaryIO

from hound_plugin.errors import MediaDecodeError
from hound_plugin.media.stated_sizes import WALKS, CutShortError, JoinedError, is_joined
from hound_plugin.media.streams import Source, describe, kind_of, opened, packets, path_of

# Formats whose header states the duration. FFmpeg estimates it for the others; AVI and RealMedia written to a pipe
# have a meaningless number there, and IVF one of years.
_TIMED = {"matroska", "webm", "mov", "mp4", "asf", "flv", "mxf", "ivf", "wtv", "gxf"}
_YEAR = 3e7  # seconds
_EVEN = {"yuv4mpegpipe", "dv"}  # the last picture ends with the file
# Transport streams are joined by `cat`. FFmpeg marks one of the last packets before a join, which begins with a key
# picture, as damaged: up to this many packets may be between the two.
_BEFORE_JOIN = 2
_TAIL = 1_000_000  # microseconds before the end from which packets are checked
_SLACK = 0.25  # seconds, and two frames, by which a complete file may end before the duration in its header


class LastPacket:
    """Tracks where the packets of all streams end, while they are read.

    Args:
        is_complete: the file is known to be complete; only damaged packets matter.
    """

    def __init__(self, container: Any, source: Source, is_complete: bool = False) -> None:
        self._source = source
        self._is_complete = is_complete
        self._stated = stated_duration(container)
        self._steps = [1 / float(s.average_rate) for s in container.streams.video if s.average_rate]
        self._size = container.size if _EVEN & set(container.format.name.split(",")) else 0
        self._may_be_joined = "mpegts" in container.format.name
        self._suspects: dict[int, tuple[str, int]] = {}  # stream -> what is wrong, packets left
        self._spans: dict[int, list[Any]] = {}  # stream -> first and last timestamp, and their unit
        self._byte = 0

    def see(self, packet: Any) -> None:
        """Record a packet.

        Raises:
            MediaDecodeError: it is marked as damaged.
        """
        if packet.is_corrupt or self._suspects:
            self._check_damage(packet)
        if self._is_complete or not packet.size:
            return
        if self._size:
            self._byte = (packet.pos or 0) + packet.size
        time = packet.pts
        if time is None:
            time = packet.dts
        if time is None:
            return
        end = time + (packet.duration or 0)
        span = self._spans.get(packet.stream_index)
        if span is None:
            self._spans[packet.stream_index] = [time, end, packet.time_base]
        else:
            if time < span[0]:
                span[0] = time
            if end > span[1]:
                span[1] = end

    @property
    def end(self) -> float:
        """Seconds from 0, or from the first packet, to the end of the last one; 0 if there are no packets."""
        spans = [(float(first * base), float(last * base)) for first, last, base in self._spans.values()]
        if not spans:
            return 0.0
        end = max(last for _, last in spans)
        return max(end, end - min(first for first, _ in spans), 0.0)  # timestamps need not begin at 0

    def _check_damage(self, packet: Any) -> None:
        """Refuse damaged packets, except those before a join of transport streams."""
        number = packet.stream.index
        suspect = self._suspects.pop(number, None)
        if packet.is_corrupt and kind_of(packet.stream) in ("video", "audio"):
            moment = float((packet.pts or 0) * packet.time_base) if self._is_complete else self.end
            suspect = f"a packet at {moment:.1f} s is incomplete or marked as damaged", _BEFORE_JOIN
        elif suspect is not None and packet.size and packet.is_keyframe and self._is_joined:
            return
        elif suspect is not None:
            suspect = suspect[0], suspect[1] - 1 if packet.size else 0
        if suspect is None:
            return
        if not self._may_be_joined or not suspect[1]:
            raise cut_short(self._source, suspect[0])
        self._suspects[number] = suspect

    @functools.cached_property
    def _is_joined(self) -> bool:
        with _bytes_of(self._source) as file:
            return is_joined(file, file.seek(0, os.SEEK_END))

    def check(self) -> None:
        """Compare with the duration in the header.

        Raises:
            MediaDecodeError: the header states more than there is.
        """
        if self._size and self._byte != self._size:
            raise cut_short(self._source, "its last picture is incomplete")
        step = min(max(self._steps, default=0.0), 5.0)
        if self._stated is not None and self._spans and self.end + _SLACK + 2 * step < self._stated:
            raise cut_short(self._source, f"its header says {self._stated:.1f} s, the data ends at {self.end:.1f} s")


def stated_duration(container: Any) -> float | None:
    """Duration in seconds according to the header of a container; None if it states none."""
    seconds = float(container.duration or 0) / 1e6
    return seconds if 0 < seconds < _YEAR and _TIMED & set(container.format.name.split(",")) else None


def check_sizes(source: Source, container: Any) -> bool:
    """Follow the sizes that a container states (0.1 ms for MP4, 2 ms for an hour of Matroska).

    Returns:
        Whether they prove that the file is complete; False if they prove nothing.

    Raises:
        MediaDecodeError: the file is cut short, or another one of its kind follows in it.
    """
    names = set(container.format.name.split(","))
    follow = next((walk for name, walk in WALKS.items() if name in names), None)
    if follow is None or (isinstance(source, str) and not os.path.isfile(source)):  # a pipe can only be read once
        return False
    with _bytes_of(source) as file:
        size = file.seek(0, os.SEEK_END)
        try:
            return follow(file, size)
        except (struct.error, IndexError):  # not in the form of the format: nothing is proved
            return False
        except JoinedError as error:
            raise MediaDecodeError(
                f"Cannot decode {describe(source)}: it is several files in one; the second begins at {error}, and "
                "would not be played. Split them, or encode them as one clip.",
                path_of(source),
            ) from error
        except CutShortError as error:
            missing = str(error)
    stated = container.duration / 1e6 if names & {*_TIMED, "avi"} and container.duration else None
    ends = _end_of_data(source) if stated else None
    times = f"its header says {stated:.1f} s, the data ends at {ends:.1f} s; " if stated and ends is not None else ""
    raise cut_short(source, f"{times}{missing}")


def check_end(source: Source) -> None:
    """Check the packets near the end of a file, or all of them if it is not seekable.

    Raises:
        MediaDecodeError: the last packet is incomplete, or ends long before the duration in the header.
    """
    import av

    with opened(source) as (container, stream):
        if not container.duration or not stream.time_base:  # only reading everything would tell
            return
        last = LastPacket(container, source)
        late = (container.start_time or 0) + max(container.duration - _TAIL, 0)
        with contextlib.suppress(av.error.FFmpegError):  # not seekable: read everything
            container.seek(int(late / 1_000_000 / stream.time_base), stream=stream, backward=True)
        for packet in packets(container):
            last.see(packet)
        last.check()


def cut_short(source: Source, reason: str) -> MediaDecodeError:
    """The error for a truncated file."""
    return MediaDecodeError(
        f"Cannot decode {describe(source)}: it is cut short: {reason}. Copy or download it again, or leave its record "
        "out.",
        path_of(source),
    )


def _end_of_data(source: Source) -> float | None:
    """Where the existing packets end, in seconds; for messages."""
    import av

    last = None
    try:
        with opened(source) as (container, _):
            last = LastPacket(container, source)
            for packet in packets(container):
                last.see(packet)
    except (MediaDecodeError, av.error.FFmpegError):  # the packet at the cut
        pass
    return last.end if last is not None else None


@contextlib.contextmanager
def _bytes_of(source: Source) -> Iterator[BinaryIO]:
    with open(source, "rb", buffering=0) if isinstance(source, str) else BytesIO(source) as file:
        yield file
