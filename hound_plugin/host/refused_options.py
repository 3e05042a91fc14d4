"""The host's options that do nothing, or something unexpected, with this model: why, and what to set instead.

:mod:`hound_plugin.host.option_checks` has those that depend on other options.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from hound_plugin.errors import SettingsError

_FRAMES = "Set `hound.num_frames` instead."
_WHICH = "Set `hound.frame_sampling` (`uniform`, `first_10s` or `fps`) instead."
_SIZE = "This model resizes every picture to the size that its towers were trained on; remove the key."
_AUDIO = "This model has no audio; remove the key."
WITHOUT_EFFECT = {
    "video_maxlen": _FRAMES,
    "video_fps": _WHICH,
    "image_max_pixels": _SIZE,
    "image_min_pixels": _SIZE,
    "video_max_pixels": _SIZE,
    "video_min_pixels": _SIZE,
    "image_do_pan_and_scan": _SIZE,
    "crop_to_patches": _SIZE,
    "use_audio_in_video": _AUDIO,
    "audio_sampling_rate": _AUDIO,
    "tool_format": "This model was trained without function calls; remove the key.",
    "moe_aux_loss_coef": "This model has no experts to choose from; remove the key.",
    "eval_num_beams": "Predictions take `num_beams`; set that instead.",
    "generation_num_beams": "Predictions take `num_beams`; set that instead.",
    "generation_max_length": "Predictions take `max_new_tokens`; set that instead.",
    "fp8_enable_fsdp_float8_all_gather": "The host means to turn `fp8` on with it, and does not; remove the key.",
    "enable_liger_kernel": "The host has no liger kernels for this model; remove the key (in the web UI: *Booster* "
    "auto).",
}
"""Options that the host's own plugins and models read and ours do not, with advice; the host's defaults pass."""

_VOCABULARY = (
    "would give the model rows that its checkpoints and its placeholders have no room for: a LLaVA-Hound model keeps "
    "its vocabulary. Remove the key; the tokenizer writes such words with the tokens that it has, and training learns "
    "them so."
)
NOT_POSSIBLE = {
    "add_tokens": _VOCABULARY,
    "add_special_tokens": _VOCABULARY,
    "new_special_tokens_config": _VOCABULARY,
    "resize_vocab": _VOCABULARY,
    "split_special_tokens": "would begin every turn but the first with other tokens than this model was trained "
    "on. Remove the key: what people write is never taken for a placeholder.",
    "use_unsloth": "needs a model that unsloth knows, which LLaVA-Hound is not. Remove the key (in the web UI: "
    "*Booster* auto).",
    "use_kt": "computes the experts of a model in KTransformers, and a LLaVA-Hound model has none. Remove the key.",
    "use_mca": "computes in Megatron, which has no LLaVA-Hound model; the host turns it off silently unless "
    "`USE_MCA=1` is set. Remove the key; DeepSpeed ZeRO and FSDP2 split a LLaVA-Hound model over GPUs.",
    "mixture_of_depths": "is made for language models alone. Remove the key.",
    "use_hyper_parallel": "is made for language models alone. Remove the key; DeepSpeed ZeRO and FSDP2 split a "
    "LLaVA-Hound model over GPUs.",
    "export_quantization_bit": "makes a GPTQ model of a language model alone. Remove the key, and load the exported "
    "model with `quantization_bit: 4`.",
}
"""Options that must not be set with a LLaVA-Hound model, and why."""


OTHER_ENGINES = ("vllm_", "sglang_", "kt_")
"""Beginnings of options for engines that a LLaVA-Hound model does not run in."""


def check_given(values: dict[str, Any]) -> None:
    """Check a recipe for a value that is the trainer's default and that the host overwrites.

    Raises:
        SettingsError: it has one.
    """
    if values.get("remove_unused_columns"):
        raise SettingsError(
            "`remove_unused_columns: true` has no effect: the host sets it to false, or rows would lose their clips. "
            "Remove the key."
        )


def check_values(part: Any) -> None:
    """Check one of the host's argument objects.

    Raises:
        SettingsError: an option of the tables above is set.
    """
    if not dataclasses.is_dataclass(part):
        return
    defaults = {field.name: field.default for field in dataclasses.fields(part)}
    for name, advice in WITHOUT_EFFECT.items():
        if name in defaults and getattr(part, name) != defaults[name]:
            raise SettingsError(
                f"Expected `{name}` to be left at {defaults[name]!r}, which is the host's default, for a LLaVA-Hound "
                f"model; got {getattr(part, name)!r}, which would have no effect. {advice}"
            )
    for name, default in defaults.items():
        if name.startswith(OTHER_ENGINES) and name not in NOT_POSSIBLE and getattr(part, name) != default:
            raise SettingsError(
                f"`{name}` is for an engine that a LLaVA-Hound model does not run in, and would have no effect. Remove "
                "the key."
            )
    for name, reason in NOT_POSSIBLE.items():
        if getattr(part, name, None):
            raise SettingsError(f"`{name}` {reason}")
    rope = getattr(part, "rope_scaling", None)
    if rope is not None:
        raise SettingsError(
            f"`rope_scaling: {getattr(rope, 'value', rope)}` has no effect on a LLaVA-Hound "
            "model, whose language model is one part of it. Write `rope_parameters` into `text_config` of the "
            "checkpoint's config.json."
        )
