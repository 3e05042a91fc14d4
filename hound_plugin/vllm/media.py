"""Clips on their way into vLLM: read by this package, so that the same frames are seen as everywhere else.

vLLM's own loaders decide which frames are taken before the model's processor sees them. Ours hands over the file
itself; frames and pixels are made by :class:`~hound_plugin.processing.video_processor.LlavaHoundVideoProcessor`.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from vllm.exceptions import VLLMValidationError
from vllm.multimodal.media.base import MediaIO, MediaWithBytes
from vllm.multimodal.media.connector import MEDIA_CONNECTOR_REGISTRY, MediaConnector, global_thread_pool
from vllm.multimodal.video import VIDEO_LOADER_REGISTRY, VideoLoader

from hound_plugin.errors import HoundError, MediaNotFoundError
from hound_plugin.processing.processor import LlavaHoundProcessor
from hound_plugin.processing.video_processor import LlavaHoundVideoProcessor
from hound_plugin.records.served_media import allowed_media, check_whole, decode_data_url, split_file_url

NAME = "llava_hound"
PROCESSOR = LlavaHoundVideoProcessor.__name__
SETTING = "--allowed-local-media-path"
_IS_OURS: ContextVar[bool] = ContextVar("_IS_OURS", default=False)


@contextmanager
def for_our_models() -> Iterator[None]:
    """Within it, clips are fetched for a model of this package."""
    token = _IS_OURS.set(True)
    try:
        yield
    finally:
        _IS_OURS.reset(token)


@dataclass(frozen=True)
class ReadMedia:
    """A clip or an image as the towers take it.

    Attributes:
        pixels: float32 ``[T, 3, side, side]`` or ``[3, side, side]``.
        key: what vLLM's caches know it by: a hash of the pixels.
    """

    pixels: torch.Tensor
    key: str


def read_media(processor: LlavaHoundProcessor, kind: str, media: Any) -> ReadMedia:
    """Decode, sample and normalise one clip or image.

    Args:
        processor: of the model.
        kind: ``video`` or ``image``.
        media: as the processor takes it, or as vLLM's connectors hand it over.

    Raises:
        MediaError: it cannot be used.
    """
    if isinstance(media, ReadMedia):
        return media
    if isinstance(media, MediaWithBytes):
        media = media.original_bytes
    pixels = processor.read_video(media) if kind == "video" else processor.read_image(media)
    return ReadMedia(pixels, hashlib.sha256(pixels.numpy().tobytes()).hexdigest())


def refused(error: HoundError) -> VLLMValidationError:
    """What vLLM's server answers with status 400, in our words."""
    return VLLMValidationError(str(error))


@VIDEO_LOADER_REGISTRY.register(NAME, video_processor=PROCESSOR)
class WholeFileLoader(VideoLoader):
    """vLLM's video loader for our processor: hands over the file, of which the processor takes its frames."""

    @classmethod
    def load_bytes(cls, data: bytes, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """The file itself; settings of other loaders (``num_frames``, ``fps``) are refused where requests are read."""
        return data, {}


class _WholeFile(MediaIO[Any]):
    """The file itself, in memory."""

    def load_bytes(self, data: bytes) -> Any:
        return data

    def load_base64(self, media_type: str, data: str) -> Any:
        return decode_data_url(f"data:{media_type};base64,{data}", "video")

    def load_file(self, filepath: Path) -> Any:
        raise NotImplementedError("Files are read by their path.")


@MEDIA_CONNECTOR_REGISTRY.register(NAME)
class LlavaHoundConnector(MediaConnector):
    """vLLM's media connector; for our models, clips of the allowed folder are read from their place.

    That brings folders of frames and parts of clips (``file:///clips/a.mp4#t=5,10``), and spares a copy of the file.
    For all other models it is vLLM's own.
    """

    def fetch_image(self, image_url: str, **kwargs: Any) -> Any:
        """An image, as vLLM's; for our models, an address with a fragment, which vLLM ignores, is refused."""
        _check_image(image_url)
        return super().fetch_image(image_url, **kwargs)

    async def fetch_image_async(self, image_url: str, **kwargs: Any) -> Any:
        """As :meth:`fetch_image`."""
        _check_image(image_url)
        return await super().fetch_image_async(image_url, **kwargs)

    def fetch_video(self, video_url: str, **kwargs: Any) -> Any:
        """A clip: a path, a list of frames or bytes; as vLLM's for other models."""
        if not _IS_OURS.get():
            return super().fetch_video(video_url, **kwargs)
        local = self._local(video_url)
        return self.load_from_url(video_url, _WholeFile()) if local is None else local

    async def fetch_video_async(self, video_url: str, **kwargs: Any) -> Any:
        """As :meth:`fetch_video`."""
        if not _IS_OURS.get():
            return await super().fetch_video_async(video_url, **kwargs)
        local = await asyncio.get_running_loop().run_in_executor(global_thread_pool, self._local, video_url)
        return await self.load_from_url_async(video_url, _WholeFile()) if local is None else local

    def _local(self, url: str) -> str | list[str] | bytes | None:
        """A clip that need not be fetched; None if it must be.

        Raises:
            VLLMValidationError: it may not be read.
        """
        try:
            if url[:5].lower() == "data:":
                return decode_data_url(url, "video")
            is_url = url[:5].lower() == "file:"
            if not is_url and not url.startswith("/"):
                check_whole(url, "video")
                return None
            if self.allowed_local_media_path is None:
                raise MediaNotFoundError(f"Expected no local file: this server was started without {SETTING}.")
            path, fragment = split_file_url(url) if is_url else (url, None)
            return allowed_media(path, "video", os.fspath(self.allowed_local_media_path), SETTING, fragment=fragment)
        except HoundError as error:
            raise refused(error) from error


def _check_image(url: str) -> None:
    """Refuse the address of a part of an image of our models.

    Raises:
        VLLMValidationError: it has a fragment.
    """
    if not _IS_OURS.get() or url[:5].lower() == "data:":
        return
    try:
        check_whole(url, "image")
    except HoundError as error:
        raise refused(error) from error


os.environ.setdefault("VLLM_MEDIA_CONNECTOR", NAME)  # which connector is asked cannot be said by model
