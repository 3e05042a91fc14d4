"""Scenes of plain coloured shapes, their frames, and clips of them.

A scene is pure data, ``render`` a pure function of it: equal scenes give equal frames. Four families:

``still``   one to four equal shapes that stand still; answers what, which colour, how many.
``motion``  one shape that moves left, right, up or down. It leaves at one side and comes back at the other, and
            its starting point is uniform over the frame. At every instant its position is therefore uniform whatever
            the direction, and the frames of a move, played backwards, are those of the opposite move: neither one
            frame nor all of them without their order tell a direction from its opposite.
``order``   two different shapes shown one after the other. The first and the last frame are empty, and the two
            swap roles equally often: without their order the frames do not tell what came first.
``image``   one to four equal shapes on a single frame.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hound_plugin.errors import EmptyMediaError, SettingsError
from hound_plugin.records.files import whole_path

SIZE = 64
"""Height and width of every frame in pixels."""
FRAMES = 15
"""Frames of a clip; eight taken uniformly are every second one."""
FPS = 8
"""Frames per second of a clip."""

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (230, 30, 30),
    "green": (20, 190, 40),
    "blue": (40, 70, 240),
    "yellow": (240, 220, 30),
}
SHAPES: tuple[str, ...] = ("ring", "square", "cross")
DIRECTIONS: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
"""Unit steps ``(dx, dy)``, y pointing down."""
COUNTS: tuple[int, ...] = (1, 2, 3, 4)
SPEEDS = (1.5, 2.2)
"""Slowest and fastest motion, in pixels per frame."""

Family = Literal["still", "motion", "order", "image"]
FAMILIES: tuple[Family, ...] = ("still", "motion", "order", "image")


@dataclass(frozen=True)
class Shape:
    """One shape and where it is at which time.

    ``x`` and ``y`` are its centre in pixels at frame 0, ``dx`` and ``dy`` its steps in pixels per frame, ``radius``
    half its extent; it is drawn in frames ``start <= t < stop``.
    """

    colour: str
    shape: str
    x: float
    y: float
    radius: float
    dx: float = 0.0
    dy: float = 0.0
    start: int = 0
    stop: int = FRAMES


@dataclass(frozen=True)
class Scene:
    """Shapes over a plain background of grey level ``background`` (0 to 255)."""

    family: Family
    shapes: tuple[Shape, ...]
    background: int = 0
    direction: str | None = None

    @property
    def frames(self) -> int:
        """Number of frames: 1 for an image, else ``FRAMES``."""
        return 1 if self.family == "image" else FRAMES


def _square(x: NDArray[np.float64], y: NDArray[np.float64], r: float) -> NDArray[np.float64]:
    return np.maximum(np.abs(x), np.abs(y)) - r


def _ring(x: NDArray[np.float64], y: NDArray[np.float64], r: float) -> NDArray[np.float64]:
    return np.abs(np.hypot(x, y) - 0.75 * r) - 0.25 * r


def _cross(x: NDArray[np.float64], y: NDArray[np.float64], r: float) -> NDArray[np.float64]:
    x, y = np.abs(x), np.abs(y)
    return np.maximum(np.maximum(x, y) - r, np.minimum(x, y) - 0.3 * r)


_DISTANCE: dict[str, Callable[[NDArray[np.float64], NDArray[np.float64], float], NDArray[np.float64]]] = {
    "ring": _ring,
    "square": _square,
    "cross": _cross,
}


def render(scene: Scene) -> NDArray[np.uint8]:
    """Draw a scene.

    Returns:
        uint8 RGB frames ``[T, SIZE, SIZE, 3]``, T = 1 for an image and ``FRAMES`` else. Edges are one pixel soft; what
        leaves the frame on one side enters on the other.

    Raises:
        SettingsError: a shape or a colour has no such name.
    """
    grid = np.arange(SIZE) + 0.5
    times = np.arange(scene.frames)
    frames = np.full((scene.frames, SIZE, SIZE, 3), float(scene.background))
    for shape in scene.shapes:
        if shape.shape not in _DISTANCE or shape.colour not in COLOURS:
            raise SettingsError(
                f"expected a shape of {sorted(_DISTANCE)} and a colour of {sorted(COLOURS)}, "
                f"got {shape.shape!r} and {shape.colour!r}"
            )
        x = _wrapped(grid[None, :] - (shape.x + shape.dx * times)[:, None])[:, None, :]  # [T, 1, W]
        y = _wrapped(grid[None, :] - (shape.y + shape.dy * times)[:, None])[:, :, None]  # [T, H, 1]
        cover = np.clip(0.5 - _DISTANCE[shape.shape](x, y, shape.radius), 0.0, 1.0)
        cover = cover * ((times >= shape.start) & (times < shape.stop))[:, None, None]
        frames += cover[..., None] * (np.asarray(COLOURS[shape.colour], float) - frames)
    return np.rint(frames).astype(np.uint8)


def _wrapped(offset: NDArray[np.float64]) -> NDArray[np.float64]:
    """Offsets in pixels, taken the short way round the frame: in ``[-SIZE / 2, SIZE / 2)``."""
    return (offset + SIZE / 2) % SIZE - SIZE / 2


def draw_scenes(family: Family, number: int, rng: np.random.Generator) -> list[Scene]:
    """Draw ``number`` scenes of a family, balanced in everything that a question asks for.

    Every combination of what is asked occurs equally often, to within one; positions, sizes, times and the
    background are random. The scenes come in random order.

    Raises:
        SettingsError: no family of that name.
    """
    makers: dict[str, tuple[Callable[..., Scene], list[tuple[object, ...]]]] = {
        "still": (_still, [(c, s, n) for n in COUNTS for s in SHAPES for c in COLOURS]),
        "image": (_image, [(c, s, n) for n in COUNTS for s in SHAPES for c in COLOURS]),
        "motion": (_motion, [(c, s, d) for d in DIRECTIONS for s in SHAPES for c in COLOURS]),
        "order": (
            _order,
            [(a, s, b, z) for a in COLOURS for b in COLOURS for s in SHAPES for z in SHAPES if a != b and s != z],
        ),
    }
    if family not in makers:
        raise SettingsError(f"expected a family of {list(FAMILIES)}, got {family!r}")
    make, deck = makers[family]
    scenes: list[Scene] = []
    while len(scenes) < number:
        for index in rng.permutation(len(deck))[: number - len(scenes)]:
            scenes.append(make(rng, *deck[index]))
    return [scenes[index] for index in rng.permutation(number)]


def _background(rng: np.random.Generator) -> int:
    return int(rng.integers(0, 41))


def _still(rng: np.random.Generator, colour: str, shape: str, count: int) -> Scene:
    """``count`` equal shapes, each in a quarter of the frame of its own."""
    radius = float(rng.uniform(10.0, 13.0))
    shapes = []
    for cell in rng.permutation(4)[:count]:
        x, y = (SIZE / 2 * (cell % 2), SIZE / 2 * (cell // 2))
        jitter = rng.uniform(radius + 1.0, SIZE / 2 - radius - 1.0, size=2)
        shapes.append(Shape(colour, shape, float(x + jitter[0]), float(y + jitter[1]), radius))
    return Scene("still", tuple(shapes), _background(rng))


def _image(rng: np.random.Generator, colour: str, shape: str, count: int) -> Scene:
    still = _still(rng, colour, shape, count)
    return Scene("image", still.shapes, still.background)


def _motion(rng: np.random.Generator, colour: str, shape: str, direction: str) -> Scene:
    """One shape that moves by a third to a half of the frame; its start is uniform over the whole frame."""
    radius = float(rng.uniform(11.0, 14.0))
    x, y = rng.uniform(0.0, SIZE, size=2)
    speed = float(rng.uniform(*SPEEDS))
    dx, dy = DIRECTIONS[direction]
    moving = Shape(colour, shape, float(x), float(y), radius, dx * speed, dy * speed)
    return Scene("motion", (moving,), _background(rng), direction)


def _order(rng: np.random.Generator, colour: str, shape: str, later_colour: str, later_shape: str) -> Scene:
    """Two shapes, four to six frames each, one after the other; the first and last frames stay empty."""
    durations = rng.integers(4, 7, size=2)
    spare = FRAMES - 2 - int(durations.sum())
    before = int(rng.integers(0, spare + 1))
    between = int(rng.integers(0, spare - before + 1))
    shapes, start = [], 1 + before
    for (c, s), length in zip(((colour, shape), (later_colour, later_shape)), durations, strict=True):
        radius = float(rng.uniform(11.0, 14.0))
        x, y = rng.uniform(radius + 1.0, SIZE - radius - 1.0, size=2)
        shapes.append(Shape(c, s, float(x), float(y), radius, start=start, stop=start + int(length)))
        start += int(length) + between
    return Scene("order", tuple(shapes), _background(rng))


def write_clip(path: str | os.PathLike[str], frames: NDArray[np.uint8], fps: int = FPS) -> None:
    """Encode frames as an H.264 mp4 (yuv420p); the file appears whole or not at all.

    Args:
        path: where to; its folder must exist.
        frames: uint8 RGB ``[T, H, W, 3]``, H and W even.
        fps: frames per second.

    The bytes depend only on the frames and on the encoder's build: one thread, no time stamps of the day.

    Raises:
        EmptyMediaError: there is no frame.
        SettingsError: the array is not uint8 ``[T, H, W, 3]`` with even sides.
    """
    import av

    _check_frames(frames)
    # x264's look-ahead, which macroblock trees and B-frames rest on, is not deterministic in every build
    options = {"crf": "10", "preset": "veryfast", "x264-params": "threads=1:mbtree=0:bframes=0:log-level=error"}
    with (
        whole_path(path, sync=False) as part,
        av.open(str(part), "w", format="mp4", options={"fflags": "+bitexact"}) as container,
    ):
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def write_image(path: str | os.PathLike[str], frame: NDArray[np.uint8]) -> None:
    """Write one uint8 RGB frame ``[H, W, 3]`` as PNG; the file appears whole or not at all."""
    from PIL import Image

    with whole_path(path, sync=False) as part:
        Image.fromarray(frame).save(part, format="PNG")


def _check_frames(frames: NDArray[np.uint8]) -> None:
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        raise SettingsError(f"expected uint8 frames [T, H, W, 3], got {frames.dtype} {list(frames.shape)}")
    if not len(frames):
        raise EmptyMediaError("a clip needs one frame or more, got none")
    if frames.shape[1] % 2 or frames.shape[2] % 2:
        raise SettingsError(f"yuv420p needs even sides, got {frames.shape[1]} x {frames.shape[2]}: crop or pad by one")
