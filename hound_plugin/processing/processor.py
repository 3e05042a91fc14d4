"""Text, images and clips to model inputs.

The number of visual tokens is arithmetic (frames x patches), so that :meth:`LlavaHoundProcessor.tokens_per_video` and
everything that only counts never opens a file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoConfig, AutoTokenizer, BatchFeature, ProcessorMixin
from transformers.utils import PROCESSOR_NAME, cached_file

from hound_plugin.errors import CheckpointError, MediaDecodeError, SettingsError, damage_named
from hound_plugin.media.decode import read_clip
from hound_plugin.media.frame_cache import FrameCache
from hound_plugin.media.pictures import open_picture
from hound_plugin.media.pixel_cache import PixelCache
from hound_plugin.processing.image_processor import LlavaHoundImageProcessor
from hound_plugin.processing.prompt import (
    IMAGE_TOKEN,
    SYSTEM,
    VIDEO_TOKEN,
    add_placeholder_tokens,
    expand_prompt,
)
from hound_plugin.processing.prompt import chat_template as template_for
from hound_plugin.records.media_paths import is_image_path

_HUB_KEYS = ("cache_dir", "force_download", "local_files_only", "token", "revision")


_SETTINGS = ("num_frames", "frame_sampling", "image_aspect_ratio", "system")


class LlavaHoundProcessor(ProcessorMixin):
    """Processor of LLaVA-Hound.

    Args:
        image_processor: pixels to tensors.
        tokenizer: a fast LLaMA tokenizer; the two placeholders are added above ``vocab_size`` if they are missing.
        num_frames: frames taken from a clip.
        frame_sampling: ``uniform``, ``first_10s`` or ``fps``; see :mod:`hound_plugin.media.frame_sampling`.
        image_aspect_ratio: ``pad`` or None, as the checkpoint was trained.
        image_patches, frame_patches: visual tokens of one image and of one frame.
        frame_multiple: the video tower takes multiples of so many frames.
        vocab_size: rows of the model's embedding.
        system: the system prompt of conversations that bring none, as the model was trained.
    """

    def __init__(
        self,
        image_processor: LlavaHoundImageProcessor | None = None,
        tokenizer: Any = None,
        num_frames: int = 8,
        frame_sampling: str = "uniform",
        image_aspect_ratio: str | None = None,
        image_patches: int = 256,
        frame_patches: int = 256,
        frame_multiple: int = 1,
        vocab_size: int | None = None,
        system: str = SYSTEM,
        chat_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.num_frames = num_frames
        self.frame_sampling: Any = frame_sampling
        self.image_aspect_ratio = image_aspect_ratio
        self.image_patches = image_patches
        self.frame_patches = frame_patches
        self.frame_multiple = frame_multiple
        self.vocab_size = vocab_size
        self.system = system
        self.image_token, self.video_token = IMAGE_TOKEN, VIDEO_TOKEN
        self.image_token_id, self.video_token_id = add_placeholder_tokens(tokenizer, vocab_size)
        # how clips are read on this machine; not saved
        self.decoder = "auto"
        self.decode_timeout: float | None = None
        self.frame_cache: str | None = None
        self.on_bad_media = "error"
        self.pixel_cache: PixelCache | None = None  # set where questions are answered
        super().__init__(image_processor, tokenizer, chat_template=chat_template or template_for(system))

    @classmethod
    def from_config(cls, config: Any, tokenizer: Any, **settings: Any) -> LlavaHoundProcessor:
        """Build the processor that belongs to a :class:`~hound_plugin.model.configuration.LlavaHoundConfig`."""
        tower = config.video_tower_config
        image_processor = LlavaHoundImageProcessor(size=tower.image_size, **settings.pop("image_processor", {}))
        defaults = {
            "num_frames": config.default_num_frames,
            "image_aspect_ratio": config.image_aspect_ratio,
            "image_patches": config.tokens_per_image,
            "frame_patches": tower.patches_per_frame,
            "frame_multiple": tower.num_frames if tower.add_time_attn else 1,
            "vocab_size": config.text_config.vocab_size,
        }
        return cls(image_processor, tokenizer, **{**defaults, **settings})

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> LlavaHoundProcessor:
        """Load from a checkpoint of either layout; what the processor's own file lacks comes from the config.

        Raises:
            CheckpointError: the checkpoint is of another architecture, or its configuration or tokenizer is damaged.
        """
        hub = {key: kwargs[key] for key in _HUB_KEYS if kwargs.get(key) is not None}
        with damage_named(pretrained_model_name_or_path, "config.json"):
            config = AutoConfig.from_pretrained(pretrained_model_name_or_path, **hub)
        if not hasattr(config, "video_tower_config"):
            raise CheckpointError(
                f"Expected a LLaVA-Hound checkpoint in {pretrained_model_name_or_path}, found model_type "
                f"{config.model_type!r}."
            )
        with damage_named(pretrained_model_name_or_path, "tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(pretrained_model_name_or_path, padding_side="right", **hub)
        if tokenizer.bos_token_id is None or tokenizer.eos_token_id is None:
            raise CheckpointError(
                f"Expected a tokenizer that knows where a text begins and ends (bos_token, eos_token) in "
                f"{pretrained_model_name_or_path}. Is its tokenizer_config.json there and whole?"
            )
        settings = saved_settings(pretrained_model_name_or_path, **hub)
        settings |= {key: kwargs[key] for key in _SETTINGS if key in kwargs}
        return cls.from_config(config, tokenizer, **settings)

    def set_system(self, system: str) -> None:
        """Take another system prompt for conversations that bring none; saved with the processor and its tokenizer."""
        self.system = system
        self.chat_template = self.tokenizer.chat_template = template_for(system)

    def take_system_of(self, adapter: str) -> None:
        """Take the system prompt that an adapter was trained with, if its folder tells."""
        system = _saved(adapter).get("system")
        if system is not None and system != self.system:
            self.set_system(system)

    # --- arithmetic

    @property
    def tokens_per_image(self) -> int:
        """Visual tokens of one image."""
        return self.image_patches

    @property
    def tokens_per_video(self) -> int:
        """Visual tokens of one clip: frames x patches; no file is opened for it."""
        return self.num_frames * self.frame_patches

    # --- media

    def read_video(self, video: Any) -> torch.Tensor:
        """Decode, sample and normalise one clip.

        Args:
            video: path of a file, of a part of it (``clip.mp4#t=0.5,1.0``) or of a folder of frames, a list of frames
                (paths or PIL images), a uint8 array ``[T, H, W, 3]``, bytes or a binary stream.

        Returns:
            float32 ``[num_frames, 3, size, size]``.

        Raises:
            MediaError: it cannot be found, read, or has no frames.
        """
        if self.pixel_cache is None:
            return self._read_video(video)
        settings = ("video", self.num_frames, self.frame_sampling, self.decoder, *self._pixel_settings())
        pixels: torch.Tensor = self.pixel_cache.get_or_compute(video, settings, self._read_video)
        return pixels

    def _pixel_settings(self) -> tuple[Any, ...]:
        pixels = self.image_processor
        return pixels.size, tuple(pixels.image_mean), tuple(pixels.image_std)

    def _read_video(self, video: Any) -> torch.Tensor:
        if not self.frame_cache:
            return torch.from_numpy(self._decode_video(video))
        cache = FrameCache(self.frame_cache)
        size, mean, std = self._pixel_settings()
        parameters = {"frames": self.num_frames, "sampling": self.frame_sampling, "decoder": self.decoder}
        parameters |= {"size": size, "mean": list(mean), "std": list(std)}
        key = cache.key_for(video, **parameters)
        if key is None:
            return torch.from_numpy(self._decode_video(video))
        shape = (self.num_frames, 3, size, size)

        def is_current() -> bool:
            return cache.key_for(video, **parameters) == key

        return torch.from_numpy(cache.get_or_compute(key, shape, lambda: self._decode_video(video), is_current))

    def _decode_video(self, video: Any) -> np.ndarray:
        return read_clip(
            video,
            num_frames=self.num_frames,
            sampling=self.frame_sampling,
            decoder=self.decoder,
            timeout=self.decode_timeout,
            transform=self.image_processor.frame,
        ).frames

    def read_image(self, image: Any) -> torch.Tensor:
        """Open and normalise one image (path, PIL image, array, bytes, stream, or ``{"path", "bytes"}``).

        Returns:
            float32 ``[3, size, size]``; padded to a square first if ``image_aspect_ratio`` is "pad".
        """
        if self.pixel_cache is None:
            return self._read_image(image)
        settings = ("image", self.image_aspect_ratio, *self._pixel_settings())
        pixels: torch.Tensor = self.pixel_cache.get_or_compute(image, settings, self._read_image)
        return pixels

    def _read_image(self, image: Any) -> torch.Tensor:
        return self.image_processor.image(open_image(image), pad=self.image_aspect_ratio == "pad")

    def black_video(self) -> torch.Tensor:
        """An all-black clip in place of a bad one whose row is masked: ``[num_frames, 3, size, size]``."""
        size = self.image_processor.size
        return self.image_processor.frames(np.zeros((self.num_frames, size, size, 3), dtype=np.uint8))

    # --- everything together

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        videos: Any = None,
        padding: bool | str = True,
        padding_side: str = "left",
        return_tensors: str | None = "pt",
        max_length: int | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Prepare one prompt or a batch of prompts.

        Args:
            images: an image or a list of images, in the order of the ``<image>`` placeholders of all texts.
            text: whole prompts; BOS is put in front. Each chunk between placeholders is tokenised on its own.
            videos: a clip or a list of clips, in the order of the ``<video>`` placeholders. A list of frames is one
                clip; put it into a list of its own if there are several.
            padding: as the tokenizers': True pads to the longest prompt, "max_length" to ``max_length``.
            padding_side: left by default, so that ``model.generate`` goes on where the prompts end. The model's
                outputs at attended positions are the same on either side.
            return_tensors: "pt" or None (lists of ids).

        Returns:
            ``input_ids`` and ``attention_mask`` ``[B, S]``, ``pixel_values_images`` ``[N, 3, H, W]`` and
            ``pixel_values_videos`` ``[N, T, 3, H, W]`` where there are any.

        Raises:
            PlaceholderError: placeholders and media differ in number.
            MediaError: a clip or an image cannot be used.
            SettingsError: truncation, or tensors of another framework, were asked for.
        """
        if kwargs.get("truncation"):
            raise SettingsError("Expected no truncation: it would cut visual tokens. Shorten the text in place of it.")
        if return_tensors not in ("pt", None):
            raise SettingsError(f"Expected return_tensors 'pt' or None, got {return_tensors!r}.")
        image_list = [image for item in _as_list(images) for image in _as_list(item)]  # chat templates nest them
        video_list = _as_videos(videos)
        data: dict[str, Any] = {}
        if text is not None:
            texts = [text] if isinstance(text, str) else list(text)
            rows = self._encode(texts, len(image_list), len(video_list))
            data.update(self._pad(rows, padding, padding_side, return_tensors, max_length))
        if image_list:
            data["pixel_values_images"] = torch.stack([self.read_image(image) for image in image_list])
        if video_list:
            data["pixel_values_videos"] = torch.stack([self.read_video(video) for video in video_list])
        return BatchFeature(data)

    def _encode(self, texts: list[str], images: int, videos: int) -> list[list[int]]:
        last = len(texts) - 1
        rows = []
        for number, text in enumerate(texts):
            taken_images, taken_videos = text.count(IMAGE_TOKEN), text.count(VIDEO_TOKEN)
            if number == last:  # the last text answers for what is left over
                taken_images, taken_videos = images, videos
            counts = {
                IMAGE_TOKEN: [self.tokens_per_image] * taken_images,
                VIDEO_TOKEN: [self.tokens_per_video] * taken_videos,
            }
            rows.append(expand_prompt(self.tokenizer, text, counts))
            images, videos = images - taken_images, videos - taken_videos
        return rows

    def _pad(
        self, rows: list[list[int]], padding: bool | str, side: str, tensors: str | None, max_length: int | None
    ) -> dict[str, Any]:
        batch = {"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}
        if not padding:
            return batch if tensors is None else {key: torch.tensor(value) for key, value in batch.items()}
        return dict(
            self.tokenizer.pad(batch, padding=padding, padding_side=side, return_tensors=tensors, max_length=max_length)
        )

    @property
    def model_input_names(self) -> list[str]:
        """Names of the inputs that this processor makes."""
        return ["input_ids", "attention_mask", "pixel_values_images", "pixel_values_videos"]

    def decode(self, *args: Any, **kwargs: Any) -> Any:
        """The tokenizer's ``decode``."""
        return self.tokenizer.decode(*args, **kwargs)

    def batch_decode(self, *args: Any, **kwargs: Any) -> Any:
        """The tokenizer's ``batch_decode``."""
        return self.tokenizer.batch_decode(*args, **kwargs)


def saved_settings(name: Any, **hub: Any) -> dict[str, Any]:
    """What a checkpoint's own processor file sets, as :meth:`LlavaHoundProcessor.from_config` takes it."""
    saved = _saved(name, **hub)
    pixels = saved.get("image_processor", {})
    settings = {key: saved[key] for key in _SETTINGS if key in saved}
    return {**settings, "image_processor": {key: pixels[key] for key in ("image_mean", "image_std") if key in pixels}}


def changed_settings(folder: Path, config: Any) -> list[str]:
    """Names of the settings in a folder's processor file that its config.json does not tell."""
    saved = saved_settings(folder)
    pixels = vars(LlavaHoundImageProcessor(size=config.video_tower_config.image_size))
    told = {"num_frames": config.default_num_frames, "image_aspect_ratio": config.image_aspect_ratio}
    told |= {"frame_sampling": "uniform", "system": SYSTEM}
    changed = [name for name in _SETTINGS if name in saved and saved[name] != told[name]]
    return changed + [name for name, value in saved["image_processor"].items() if list(value) != list(pixels[name])]


def _saved(name: Any, **hub: Any) -> dict[str, Any]:
    """The processor's own file in a folder or on the hub; empty if there is none."""
    path = cached_file(
        name, PROCESSOR_NAME, **hub, _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )  # fmt: skip
    with damage_named(name, PROCESSOR_NAME):
        values: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8")) if path else {}
        return values


def open_image(image: Any) -> Image.Image:
    """Open an image given as path, PIL image, uint8 array ``[H, W, 3]``, bytes, stream or ``{"path", "bytes"}``.

    Raises:
        MediaError: as :func:`hound_plugin.media.pictures.open_picture`.
    """
    if isinstance(image, dict):
        content = image.get("bytes")
        return open_image(content if content is not None else image.get("path"))
    known = isinstance(image, str | os.PathLike | bytes | bytearray | Image.Image | np.ndarray)
    if not known and not hasattr(image, "read"):
        raise MediaDecodeError(f"Expected an image (path, PIL image, array, bytes or stream), got {type(image)}.")
    return open_picture(image)


def _as_list(items: Any) -> list[Any]:
    if items is None:
        return []
    return list(items) if isinstance(items, list | tuple) else [items]


def _as_videos(videos: Any) -> list[Any]:
    """A list of clips; a list of images or of image paths is one clip."""
    items = [item[0] if _is_boxed(item) else item for item in _as_list(videos)]
    if items and all(isinstance(item, Image.Image) or is_image_path(item) for item in items):
        return [items]
    if isinstance(videos, np.ndarray) and videos.ndim == 5:
        return list(videos)
    return items


def _is_boxed(item: Any) -> bool:
    """A clip's path in a list of its own, as transformers' chat templates hand it over."""
    return isinstance(item, list | tuple) and len(item) == 1 and isinstance(item[0], str) and not is_image_path(item[0])
