"""The frames that are shown next to an answer: those that the model saw."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from hound_plugin.errors import MediaError
from hound_plugin.media.frame_sampling import FrameSampling
from hound_plugin.pages.content import Frame, Strip

ReadFrames = Callable[[Any], Strip]
"""From a clip (a path, a folder of frames, a list of frames, or None) to its frames; errors become notes."""

SIZE = 160
LARGE = 360
QUALITY = 75
_READERS = 4
NO_CLIP = "a question without a clip"


def read_frames(
    num_frames: int = 8,
    sampling: FrameSampling = "uniform",
    size: int = SIZE,
    crops: bool = False,
    note: str = "",
) -> ReadFrames:
    """A reader of frames.

    Args:
        num_frames, sampling: as the model chose them.
        size: longer side in pixels.
        crops: the model sees the centred square of each frame; the rest is darkened.
        note: shown with every clip's frames.
    """

    def read(media: Any) -> Strip:
        from hound_plugin.media.jpeg_frames import jpeg_frames

        if media is None:
            return Strip(note=NO_CLIP)
        try:
            frames = jpeg_frames(media, num_frames, size, sampling, QUALITY, crops)
        except (MediaError, OSError) as error:
            return Strip(note=f"The clip cannot be shown: {error}")
        labels = [_label(index, frames.fps) for index in frames.indices] if len(frames.indices) > 1 else [""]
        pictures = zip(frames.pictures, labels, strict=True)
        return Strip(tuple(Frame(data, label) for data, label in pictures), note)

    return read


def read_many(clips: Mapping[Hashable, Any], read: ReadFrames) -> dict[Hashable, Strip]:
    """The frames of several clips, read in parallel.

    Args:
        clips: media by clip.
        read: reads one.
    """
    keys: Sequence[Hashable] = list(clips)
    with ThreadPoolExecutor(_READERS) as pool:
        return dict(zip(keys, pool.map(read, [clips[key] for key in keys]), strict=True))


def _label(index: int, fps: float | None) -> str:
    return f"frame {index + 1}" if not fps else f"{index / fps:.1f} s"
