"""The frames that are shown next to an answer: those that the model saw."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from hound_plugin.errors import MediaError
from hound_plugin.media.frame_sampling import FrameSampling
from hound_plugin.media.jpeg_frames import jpeg_frames
from hound_plugin.pages.content import Frame, Strip

SIZE = 160
LARGE = 360
QUALITY = 75
_READERS = 4
NO_CLIP = "a question without a clip"
_WHICH: dict[FrameSampling, str] = {
    "uniform": "spread evenly over the clip",
    "first_10s": "spread evenly over its first 10 seconds",
    "fps": "spread evenly over the clip at 2 frames per second",
}


@dataclass(frozen=True)
class FrameReader:
    """Reads the frames of a clip as the model chose them; a clip that cannot be read gives a note instead.

    Attributes:
        num_frames, sampling: as the model chose them.
        size: longer side in pixels.
        crops: the model sees the centred square of each frame; the rest is darkened.
        caution: why these may not be the frames that the model saw; empty if they are.
    """

    num_frames: int = 8
    sampling: FrameSampling = "uniform"
    size: int = SIZE
    crops: bool = False
    caution: str = ""

    @property
    def legend(self) -> str:
        """What the frames are, in a sentence."""
        seen = "" if self.caution else ", as the model saw them"
        cut = " Darkened borders are cut off before the model." if self.crops else ""
        more = f" {self.caution}" if self.caution else ""
        return f"{self.num_frames} frames of each clip, {_WHICH[self.sampling]}{seen}.{cut}{more}"

    def __call__(self, media: Any) -> Strip:
        """The frames of a path, a folder of frames or a list of frames; None stands for no clip."""
        if media is None:
            return Strip(note=NO_CLIP)
        try:
            frames = jpeg_frames(media, self.num_frames, self.size, self.sampling, QUALITY, self.crops)
        except (MediaError, OSError) as error:
            return Strip(note=f"The clip cannot be shown: {error}")
        # not seconds: index / fps is wrong for a variable frame rate
        labels = [f"frame {index + 1}" for index in frames.indices] if len(frames.indices) > 1 else [""]
        pictures = zip(frames.pictures, labels, strict=True)
        return Strip(tuple(Frame(data, label) for data, label in pictures))


def read_many(clips: Mapping[str, Any], read: FrameReader) -> dict[str, Strip]:
    """The frames of several clips, read in parallel.

    Args:
        clips: media by clip.
        read: reads one.
    """
    with ThreadPoolExecutor(_READERS) as pool:
        return dict(zip(clips, pool.map(read, clips.values()), strict=True))
