"""What the host's model loader does for a LLaVA-Hound model: processor, configuration, towers and adapters."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from transformers import AutoConfig

from hound_plugin.errors import SettingsError
from hound_plugin.host import settings_state, tower_cache, trainable_parts
from hound_plugin.host.reference.state import is_active
from hound_plugin.media.array_folder import in_bytes
from hound_plugin.model.adapter_weights import applied_whole, check_fits
from hound_plugin.model.completeness import check_finite
from hound_plugin.model.configuration import LlavaHoundConfig
from hound_plugin.model.generation import context_length
from hound_plugin.model.modeling import LlavaHoundForConditionalGeneration
from hound_plugin.processing.processor import LlavaHoundProcessor
from hound_plugin.processing.prompt import add_placeholder_tokens

OURS = "_hound_plugin"
"""Attribute of a tokenizer that was loaded with a LLaVA-Hound model; ``template.check_template`` looks at it."""


def set_up_processor(original: Callable[..., Any], processor: Any, tokenizer: Any, model_args: Any) -> None:
    """``patch_processor``: the processor follows the ``hound:`` settings, and knows the placeholders' ids.

    Raises:
        SettingsError: a number of frames that the temporal attention cannot take.
    """
    original(processor, tokenizer, model_args)
    if not isinstance(processor, LlavaHoundProcessor):
        return
    chosen = settings_state.settings()
    if chosen.num_frames and chosen.num_frames % processor.frame_multiple:
        raise SettingsError(
            f"hound.num_frames: expected a multiple of {processor.frame_multiple} for this model's temporal attention, "
            f"got {chosen.num_frames}."
        )
    for adapter in model_args.adapter_name_or_path or []:
        folder = model_args.adapter_folder
        processor.take_settings_of(os.path.join(adapter, folder) if folder else adapter)
    system = settings_state.default_system()
    if system is not None:  # an export saves it; trainings and chats settle it again
        processor.set_system(system)
    processor.num_frames = chosen.num_frames or processor.num_frames
    processor.frame_sampling = chosen.frame_sampling or processor.frame_sampling
    processor.decoder = chosen.decoder
    processor.decode_timeout = chosen.decode_timeout
    processor.frame_cache = chosen.frame_cache
    processor.frame_cache_limit = in_bytes(chosen.frame_cache_limit)
    processor.on_bad_media = chosen.on_bad_media
    hub = {"cache_dir": model_args.cache_dir, "revision": model_args.model_revision, "token": model_args.hf_hub_token}
    processor.context_length = context_length(
        AutoConfig.from_pretrained(model_args.model_name_or_path, **hub, trust_remote_code=False)
    )
    ids = add_placeholder_tokens(tokenizer, processor.vocab_size)
    processor.image_token_id, processor.video_token_id = ids
    setattr(tokenizer, OURS, True)


def set_up_config(original: Callable[..., Any], config: Any, tokenizer: Any, *args: Any, **kwargs: Any) -> Any:
    """``patch_config``: the model's configuration has the ids that the tokenizer gave to the placeholders."""
    if isinstance(config, LlavaHoundConfig) and getattr(tokenizer, OURS, False):
        ids = tokenizer.convert_tokens_to_ids(["<image>", "<video>"])
        config.image_token_id, config.video_token_id = ids
    return original(config, tokenizer, *args, **kwargs)


def set_up_adapter(
    original: Callable[..., Any], config: Any, model: Any, model_args: Any, finetuning_args: Any, is_trainable: bool
) -> Any:
    """``init_adapter``: towers, projector and LoRA are trained as the recipe says.

    Raises:
        SettingsError: nothing would be trained, a target is not in the model, FSDP2 would lose the reference model, or
            a feature cache is given for towers that are trained.
        CheckpointError: an adapter does not fit the model, or has weights that are not finite.
    """
    if not isinstance(model, LlavaHoundForConditionalGeneration):
        return original(config, model, model_args, finetuning_args, is_trainable)
    if not is_trainable:
        return _adapted(original, config, model, model_args, finetuning_args, is_trainable)
    check_fsdp(finetuning_args)
    composite = model.model
    composite.set_towers_trainable(not finetuning_args.freeze_vision_tower)
    new = model_args.adapter_name_or_path is None or finetuning_args.create_new_adapter
    if finetuning_args.finetuning_type == "lora" and new:
        trainable_parts.settle_targets(model, finetuning_args)
    adapted = _adapted(original, config, model, model_args, finetuning_args, is_trainable)
    for tower in (composite.image_tower, composite.video_tower):  # adapters may sit on blocks that never run
        tower.freeze_unused(config.mm_vision_select_layer)
    trainable_parts.check_trainable(adapted, finetuning_args)
    tower_cache.begin(model, finetuning_args.stage, model_args.compute_dtype)
    return adapted


def _adapted(
    original: Callable[..., Any], config: Any, model: Any, model_args: Any, finetuning_args: Any, is_trainable: bool
) -> Any:
    """The model with the adapters that are named, each applied whole and known to be finite.

    The model's own weights were checked when they were read.
    """
    below = model_args.adapter_folder
    adapters = [os.path.join(name, below) if below else name for name in model_args.adapter_name_or_path or []]
    for adapter in adapters:
        check_fits(adapter, model)
    with applied_whole(adapters):
        adapted = original(config, model, model_args, finetuning_args, is_trainable)
    if adapters:
        check_finite(adapted.named_parameters(), f"the adapter {', '.join(adapters)}")
    return adapted


def check_fsdp(finetuning_args: Any) -> None:
    """Refuse FSDP2 that loads on rank 0 only, with a reference model: the host leaves it without weights.

    Seen with accelerate 1.11: the loss is NaN, which the trainer logs as 0. Removable when such a run trains.

    Raises:
        SettingsError: the reference would have no weights.
    """
    names = ("ACCELERATE_USE_FSDP", "FSDP_CPU_RAM_EFFICIENT_LOADING")
    efficient = all(os.environ.get(name, "").strip().lower() in ("1", "true") for name in names)
    second = (
        finetuning_args.use_ref_model
        and not is_active()
        and (finetuning_args.finetuning_type != "lora" or finetuning_args.ref_model is not None)
    )
    if efficient and second:
        raise SettingsError(
            "Expected `fsdp_cpu_ram_efficient_loading: false` in the accelerate configuration for training with a "
            "reference model, got true: the reference would have no weights on the other ranks, and the loss would be "
            "NaN. Set it to false, or train with LoRA."
        )
