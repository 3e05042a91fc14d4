"""Options of the host that would do nothing or something else with this model: refused by name, before any work.

Only arguments with our template are looked at. What the host refuses itself is left to it.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
from collections.abc import Iterable
from typing import Any

import torch
from llamafactory.extras import logging

from hound_plugin.errors import SettingsError
from hound_plugin.host.models import MODELS
from hound_plugin.host.resume import adapters_below
from hound_plugin.model.checkpoint_files import check_files
from hound_plugin.records.media_identity import sampled_digest

logger = logging.get_logger(__name__)


_FRAMES = "Set `hound.num_frames` instead."
_WHICH = "Set `hound.frame_sampling` (`uniform`, `first_10s` or `fps`) instead."
_SIZE = "This model sees every picture at the size that its towers were trained on; remove the key."
_VOCABULARY = ("add_tokens", "add_special_tokens", "new_special_tokens_config", "resize_vocab")
_AUDIO = "This model hears nothing; remove the key."
# The host's keys for pictures, clips and sound, which its own plugins read and ours does not.
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
}


def check_options(parsed: Iterable[Any]) -> None:
    """Look at what the host parsed, for a run with our template.

    Args:
        parsed: the host's argument objects.

    Raises:
        SettingsError: an option has no effect with this model, or another one than its name says.
    """
    parts = list(parsed)
    for part in parts:
        _check_media_keys(part)
        _check_language_model(part)
    finetuning = _with(parts, "pref_loss")
    training = _with(parts, "do_train")
    model = _with(parts, "adapter_name_or_path")
    if model is not None:
        _check_model(model)
    if training is not None:
        _check_packages(training)
    data = _with(parts, "mix_strategy")
    if data is not None and data.mix_strategy == "interleave_once" and len(data.dataset or []) > 1:
        raise SettingsError(
            "Expected `mix_strategy` to be concat, interleave_under or interleave_over; got 'interleave_once', which "
            "the releases of `datasets` that the host allows (up to 4.0.0) do not have."
        )
    if finetuning is not None and training is not None and training.do_train:
        _check_preferences(finetuning, model)
        _check_methods(finetuning, model)
        if finetuning.stage in ("dpo", "kto") and training.train_sampling_strategy == "group_by_length":
            raise SettingsError(
                f"`train_sampling_strategy: group_by_length` needs one sequence a row, and `stage: {finetuning.stage}` "
                "has several. Remove it."
            )


def _with(parts: list[Any], name: str) -> Any:
    return next((part for part in parts if hasattr(part, name)), None)


def _check_model(model: Any) -> None:
    """Is there a model where ``model_name_or_path`` points, before the hub is asked for a folder of this machine?"""
    name = model.model_name_or_path
    if os.path.isdir(name):
        files = set(os.listdir(name))
        if "config.json" not in files and "adapter_config.json" in files:
            base = _base_of(name)
            raise SettingsError(
                f"Expected a model in `model_name_or_path: {name}`, which holds an adapter alone. Set "
                f"`adapter_name_or_path: {name}` and `model_name_or_path: {base or 'its base model'}`."
            )
        if "config.json" not in files:
            held = ", ".join(sorted(files)[:8]) or "nothing"
            raise SettingsError(
                f"Expected a model in `model_name_or_path: {name}`, but it has no config.json: {held}. "
                "Name the folder that holds one."
            )
        check_files(name)
    elif os.path.isabs(name) or name.startswith((".", "~")) or name.count("/") > 1 or _begins_here(name):
        raise SettingsError(
            f"`model_name_or_path: {name}` is not a folder of this machine (searched from {os.getcwd()}), and hub ids "
            "have the form `owner/name`. Correct the path."
        )
    if model.export_legacy_format:
        raise SettingsError(
            "`export_legacy_format: true` has no effect: the installed transformers writes safetensors files only. "
            "Remove the key."
        )
    adapters = model.adapter_name_or_path or []
    for place, adapter in enumerate(adapters):
        _check_base(adapter, name)
        _check_below(adapter, adapters[:place])


def _begins_here(name: str) -> bool:
    """Whether ``a/b`` is meant as a path: a folder ``a`` holds models, and ``a/b`` is none of the released ones."""
    folder, slash, _ = name.partition("/")
    if not slash or name in MODELS.values() or not os.path.isdir(folder):
        return False
    return any(os.path.isfile(os.path.join(folder, below, "config.json")) for below in os.listdir(folder))


def _base_of(adapter: str) -> str | None:
    try:
        with open(os.path.join(adapter, "adapter_config.json"), encoding="utf-8") as file:
            base: str | None = json.load(file).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError):
        return None
    return base


def _check_base(adapter: str, name: str) -> None:
    """Refuse an adapter of another model, as far as its configuration tells."""
    base = _base_of(adapter)
    if base is None or base == name or os.path.abspath(base) == os.path.abspath(name):
        return
    if os.path.isdir(base) and not _same_weights(base, name):
        raise SettingsError(
            f"The adapter {adapter} was trained on {base}, and `model_name_or_path` is {name}, whose weights differ. "
            f"Set `model_name_or_path: {base}`."
        )
    if not os.path.isdir(base):
        logger.warning_rank0(
            f"The adapter {adapter} was trained on {base}, and `model_name_or_path` is {name}: they must be the same "
            "model."
        )


def _check_below(adapter: str, given: list[str]) -> None:
    """Refuse an adapter without those that were merged into the model before it was trained."""
    below = adapters_below(adapter)
    same = len(below) == len(given) and all(
        os.path.realpath(before) == os.path.realpath(now) or not os.path.isdir(before) or _same_weights(before, now)
        for before, now in zip(below, given, strict=True)
    )
    if below and not same:
        raise SettingsError(
            f"The adapter {adapter} was trained on a model into which {', '.join(below)} had been merged; got "
            f"{', '.join(given) or 'no adapter'} before it. Set `adapter_name_or_path: {','.join([*below, adapter])}`."
        )


def _same_weights(first: str, second: str) -> bool:
    """Whether two folders hold the same files of weights, by name and identity (size, head, middle and tail)."""
    return os.path.isdir(second) and _weights(first) == _weights(second)


def _weights(folder: str) -> dict[str, Any]:
    names = sorted(name for name in os.listdir(folder) if name.endswith((".safetensors", ".bin")))
    files = {name: os.path.join(folder, name) for name in names if not name.startswith("training_args")}
    return {name: (os.path.getsize(path), sampled_digest(path)) for name, path in files.items()}


def _check_media_keys(part: Any) -> None:
    if not dataclasses.is_dataclass(part):
        return
    defaults = {field.name: field.default for field in dataclasses.fields(part)}
    for name, advice in WITHOUT_EFFECT.items():
        if name in defaults and getattr(part, name) != defaults[name]:
            raise SettingsError(
                f"Expected `{name}` to be left at {defaults[name]!r}, which is the host's default, for a LLaVA-Hound "
                f"model; got {getattr(part, name)!r}, which would have no effect. {advice}"
            )


def _check_language_model(part: Any) -> None:
    if getattr(part, "rope_scaling", None) is not None:
        raise SettingsError(
            f"`rope_scaling: {getattr(part.rope_scaling, 'value', part.rope_scaling)}` has no effect on a LLaVA-Hound "
            "model, whose language model is one part of it. Write `rope_parameters` into `text_config` of the "
            "checkpoint's config.json."
        )
    for name in _VOCABULARY:
        if getattr(part, name, None):
            raise SettingsError(
                f"`{name}` would give the model rows that its checkpoints and its placeholders have no room for: a "
                "LLaVA-Hound model keeps its vocabulary. Remove the key; the tokenizer writes such words with the "
                "tokens that it has, and training learns them so."
            )


def _check_packages(training: Any) -> None:
    wanted = {}
    if training.predict_with_generate:
        wanted = {"jieba": "jieba", "nltk": "nltk", "rouge_chinese": "rouge-chinese"}
    missing = [package for module, package in wanted.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise SettingsError(
            f"`predict_with_generate` scores answers with {', '.join(wanted.values())}, of which {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not installed. Run: pip install {' '.join(missing)}"
        )
    reported = training.report_to if isinstance(training.report_to, list) else [training.report_to]
    boards = [name for name in ("tensorboard", "tensorboardX") if importlib.util.find_spec(name)]
    if "tensorboard" in reported and not boards:
        raise SettingsError(
            "`report_to: tensorboard` needs the package tensorboard, which is not installed. Run: pip install "
            "tensorboard"
        )


def _check_preferences(finetuning: Any, model: Any) -> None:
    if finetuning.stage == "dpo" and finetuning.pref_loss == "kto_pair":
        raise SettingsError(
            "Expected `pref_loss` to be sigmoid, hinge, ipo, orpo or simpo; got 'kto_pair', which trl no longer has. "
            "For labelled answers use `stage: kto`."
        )
    if finetuning.stage in ("dpo", "kto") and finetuning.pref_loss != "orpo" and finetuning.pref_beta <= 0:
        raise SettingsError(
            f"Expected `pref_beta` above 0 in `stage: {finetuning.stage}`, got {finetuning.pref_beta}: the loss would "
            "not tell chosen answers from rejected ones. The original has 0.1."
        )
    if finetuning.ref_model_adapters is not None and finetuning.ref_model is None:
        raise SettingsError(
            f"`ref_model_adapters: {finetuning.ref_model_adapters}` has no effect without `ref_model`. Set `ref_model` "
            "to the model that these adapters belong to."
        )
    referenced = finetuning.use_ref_model or finetuning.stage == "kto"
    continued = model is not None and model.adapter_name_or_path and not finetuning.create_new_adapter
    if finetuning.finetuning_type == "lora" and referenced and continued and finetuning.ref_model is None:
        raise SettingsError(
            f"`adapter_name_or_path: {','.join(model.adapter_name_or_path)}` would go on in `stage: "
            f"{finetuning.stage}`, and the reference would be the model without this adapter, not the model that you "
            "start from. Set `create_new_adapter: true` (in the web UI *Create new adapter*: the adapter is merged and "
            f"a new one is trained), or name the reference: `ref_model: {model.model_name_or_path}`, with "
            "`ref_model_adapters` for the adapter as it is now."
        )


def _check_methods(finetuning: Any, model: Any) -> None:
    if finetuning.finetuning_type == "oft":
        raise SettingsError(
            "`finetuning_type: oft` trains, but the host can neither go on from its adapter nor merge it. Use lora."
        )
    if finetuning.finetuning_type == "freeze" and not finetuning.freeze_vision_tower:
        raise SettingsError(
            "`finetuning_type: freeze` with `freeze_vision_tower: false` would train those blocks of the towers that "
            "have the numbers of the language model's. Set `freeze_vision_tower: true`, or `finetuning_type: full`."
        )
    if finetuning.use_dora and model.quantization_bit is not None:
        raise SettingsError(
            f"`use_dora` cannot be trained on a model of `quantization_bit: {model.quantization_bit}` with this host. "
            "Remove one of the two."
        )
    if finetuning.use_badam:
        raise SettingsError(
            "`use_badam` gives every block its gradient in turn, the frozen towers' too. Use `finetuning_type: lora`, "
            "or `use_galore`."
        )
    if model.use_unsloth_gc and not torch.cuda.is_available():
        raise SettingsError("`use_unsloth_gc` moves activations from a GPU, and torch finds none here. Remove the key.")
    if finetuning.use_adam_mini:
        raise SettingsError(
            "`use_adam_mini` reads the number of heads from the top of the configuration, where this model has none. "
            "Remove the key; `optim: adamw_8bit` also saves optimiser memory."
        )
    if finetuning.use_asft_loss and finetuning.finetuning_type == "lora" and finetuning.ref_model is None:
        raise SettingsError(
            "`use_asft_loss` compares with a reference model, which the host does not make for LoRA. Set `ref_model`."
        )
