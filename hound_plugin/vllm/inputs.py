"""Media and prompt tokens of a request, as vLLM's engine takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import BatchFeature
from vllm.multimodal.inputs import MultiModalFieldConfig
from vllm.multimodal.media.base import MediaWithBytes
from vllm.multimodal.parse import ModalityDataItems, MultiModalDataParser, ProcessorBatchItems
from vllm.multimodal.processing import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    PromptReplacement,
)

from hound_plugin.child_processes import end_with_parent
from hound_plugin.errors import DataError
from hound_plugin.model.configuration import LlavaHoundConfig
from hound_plugin.processing.media_inputs import as_clips, as_images
from hound_plugin.processing.processor import LlavaHoundProcessor
from hound_plugin.records.media_identity import media_identity
from hound_plugin.records.placeholders import IMAGE_TOKEN, VIDEO_TOKEN
from hound_plugin.vllm.media import ReadMedia, read_media

KINDS = ("image", "video")


class MediaItems(ProcessorBatchItems[Any]):
    """Clips or images of a request, in any form that our processors read."""

    def _unwrap(self, item: Any) -> Any:
        return item.original_bytes if isinstance(item, MediaWithBytes) else item

    def get_item_for_hash(self, index: int) -> Any:
        """What tells this item from every other: its content, where that is known without decoding."""
        item = self.get(index)
        if isinstance(item, ReadMedia):
            return item.key
        identity = media_identity(item, in_process=True)
        return item if identity is None else repr(identity)


class MediaParser(MultiModalDataParser):
    """``multi_modal_data`` of a prompt: one clip or image, or a list; a list of frames is one clip."""

    def _parse_image_data(self, data: Any) -> ModalityDataItems[Any, Any] | None:
        return _items(data, "image")

    def _parse_video_data(self, data: Any) -> ModalityDataItems[Any, Any] | None:
        return _items(data, "video")


def _items(data: Any, kind: str) -> MediaItems | None:
    if data is None:
        return None
    if isinstance(data, dict) or (isinstance(data, torch.Tensor) and data.is_floating_point()):
        raise DataError(f"{kind}: expected media, got {type(data).__name__}: ready embeddings are not taken.")
    return MediaItems((as_clips if kind == "video" else as_images)(data), kind)


class ProcessingInfo(BaseProcessingInfo):
    """What vLLM asks about the model's inputs, in the process that serves and in that of its engine.

    The latter outlives a parent that is killed, with the weights in memory, unless it is told to end.
    """

    def __init__(self, ctx: Any) -> None:
        super().__init__(ctx)
        end_with_parent()

    def get_hf_config(self) -> LlavaHoundConfig:
        """The model's configuration."""
        config: LlavaHoundConfig = self.ctx.get_hf_config(LlavaHoundConfig)
        return config

    def get_hf_processor(self, **kwargs: Any) -> LlavaHoundProcessor:
        """Our processor; ``kwargs`` are ``mm_processor_kwargs``, such as ``num_frames``."""
        processor: LlavaHoundProcessor = self.ctx.get_hf_processor(LlavaHoundProcessor, **kwargs)
        return processor

    def get_data_parser(self) -> MediaParser:
        """Takes paths, folders of frames and everything else that the processor reads."""
        return MediaParser()

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        """Any number of both kinds."""
        return dict.fromkeys(KINDS)

    def get_mm_max_tokens_per_item(self, seq_len: int, mm_counts: Mapping[str, int]) -> Mapping[str, int]:
        """Visual tokens: arithmetic."""
        processor = self.get_hf_processor()
        tokens = {"image": processor.tokens_per_image, "video": processor.tokens_per_video}
        return {kind: tokens[kind] for kind in mm_counts}


class DummyInputs(BaseDummyInputsBuilder[ProcessingInfo]):
    """Black media, by which vLLM measures memory."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        """Placeholders alone."""
        return IMAGE_TOKEN * mm_counts.get("image", 0) + VIDEO_TOKEN * mm_counts.get("video", 0)

    def get_dummy_mm_data(self, seq_len: int, mm_counts: Mapping[str, int], mm_options: Any) -> dict[str, Any]:
        """As many as there may be; they are all of one size."""
        clip = self.info.get_hf_processor().black_video()
        black = {"image": ReadMedia(clip[0], "black image"), "video": ReadMedia(clip, "black clip")}
        return {kind: [black[kind]] * count for kind, count in mm_counts.items()}


class MediaProcessor(BaseMultiModalProcessor[ProcessingInfo]):
    """Pixels by our processor; a placeholder in the prompt becomes as many as the media have visual tokens."""

    def _call_hf_processor(self, hf_data: Mapping[str, Any], hf_kwargs: Mapping[str, Any]) -> BatchFeature:
        processor = self.info.get_hf_processor(**hf_kwargs)
        dtype = self.info.ctx.model_config.dtype
        data = {}
        for kind in KINDS:
            media = hf_data.get(f"{kind}s")
            if media:
                pixels = [read_media(processor, kind, item).pixels for item in media]
                data[f"pixel_values_{kind}s"] = torch.stack(pixels).to(dtype)
        return BatchFeature(data)

    def _get_mm_fields_config(
        self, hf_inputs: BatchFeature, hf_processor_mm_kwargs: Mapping[str, Any]
    ) -> Mapping[str, MultiModalFieldConfig]:
        return {f"pixel_values_{kind}s": MultiModalFieldConfig.batched(kind) for kind in KINDS}

    def _get_prompt_updates(
        self, mm_items: Any, hf_processor_mm_kwargs: Mapping[str, Any], out_mm_kwargs: Any
    ) -> Sequence[PromptReplacement]:
        config = self.info.get_hf_config()
        ids = {"image": config.image_token_id, "video": config.video_token_id}

        def visual_tokens(kind: str, index: int) -> list[int]:
            if kind == "image":
                return [ids[kind]] * config.tokens_per_image
            pixels = out_mm_kwargs[kind][index]["pixel_values_videos"].data
            return [ids[kind]] * config.tokens_per_video(len(pixels))

        return [
            PromptReplacement(
                modality=kind, target=[ids[kind]], replacement=lambda index, kind=kind: visual_tokens(kind, index)
            )
            for kind in KINDS
        ]
