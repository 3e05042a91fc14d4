"""Frames and images to normalised tensors, with the sizes and statistics of one checkpoint."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature

from hound_plugin.processing.transforms import IMAGE_MEAN, IMAGE_STD, image_to_tensor, video_frames_to_tensor


class LlavaHoundImageProcessor(BaseImageProcessor):
    """Preprocessing of the two LanguageBind towers; images and clips differ in the order of their steps.

    Args:
        size: side of the square input in pixels.
        image_mean, image_std: per channel, for values in 0..1 (CLIP's statistics).
    """

    model_input_names = ["pixel_values_images", "pixel_values_videos"]  # noqa: RUF012

    def __init__(
        self,
        size: int = 224,
        image_mean: tuple[float, ...] = IMAGE_MEAN,
        image_std: tuple[float, ...] = IMAGE_STD,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.size = size
        self.image_mean = tuple(image_mean)
        self.image_std = tuple(image_std)

    def image(self, image: Image.Image, pad: bool) -> torch.Tensor:
        """One image to float32 ``[3, size, size]``."""
        return image_to_tensor(image, self.size, self.image_mean, self.image_std, pad=pad)

    def frames(self, frames: np.ndarray) -> torch.Tensor:
        """Frames of one clip, uint8 ``[T, H, W, 3]``, to float32 ``[T, 3, size, size]``."""
        return video_frames_to_tensor(frames, self.size, self.image_mean, self.image_std)

    def frame(self, frame: np.ndarray) -> np.ndarray:
        """One frame, uint8 ``[H, W, 3]``, to float32 ``[3, size, size]``: the same numbers as :meth:`frames`."""
        writable = frame if frame.flags.writeable else frame.copy()  # torch takes no other
        return self.frames(writable[None])[0].numpy()

    def preprocess(self, images: Any, pad: bool = False, **kwargs: Any) -> BatchFeature:
        """Images to ``pixel_values_images`` ``[N, 3, size, size]``."""
        items = images if isinstance(images, list | tuple) else [images]
        return BatchFeature({"pixel_values_images": torch.stack([self.image(item, pad) for item in items])})
