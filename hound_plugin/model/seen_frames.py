"""Which frames of a clip a checkpoint sees, without loading the network."""

from __future__ import annotations

from dataclasses import dataclass

from hound_plugin.media.frame_sampling import FrameSampling
from hound_plugin.model.adapters import chain_of, is_adapter
from hound_plugin.processing.processor import LlavaHoundProcessor


@dataclass(frozen=True)
class SeenFrames:
    """How many frames of a clip, and which."""

    num_frames: int
    sampling: FrameSampling


def seen_frames(model: str) -> SeenFrames:
    """What :func:`hound_plugin.model.inference.load` would show of a clip.

    Args:
        model: a folder or a hub id; or a folder of a LoRA adapter.

    Raises:
        CheckpointError, OSError: its files cannot be read.
    """
    processor = processor_of(model)
    return SeenFrames(processor.num_frames, processor.video_processor.frame_sampling)


def processor_of(model: str) -> LlavaHoundProcessor:
    """The processor of a checkpoint, or of an adapter and the model that it was trained on; no weights are read.

    Raises:
        CheckpointError, OSError: its files cannot be read.
    """
    base, adapters = chain_of(model) if is_adapter(model) else (model, [])
    processor: LlavaHoundProcessor = LlavaHoundProcessor.from_pretrained(base)
    for adapter in adapters:
        processor.take_settings_of(adapter)
    return processor
