from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from hound_plugin.errors import MediaDecodeError, SettingsError
from hound_plugin.media.decode import read_clip
from hound_plugin.processing.image_processor import expand_to_square, image_to_tensor
from hound_plugin.processing.pixels import IMAGE_MEAN, IMAGE_STD
from hound_plugin.processing.video_processor import video_frames_to_tensor

GOLDEN = Path(__file__).parents[1] / "golden"
STRIDED = np.load(GOLDEN / "golden" / "a_video_pixel_values_s4.npz")
IMAGES = np.load(GOLDEN / "golden" / "a_image_pixel_values.npz")
LIMIT = 2e-5


def assert_near(actual: torch.Tensor, expected: np.ndarray | torch.Tensor, limit: float = LIMIT) -> None:
    difference = (actual - torch.as_tensor(expected)).abs()
    assert difference.max() <= limit, f"max {difference.max():.3g}, mean {difference.mean():.3g}, limit {limit:g}"


def recorded_clip(key: str) -> np.ndarray:
    clip, backend = key.split(".")
    if backend == "frames":
        return read_clip(GOLDEN / "frames" / clip).frames
    sampling = {"decord": "first_10s", "opencv": "uniform"}[backend]
    return read_clip(GOLDEN / "media" / f"{clip}.mp4", sampling=sampling).frames


@pytest.mark.parametrize("key", STRIDED.files)
def test_video_equals_the_original(key: str) -> None:
    tensor = video_frames_to_tensor(recorded_clip(key))
    assert tensor.shape == (8, 3, 224, 224)
    assert tensor.dtype == torch.float32
    assert_near(tensor.transpose(0, 1)[..., ::4, ::4], STRIDED[key])  # recorded as [C, T, H, W]


def test_video_equals_the_original_at_every_pixel() -> None:
    full = np.load(GOLDEN / "golden" / "a_video_pixel_values_full.npz")["clip_portrait.frames"]
    assert_near(video_frames_to_tensor(recorded_clip("clip_portrait.frames")).transpose(0, 1), full)


def plain_video(frames: np.ndarray, size: int) -> torch.Tensor:
    """The original's steps as they stand: every pixel normalised, every frame resized whole, then cropped."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    pixels = (torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255 - mean) / std
    height, width = pixels.shape[-2:]
    side = math.floor(max(height, width) / min(height, width) * size)
    target = (side, size) if width < height else (size, side)
    pixels = functional.interpolate(pixels, size=target, mode="bilinear", align_corners=False)
    top, left = round((target[0] - size) / 2.0), round((target[1] - size) / 2.0)
    return pixels[..., top : top + size, left : left + size]


@pytest.mark.parametrize(
    ("height", "width"),
    [(720, 1280), (1280, 720), (360, 640), (240, 320), (224, 224), (225, 224), (37, 91), (433, 240)],
)
@pytest.mark.parametrize("size", [224, 56, 33])
def test_video_shortcut_equals_the_plain_steps(height: int, width: int, size: int) -> None:
    frames = np.random.default_rng(height).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    assert_near(video_frames_to_tensor(frames, size), plain_video(frames, size), 2e-6)


def test_video_takes_a_strided_view() -> None:
    frames = np.random.default_rng(3).integers(0, 256, (4, 50, 60, 3), dtype=np.uint8)
    assert torch.equal(video_frames_to_tensor(frames[::2, :, 10:]), video_frames_to_tensor(frames[::2, :, 10:].copy()))


@pytest.mark.parametrize("bad", [np.zeros((8, 3, 32, 32), np.uint8), np.zeros((8, 32, 32, 3), np.float32)])
def test_video_refuses_another_layout(bad: np.ndarray) -> None:
    with pytest.raises(MediaDecodeError, match=r"\[T, H, W, 3\] of uint8"):
        video_frames_to_tensor(bad)
    with pytest.raises(SettingsError, match="at least 1 pixel; got 0"):
        video_frames_to_tensor(np.zeros((1, 4, 4, 3), np.uint8), 0)


@pytest.mark.parametrize("key", IMAGES.files)
def test_image_equals_the_original(key: str) -> None:
    name, mode = key.split(".")
    with Image.open(next((GOLDEN / "media").glob(f"{name}.*"))) as image:
        tensor = image_to_tensor(image, pad=mode == "pad")
    assert tensor.shape == (3, 224, 224)
    assert tensor.dtype == torch.float32
    assert_near(tensor[:, ::4, ::4], IMAGES[key])


def test_image_keeps_bicubic_overshoot() -> None:
    """The resize is not clamped: next to an edge, values leave what 0..255 can give."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, 32:] = 255
    assert image_to_tensor(Image.fromarray(pixels), 150)[0].max() > (1 - IMAGE_MEAN[0]) / IMAGE_STD[0] + 0.05


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "1", "CMYK"])
def test_image_modes_are_converted(mode: str) -> None:
    image = Image.linear_gradient("L").convert("RGB").convert(mode)
    assert torch.equal(image_to_tensor(image, 32), image_to_tensor(image.convert("RGB"), 32))


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_images_of_more_than_8_bits_are_refused(mode: str) -> None:
    with pytest.raises(MediaDecodeError, match=rf"Expected 8 bits per channel .* \(PIL mode {mode}\)"):
        image_to_tensor(Image.new(mode, (40, 30), 9), 32)


def test_exif_orientation_is_not_applied(tmp_path: Path) -> None:
    image = Image.linear_gradient("L").convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as turned:
        assert turned.getexif()[0x0112] == 6
        assert torch.equal(image_to_tensor(turned), image_to_tensor(image))


def test_damaged_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    Image.effect_noise((80, 80), 50).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with Image.open(path) as image, pytest.raises(MediaDecodeError, match="damaged"):
        image_to_tensor(image)


@pytest.mark.parametrize(("size", "offset"), [((7, 4), (0, 1)), ((4, 7), (1, 0)), ((5, 5), (0, 0))])
def test_expand_to_square(size: tuple[int, int], offset: tuple[int, int]) -> None:
    square = np.asarray(expand_to_square(Image.new("RGB", size, (1, 2, 3)), (9, 8, 7)))
    left, top = offset
    expected = np.full((max(size), max(size), 3), (9, 8, 7), np.uint8)
    expected[top : top + size[1], left : left + size[0]] = (1, 2, 3)
    assert np.array_equal(square, expected)


@pytest.mark.parametrize(
    ("size", "pad", "message"),
    [
        ((65500, 1), True, "padded to a square; got 65500 x 65500"),
        ((65500, 1), False, "resized; got 65500000 x 1000"),
        ((1, 65500), False, "resized; got 1000 x 65500000"),
        ((8200, 8200), False, "the image; got 8200 x 8200"),
    ],
)
def test_a_picture_that_would_fill_the_memory(size: tuple[int, int], pad: bool, message: str) -> None:
    """A file of a hundred bytes can hold one."""
    with pytest.raises(MediaDecodeError, match=message):
        image_to_tensor(Image.new("RGB", size), 1000, pad=pad)
