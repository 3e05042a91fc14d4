"""Options of the host that would do nothing, or something unexpected, with this model: refused before any work.

Only runs with our template are checked. What the host itself refuses is left to it.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from llamafactory.extras import logging

from hound_plugin.errors import SettingsError
from hound_plugin.host.clip_groups import check_grouping
from hound_plugin.host.held_out_rows import check_mixture
from hound_plugin.host.inference_options import check_export, check_generation
from hound_plugin.host.models import MODELS
from hound_plugin.host.refused_options import check_values
from hound_plugin.host.template import check_system
from hound_plugin.host.tower_cache import check_frozen
from hound_plugin.model.adapters import (
    CONFIG,
    adapters_below,
    base_of,
    check_base,
    check_whole,
    is_adapter,
    other_base,
    same_weights,
)
from hound_plugin.model.checkpoint_files import check_files

logger = logging.get_logger(__name__)


def check_options(parsed: Iterable[Any]) -> None:
    """Check what the host parsed, for a run with our template.

    Args:
        parsed: the host's argument objects.

    Raises:
        SettingsError: an option has no effect with this model, or not the one that its name says.
    """
    parts = list(parsed)
    for part in parts:
        check_values(part)
    finetuning = _with(parts, "pref_loss")
    training = _with(parts, "do_train")
    model = _with(parts, "adapter_name_or_path")
    if model is not None:
        _check_model(model)
        check_export(model)
    generating = _with(parts, "repetition_penalty")
    if generating is not None:
        check_generation(generating)
    if training is not None:
        _check_packages(training)
        _check_training(training)
    data = _with(parts, "mix_strategy")
    if data is not None and data.default_system is not None:
        check_system(data.default_system)
    if data is not None and data.mix_strategy == "interleave_once" and len(data.dataset or []) > 1:
        raise SettingsError(
            "Expected `mix_strategy` to be concat, interleave_under or interleave_over; got 'interleave_once', which "
            "the releases of `datasets` that the host allows (up to 4.0.0) do not have."
        )
    if data is not None:
        check_mixture(data)
    if finetuning is not None and training is not None and training.do_train:
        _check_output(training.output_dir, finetuning.finetuning_type)
        _check_preferences(finetuning, model)
        _check_methods(finetuning, model)
        check_grouping(finetuning, training, data)
        check_frozen(finetuning)
        if finetuning.stage in ("dpo", "kto") and training.train_sampling_strategy == "group_by_length":
            raise SettingsError(
                f"`train_sampling_strategy: group_by_length` needs one sequence a row, and `stage: {finetuning.stage}` "
                "has several. Remove it."
            )


def _with(parts: list[Any], name: str) -> Any:
    return next((part for part in parts if hasattr(part, name)), None)


def _check_model(model: Any) -> None:
    """What the options say about the model, before any of it is read."""
    _check_folder("model_name_or_path", model.model_name_or_path)
    if model.export_legacy_format:
        raise SettingsError(
            "`export_legacy_format: true` has no effect: the installed transformers writes safetensors files only. "
            "Remove the key."
        )
    backend = str(getattr(model.infer_backend, "value", model.infer_backend))
    if backend != "huggingface":
        raise SettingsError(
            f"Expected `infer_backend: huggingface` for a LLaVA-Hound model, got {backend!r}, whose engine in the host "
            "does not know this model. Remove the key."
        )
    attention = str(getattr(model.flash_attn, "value", model.flash_attn))
    if attention == "fa3":
        raise SettingsError(
            "Expected `flash_attn` to be auto, sdpa, fa2 or disabled; got 'fa3', which the host has for one other "
            "model only."
        )
    if model.adapter_folder is not None and model.adapter_name_or_path is None:
        raise SettingsError(
            f"`adapter_folder: {model.adapter_folder}` has no effect without `adapter_name_or_path`, the folder or hub "
            "id that it is in. Set that, or remove the key."
        )
    below = model.adapter_folder
    adapters = [os.path.join(name, below) if below else name for name in model.adapter_name_or_path or []]
    for number, adapter in enumerate(adapters):
        check_whole(adapter)
        _check_named_base(adapter, model.model_name_or_path)
        check_base(adapter, model.model_name_or_path)
        _check_below(adapter, adapters[:number])


def _check_folder(key: str, name: str) -> None:
    """Is there a model where an option points? Asked before the hub is searched for a local path."""
    if os.path.isdir(name):
        files = set(os.listdir(name))
        if is_adapter(name):
            base = base_of(name)
            adapters = {"model_name_or_path": "adapter_name_or_path"}.get(key, f"{key}_adapters")
            raise SettingsError(
                f"Expected a model in `{key}: {name}`, which has only an adapter. Set `{adapters}: {name}` and "
                f"`{key}: {base or 'its base model'}`."
            )
        if "config.json" not in files:
            listing = ", ".join(sorted(files)[:8]) or "nothing"
            raise SettingsError(
                f"Expected a model in `{key}: {name}`, but it has no config.json: {listing}. Name the folder that "
                "has one."
            )
        check_files(name)
    elif os.path.isabs(name) or name.startswith((".", "~")) or name.count("/") > 1 or _begins_here(name):
        raise SettingsError(
            f"`{key}: {name}` is not a folder on this machine (searched from {os.getcwd()}), and hub ids have the form "
            "`owner/name`. Correct the path."
        )


def _begins_here(name: str) -> bool:
    """Whether ``a/b`` is meant as a path: a folder ``a`` has models in it, and ``a/b`` is not a released one."""
    folder, slash, _ = name.partition("/")
    if not slash or name in MODELS.values() or not os.path.isdir(folder):
        return False
    return any(os.path.isfile(os.path.join(folder, below, "config.json")) for below in os.listdir(folder))


def _check_named_base(adapter: str, name: str) -> None:
    """Refuse an adapter of another model, as far as its configuration tells."""
    base = base_of(adapter)
    if base is None or base == name or os.path.abspath(base) == os.path.abspath(name):
        return
    if other_base(adapter, name) is not None:
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
        os.path.realpath(before) == os.path.realpath(now) or not os.path.isdir(before) or same_weights(before, now)
        for before, now in zip(below, given, strict=True)
    )
    if below and not same:
        raise SettingsError(
            f"The adapter {adapter} was trained on a model into which {', '.join(below)} had been merged; got "
            f"{', '.join(given) or 'no adapter'} before it. Set `adapter_name_or_path: {','.join([*below, adapter])}`."
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


def _check_training(training: Any) -> None:
    if str(getattr(training.lr_scheduler_type, "value", training.lr_scheduler_type)) == "constant" and (
        training.warmup_steps or getattr(training, "warmup_ratio", None)
    ):
        raise SettingsError(
            "`warmup_steps` and `warmup_ratio` have no effect with `lr_scheduler_type: constant`. Set "
            "`lr_scheduler_type: constant_with_warmup`."
        )
    for key, default in (
        ("ray_num_workers", 1),
        ("ray_init_kwargs", None),
        ("master_addr", None),
        ("master_port", None),
    ):
        if not getattr(training, "use_ray", False) and getattr(training, key, default) != default:
            raise SettingsError(
                f"`{key}: {getattr(training, key)}` has no effect unless the environment variable `USE_RAY=1` is set. "
                "Set it, or remove the key."
            )
    if training.fp8 and not torch.cuda.is_available():
        raise SettingsError("`fp8: true` needs a GPU that computes in it, and torch finds none here. Remove the key.")


def _check_output(folder: str, finetuning_type: str) -> None:
    """Refuse to save a model into a folder with an adapter, or the other way round."""
    saves, other = (CONFIG, "config.json") if finetuning_type == "lora" else ("config.json", CONFIG)
    there = [path for path in (Path(folder), *sorted(Path(folder).glob("checkpoint-*"))) if (path / other).is_file()]
    if there:
        raise SettingsError(
            f"Expected an `output_dir` without {other}, as `finetuning_type: {finetuning_type}` saves {saves}; found "
            f"it in {there[0]}. Nobody could tell an adapter from a model in one folder: choose another `output_dir`, "
            "or remove the earlier training there, with its checkpoints."
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
    for key in ("ref_model_adapters", "ref_model_quantization_bit"):
        if getattr(finetuning, key) is not None and finetuning.ref_model is None:
            raise SettingsError(
                f"`{key}: {getattr(finetuning, key)}` has no effect without `ref_model`. Set `ref_model` to the model "
                "that it is meant for."
            )
    if finetuning.ref_model is not None:
        _check_folder("ref_model", finetuning.ref_model)
    referenced = finetuning.use_ref_model or finetuning.stage == "kto"
    continued = model is not None and model.adapter_name_or_path and not finetuning.create_new_adapter
    if finetuning.finetuning_type == "lora" and referenced and continued and finetuning.ref_model is None:
        raise SettingsError(
            f"`adapter_name_or_path: {','.join(model.adapter_name_or_path)}` would be trained further in `stage: "
            f"{finetuning.stage}`, and the reference would be the model without this adapter, not the model that you "
            "start from. Set `create_new_adapter: true` (in the web UI *Create new adapter*: the adapter is merged and "
            f"a new one is trained), or name the reference: `ref_model: {model.model_name_or_path}`, with "
            "`ref_model_adapters` for the adapter as it is now."
        )


def _check_methods(finetuning: Any, model: Any) -> None:
    if finetuning.finetuning_type == "oft":
        raise SettingsError(
            "`finetuning_type: oft` trains, but the host can neither continue from its adapter nor merge it. Use lora."
        )
    if finetuning.finetuning_type == "freeze" and not finetuning.freeze_vision_tower:
        raise SettingsError(
            "`finetuning_type: freeze` with `freeze_vision_tower: false` would train those blocks of the towers that "
            "have the numbers of the language model's. Set `freeze_vision_tower: true`, or `finetuning_type: full`."
        )
    if finetuning.use_llama_pro and finetuning.finetuning_type == "lora":
        raise SettingsError(
            "`use_llama_pro` with `finetuning_type: lora` reads the number of layers from the top of the "
            "configuration, where this model has none. Remove the key, or use `finetuning_type: freeze`."
        )
    if finetuning.finetuning_type == "freeze" and "multi_modal_projector" in (finetuning.freeze_extra_modules or []):
        raise SettingsError(
            "`freeze_extra_modules: multi_modal_projector` is no module that the host finds by this name. To train the "
            "projector, set `freeze_multi_modal_projector: false`."
        )
    if finetuning.use_dora and model.quantization_bit is not None:
        raise SettingsError(
            f"`use_dora` cannot be trained on a model of `quantization_bit: {model.quantization_bit}` with this host. "
            "Remove one of the two."
        )
    approximate = finetuning.pissa_init and finetuning.pissa_iter != -1 and model.quantization_bit is None
    if approximate and not finetuning.pissa_convert:
        raise SettingsError(
            f"`pissa_init` with `pissa_iter: {finetuning.pissa_iter}` saves an adapter that no model can be given "
            "again: it belongs to a random approximation of the weights, which is not saved. Set `pissa_iter: -1`, "
            "which is exact, or `pissa_convert: true`, and use the folder `pissa_converted`."
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
