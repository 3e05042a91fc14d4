"""Scenes are deterministic and balanced, and time questions need time."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hound_plugin.demo.clips import (
    COLOURS,
    DIRECTIONS,
    FAMILIES,
    FRAMES,
    SIZE,
    Scene,
    Shape,
    draw_scenes,
    render,
    write_clip,
    write_image,
)
from hound_plugin.errors import EmptyMediaError, SettingsError


def scenes(family: str, number: int, seed: int = 0) -> list[Scene]:
    return draw_scenes(family, number, np.random.default_rng(seed))  # type: ignore[arg-type]


def coarse(scene: Scene) -> NDArray[np.float64]:
    """Where there is light: ``[T, 64]``, 8 x 8 cells, background taken off."""
    light = render(scene).max(axis=-1).astype(float) - scene.background
    return light.reshape(-1, 8, SIZE // 8, 8, SIZE // 8).mean(axis=(2, 4)).reshape(len(light), 64)


def nearest_mean(train: NDArray[np.float64], names: list[str], test: NDArray[np.float64]) -> list[str]:
    kinds = sorted(set(names))
    means = np.stack([train[[name == kind for name in names]].mean(axis=0) for kind in kinds])
    return [kinds[np.linalg.norm(means - row, axis=1).argmin()] for row in test]


def accuracy(of: list[str], truth: list[str]) -> float:
    return float(np.mean([a == b for a, b in zip(of, truth, strict=True)]))


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_seeds_give_equal_scenes_and_frames(family: str) -> None:
    first, again, other = scenes(family, 20), scenes(family, 20), scenes(family, 20, seed=1)
    assert first == again
    assert not set(first) & set(other)
    frames = render(first[0])
    assert frames.dtype == np.uint8
    assert frames.shape == (1 if family == "image" else FRAMES, SIZE, SIZE, 3)
    assert np.array_equal(frames, render(again[0]))


def test_unknown_names_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"expected a family of .* got 'storm'"):
        scenes("storm", 1)
    with pytest.raises(SettingsError, match="got 'blob' and 'red'"):
        render(Scene("still", (Shape("red", "blob", 8, 8, 4),)))


def test_everything_asked_for_is_balanced() -> None:
    still, motion = scenes("still", 480), scenes("motion", 480)
    assert set(Counter(len(scene.shapes) for scene in still).values()) == {120}
    assert set(Counter(scene.direction for scene in motion).values()) == {120}
    for family in (still, motion):
        assert set(Counter(scene.shapes[0].colour for scene in family).values()) == {120}
        assert set(Counter(scene.shapes[0].shape for scene in family).values()) == {160}


def test_still_shapes_do_not_touch() -> None:
    for scene in scenes("still", 48):
        lit = (np.abs(render(scene)[0].astype(int) - scene.background).max(axis=-1) > 3).sum()
        alone = sum(
            (np.abs(render(replace(scene, shapes=(shape,)))[0].astype(int) - scene.background).max(-1) > 3).sum()
            for shape in scene.shapes
        )
        assert lit == alone


def test_a_move_played_backwards_is_the_opposite_move() -> None:
    opposite = {"left": "right", "right": "left", "up": "down", "down": "up"}
    for scene in scenes("motion", 16):
        (shape,) = scene.shapes
        end = replace(
            shape,
            x=shape.x + shape.dx * (FRAMES - 1), y=shape.y + shape.dy * (FRAMES - 1), dx=-shape.dx, dy=-shape.dy,
        )  # fmt: skip
        back = replace(scene, shapes=(end,), direction=opposite[scene.direction or ""])
        assert np.abs(render(scene)[::-1].astype(int) - render(back)).max() <= 1


@pytest.mark.parametrize("time", [0, 7, FRAMES - 1])
def test_no_single_frame_gives_the_direction_away(time: int) -> None:
    train, test = scenes("motion", 1200), scenes("motion", 400, seed=1)
    names, truth = [str(s.direction) for s in train], [str(s.direction) for s in test]
    guesses = nearest_mean(np.stack([coarse(s)[time] for s in train]), names, np.stack([coarse(s)[time] for s in test]))
    assert accuracy(guesses, truth) < 0.25 + 0.08  # chance and 3.7 standard errors


def test_frames_without_order_do_not_tell_a_direction_from_its_opposite() -> None:
    def horizontal(number: int, seed: int) -> list[Scene]:
        return [s for s in scenes("motion", number, seed) if s.direction in ("left", "right")]

    train, test = horizontal(1200, 0), horizontal(600, 1)
    names, truth = [str(s.direction) for s in train], [str(s.direction) for s in test]
    bag = [np.stack([coarse(s).mean(axis=0) for s in part]) for part in (train, test)]
    assert accuracy(nearest_mean(bag[0], names, bag[1]), truth) < 0.5 + 0.11


def test_frames_in_order_do_give_the_direction() -> None:
    found, truth = [], []
    for scene in scenes("motion", 100):
        light = coarse(scene).reshape(FRAMES, 8, 8)
        scores = {
            name: sum((np.roll(light[t], (dy, dx), axis=(0, 1)) * light[t + 3]).sum() for t in range(FRAMES - 3))
            for name, (dx, dy) in DIRECTIONS.items()
        }
        found.append(max(scores, key=scores.__getitem__))
        truth.append(str(scene.direction))
    assert accuracy(found, truth) > 0.95


def test_order_pairs_are_symmetric_and_both_ends_are_empty() -> None:
    drawn = scenes("order", 720)
    pairs = Counter(tuple((s.colour, s.shape) for s in scene.shapes) for scene in drawn)
    assert set(pairs.values()) == {10}
    assert all(pairs[(first, last)] == pairs[(last, first)] for first, last in pairs)
    for scene in drawn[:40]:
        first, last = scene.shapes
        assert 1 <= first.start < first.stop <= last.start < last.stop <= FRAMES - 1
        frames = render(scene)
        assert (frames[[0, -1]] == scene.background).all()
        for colour, t in ((first.colour, first.start), (last.colour, last.start)):
            assert (frames[t].reshape(-1, 3) == COLOURS[colour]).all(axis=1).any()


def test_sampled_frames_show_both_things_of_an_order() -> None:
    seen = np.linspace(0, FRAMES - 1, 8, dtype=int)
    for scene in scenes("order", 144):
        assert all(sum(shape.start <= t < shape.stop for t in seen) >= 2 for shape in scene.shapes)


@pytest.mark.parametrize("family", ["still", "motion", "order"])
def test_a_clip_decodes_to_the_rendered_frames(family: str, tmp_path: Path) -> None:
    for number, scene in enumerate(scenes(family, 4)):
        path = tmp_path / f"{number}.mp4"
        frames = render(scene)
        write_clip(path, frames)
        with av.open(str(path)) as container:
            assert container.streams.video[0].codec_context.name == "h264"
            assert container.streams.video[0].average_rate == 8
            decoded = np.stack([image.to_ndarray(format="rgb24") for image in container.decode(video=0)])
        assert decoded.shape == frames.shape
        error = np.abs(decoded.astype(int) - frames)
        assert error.mean() < 4, f"max {error.max()}, mean {error.mean():.2f}"
        halves = [f.reshape(FRAMES, SIZE // 8, 8, SIZE // 8, 8, 3).mean(axis=(2, 4)) for f in (decoded, frames)]
        assert np.abs(halves[0] - halves[1]).max() < 24
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"{number}.mp4" for number in range(4)]


def test_equal_frames_give_equal_bytes(tmp_path: Path) -> None:
    frames = render(scenes("motion", 1)[0])
    for name in ("a", "b"):
        write_clip(tmp_path / f"{name}.mp4", frames)
        write_image(tmp_path / f"{name}.png", frames[0])
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), frames[0])


def test_bad_frames_are_refused_and_leave_no_file(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with pytest.raises(SettingsError, match=r"expected uint8 frames \[T, H, W, 3\], got float64"):
        write_clip(path, np.zeros((2, 8, 8, 3)))  # type: ignore[arg-type]
    with pytest.raises(EmptyMediaError, match="one frame or more"):
        write_clip(path, np.zeros((0, 8, 8, 3), np.uint8))
    with pytest.raises(SettingsError, match="even sides, got 7 x 8"):
        write_clip(path, np.zeros((2, 7, 8, 3), np.uint8))
    assert not list(tmp_path.iterdir())
