"""Images to normalised tensors, for the image tower; shaped as transformers' image processors are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_processing_utils import BatchFeature

from hound_plugin.errors import MediaDecodeError
from hound_plugin.media.clip import check_size
from hound_plugin.media.frame_cache import content_key
from hound_plugin.media.pictures import open_picture
from hound_plugin.processing.media_inputs import as_images, channels_last
from hound_plugin.processing.pixels import (
    IMAGE_MEAN,
    IMAGE_STD,
    RESCALE_FACTOR,
    PixelSteps,
    StepSettings,
    as_tensors,
    crop_offset,
    normalise,
    rescale,
    resized,
)


class LlavaHoundImageProcessor(StepSettings, TorchvisionBackend):
    """Preprocessing of LanguageBind's image tower.

    Args:
        size: side of the square input in pixels, or ``{"shortest_edge": side}``.
        image_mean, image_std: per channel, for values in 0..1 (CLIP's statistics).
        do_pad: make images square with the mean colour first, as a checkpoint with ``image_aspect_ratio: pad`` was
            trained.
        kwargs: the other settings of transformers' image processors.

    Raises:
        SettingsError: a setting that the steps cannot honour.
    """

    model_input_names = ["pixel_values_images"]  # noqa: RUF012
    resample = Image.Resampling.BICUBIC
    fixed = {  # noqa: RUF012
        "do_resize": True, "do_center_crop": True, "do_convert_rgb": True, "resample": Image.Resampling.BICUBIC,
    }  # fmt: skip

    def read(self, image: Any, steps: PixelSteps | None = None) -> torch.Tensor:
        """Open and normalise one image (path, PIL image, array, bytes, stream, or ``{"path", "bytes"}``).

        Returns:
            float32 ``[3, side, side]``.

        Raises:
            MediaError: it cannot be found or read.
        """
        steps = steps or self.steps()
        if self.pixel_cache is None:
            return _read(image, steps)
        pixels: torch.Tensor = self.pixel_cache.get_or_compute(image, ("image", steps), lambda item: _read(item, steps))
        return pixels

    def content_key(self, image: Any) -> str | None:
        """What tells a processed image from every other: content, and every setting of the processing.

        Args:
            image: as for :meth:`read`.

        Returns:
            64 hexadecimal digits; None for images in memory and paths that cannot be examined.
        """
        if isinstance(image, dict) and image.get("bytes") is None:
            image = image.get("path")
        return content_key(image, image=asdict(self.steps()))

    def preprocess(self, images: Any, *args: Any, **kwargs: Any) -> BatchFeature:
        """Images to ``pixel_values_images`` ``[N, 3, side, side]``.

        Args:
            images: one, or a list, nested or not.
            kwargs: settings for this call, and ``return_tensors``: ``pt`` (the default), ``np``, or None for a list.

        Raises:
            SettingsError: a setting that is unknown or that the steps cannot honour.
            MediaError: an image cannot be used.
        """
        kind, device = kwargs.pop("return_tensors", "pt"), kwargs.pop("device", None)
        steps = self.steps(**kwargs)
        pixels = [self.read(image, steps).to(device) for image in as_images(images)]
        return BatchFeature({"pixel_values_images": as_tensors(pixels, kind)})


def open_image(image: Any, channels_first: bool | None = None) -> Image.Image:
    """Open an image given as path, PIL image, uint8 array or tensor, bytes, stream or ``{"path", "bytes"}``.

    Args:
        image: arrays are ``[H, W, 3]`` or ``[3, H, W]``.
        channels_first: of an array whose shape does not tell.

    Raises:
        MediaError: as :func:`hound_plugin.media.pictures.open_picture`.
    """
    if isinstance(image, dict):
        content = image.get("bytes")
        return open_image(content if content is not None else image.get("path"), channels_first)
    image = channels_last(image, 3, channels_first)
    known = isinstance(image, str | os.PathLike | bytes | bytearray | Image.Image | np.ndarray)
    if not known and not hasattr(image, "read"):
        raise MediaDecodeError(f"Expected an image (path, PIL image, array, bytes or stream), got {type(image)}.")
    return open_picture(image)


def _read(image: Any, steps: PixelSteps) -> torch.Tensor:
    return image_to_tensor(
        open_image(image, steps.channels_first),
        steps.side,
        steps.mean,
        steps.std,
        pad=steps.pad,
        rescale_factor=steps.rescale_factor,
        do_normalize=steps.normalise,
    )


def image_to_tensor(
    image: Image.Image,
    size: int = 224,
    mean: Sequence[float] = IMAGE_MEAN,
    std: Sequence[float] = IMAGE_STD,
    pad: bool = False,
    rescale_factor: float | None = RESCALE_FACTOR,
    do_normalize: bool = True,
) -> torch.Tensor:
    """Resize the short side (bicubic on the float tensor, no antialias, not clamped), crop the centre, normalise.

    Alpha is dropped and palettes are resolved by ``convert("RGB")``; an EXIF orientation is not applied. Both as in
    the original.

    Args:
        image: any mode.
        size: side of the square result in pixels.
        mean, std: per channel, for values in 0..1.
        pad: first make it square with the mean colour (:func:`expand_to_square`).
        rescale_factor: of the values 0..255; None: none.
        do_normalize: whether ``mean`` and ``std`` are applied.

    Returns:
        float32 ``[3, size, size]``; bicubic overshoot can leave the range of normalised 0..1.

    Raises:
        SettingsError: ``size`` is below 1.
        MediaDecodeError: the image data is damaged or of more than 8 bits a channel, or the image is too large or too
            narrow to be held in memory.
    """
    width, height = image.size
    name = getattr(image, "filename", None) or "the image"
    check_size(width, height, name)
    if pad:
        width = height = max(width, height)
        check_size(width, height, f"{name}, padded to a square")
    check_size(*resized(width, height, size), f"{name}, resized")
    image = open_picture(image, name)
    if pad:
        image = expand_to_square(image, tuple(int(value * 255) for value in mean))
    pixels = rescale(torch.from_numpy(np.array(image)).permute(2, 0, 1).float(), rescale_factor)
    new_height, new_width = resized(pixels.shape[1], pixels.shape[2], size)
    if pixels.shape[1:] != (new_height, new_width):
        pixels = functional.interpolate(
            pixels[None], size=(new_height, new_width), mode="bicubic", align_corners=False, antialias=False
        )[0]
    top, left = crop_offset(new_height, size), crop_offset(new_width, size)
    pixels = pixels[:, top : top + size, left : left + size].contiguous()
    return normalise(pixels, mean, std) if do_normalize else pixels


def expand_to_square(image: Image.Image, background: tuple[int, ...]) -> Image.Image:
    """Pad the short side on both ends, at offset ``(long - short) // 2``, with one colour.

    Args:
        image: mode RGB.
        background: a value per channel, 0..255.

    Returns:
        An image of ``max(width, height)`` squared; the image itself if it is square already.
    """
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    square = Image.new(image.mode, (side, side), background)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square
