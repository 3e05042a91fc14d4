"""Which run a checkpoint belongs to: its model, its rows, and the settings that change results.

Left out is what people change between two starts of one run: how long it trains, what is saved, logged and evaluated,
on how many processes and with which of two ways to the same numbers.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from hound_plugin.model.weights_identity import weights_of
from hound_plugin.records.media_identity import media_digest
from hound_plugin.settings import HoundSettings

NAMED = (
    "model_name_or_path", "adapter_name_or_path", "create_new_adapter", "stage", "finetuning_type", "dataset",
    "max_samples", "ref_model", "pref_loss", "freeze_vision_tower", "freeze_multi_modal_projector",
    "freeze_language_model", "freeze_trainable_layers", "lora_rank", "lora_target", "additional_target",
)  # fmt: skip
"""Noted by every version."""
DATA = (
    "template", "default_system", "cutoff_len", "train_on_prompt", "mask_history", "ignore_pad_token_for_loss",
    "packing", "neat_packing", "streaming", "buffer_size", "mix_strategy", "interleave_probs", "val_size",
    "disable_shuffling", "seed", "data_seed", "train_sampling_strategy", "dataloader_drop_last",
)  # fmt: skip
OPTIMISER = (
    "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "warmup_ratio", "optim", "optim_args",
    "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "loraplus_lr_ratio",
    "loraplus_lr_embedding", "use_galore", "galore_target", "galore_rank", "galore_update_interval", "galore_scale",
    "galore_proj_type", "use_apollo", "apollo_target", "apollo_rank", "apollo_update_interval", "apollo_scale",
    "apollo_proj", "apollo_proj_type", "apollo_scale_type", "use_badam", "badam_mode", "badam_start_block",
    "badam_switch_mode", "badam_switch_interval", "badam_update_ratio", "badam_mask_mode", "use_adam_mini", "use_muon",
    "optim_target_modules", "average_tokens_across_devices", "bf16", "fp16", "pure_bf16",
)  # fmt: skip
LOSS = (
    "label_smoothing_factor", "neftune_noise_alpha", "pref_beta", "pref_ftx", "pref_bco_weight", "dpo_label_smoothing",
    "kto_chosen_weight", "kto_rejected_weight", "simpo_gamma", "ld_alpha", "ref_model_adapters",
    "ref_model_quantization_bit", "use_dft_loss", "use_asft_loss", "asft_alpha", "use_eaft_loss", "eaft_alpha",
)  # fmt: skip
WEIGHTS = (
    "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "pissa_init", "pissa_iter", "module_dropout", "oft_rank",
    "oft_block_size", "oft_target", "freeze_trainable_modules", "freeze_extra_modules", "use_llama_pro",
    "quantization_bit", "quantization_method", "quantization_type", "double_quantization", "rope_scaling",
    "train_from_scratch", "model_revision", "adapter_folder", "upcast_layernorm", "upcast_lmhead_output",
)  # fmt: skip
HOUND = ("num_frames", "frame_sampling", "group_questions")
"""Of the ``hound:`` block."""
_SAMPLING = "hound.frame_sampling"
_PLACE = ("dataset_name", "load_from")  # of an entry in dataset_info.json
_MODELS = ("model_name_or_path", "ref_model")
_ADAPTERS = ("adapter_name_or_path", "ref_model_adapters")
_FILES = (
    "config.json", "adapter_config.json", "processor_config.json", "preprocessor_config.json",
    "video_preprocessor_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
_ABOUT = (
    "_name_or_path", "name_or_path", "_commit_hash", "transformers_version", "architectures", "use_cache",
    "peft_version", "base_model_name_or_path", "inference_mode", "revision",
)  # fmt: skip
ROWS, BATCH, PROCESSES, MODELS, MODEL_FILES = "rows", "rows_a_step", "processes", "models", "model_files"


def settings_of(parts: Iterable[Any], ours: HoundSettings) -> dict[str, Any]:
    """The settings of a run that its checkpoints note, as JSON has them.

    Args:
        parts: what the host parsed: its objects of arguments.
        ours: the ``hound:`` block.
    """
    parts = list(parts)
    keys = (*NAMED, *DATA, *OPTIMISER, *LOSS, *WEIGHTS)
    run = {key: _plain(getattr(part, key)) for key in keys for part in parts if hasattr(part, key)}
    run |= {f"hound.{key}": _plain(getattr(ours, key)) for key in HOUND}
    for part in parts:
        if hasattr(part, "per_device_train_batch_size") and not getattr(part, "auto_find_batch_size", False):
            run[PROCESSES] = int(os.environ.get("WORLD_SIZE", "1"))
            run[BATCH] = part.per_device_train_batch_size * part.gradient_accumulation_steps * run[PROCESSES]
    return run


def data_rows(data_args: Any) -> dict[str, str]:
    """A digest of the rows of each training data set in files of this machine, by its name.

    Content counts, not folder or time of change; so do the entry in ``dataset_info.json`` and the order of rows.
    """
    from llamafactory.data.parser import get_dataset_list

    if not data_args.dataset or not os.path.isdir(str(data_args.dataset_dir)):
        return {}
    try:
        entries = get_dataset_list(data_args.dataset, data_args.dataset_dir)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # whoever reads them says why
    rows = {}
    for name, entry in zip(data_args.dataset, entries, strict=True):
        files = _files(os.path.join(data_args.dataset_dir, entry.dataset_name)) if entry.load_from == "file" else []
        if files:
            said = {key: value for key, value in vars(entry).items() if value and key not in _PLACE}
            rows[name] = f"{media_digest(files)} {json.dumps(_plain(said), sort_keys=True)}"
    return rows


def models_of(run: Mapping[str, Any], output_dir: str) -> dict[str, str]:
    """A digest of the weights of each folder that a training begins with: model, reference, and their adapters.

    Args:
        run: :func:`settings_of` the training.
        output_dir: what the training itself writes there is left out.
    """
    return {
        folder: hashlib.sha256(json.dumps(weights_of(folder), sort_keys=True).encode()).hexdigest()
        for folder in _folders(run, output_dir)
    }


def model_files_of(run: Mapping[str, Any], output_dir: str) -> dict[str, dict[str, str]]:
    """A digest of each small file of these folders that decides what a model computes, or which tokens it is given.

    Args:
        run, output_dir: as for :func:`models_of`.
    """
    folders = _folders(run, output_dir)
    return {
        folder: {name: _meaning(path) for name in _FILES if os.path.isfile(path := os.path.join(folder, name))}
        for folder in folders
    }


def _folders(run: Mapping[str, Any], output_dir: str) -> list[str]:
    folders = [name for key in _MODELS for name in _names(run.get(key))]
    inner = run.get("adapter_folder") or ""
    folders += [os.path.join(name, inner) for key in _ADAPTERS for name in _names(run.get(key))]
    real = {os.path.realpath(folder) for folder in folders if os.path.isdir(folder)} - {os.path.realpath(output_dir)}
    return sorted(real)


def _meaning(path: str) -> str:
    """A digest of a file; of JSON without layout, and without what says only who wrote it, and from where."""
    with open(path, "rb") as file:
        content = file.read()
    try:
        values = json.loads(content) if path.endswith(".json") else None
    except ValueError:
        values = None  # damaged: whoever loads it says so
    if values is not None:
        content = json.dumps(_without_origin(values), sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def _without_origin(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    kept = {key: _without_origin(item) for key, item in value.items() if key not in _ABOUT}
    return kept | ({"dtype": kept.pop("torch_dtype")} if "torch_dtype" in kept else {})  # its former name


def _names(value: Any) -> list[str]:
    """One name, several in a list, or several with commas between them."""
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else list(value or ())


def changed_models(before: Mapping[str, Any], models: Mapping[str, str]) -> list[str]:
    """A line for each folder whose weights are others than a checkpoint notes."""
    noted = before.get(MODELS)
    noted = noted if isinstance(noted, dict) else {}
    return [
        f"the weights in {folder} were others"
        for folder, digest in models.items()
        if noted.get(folder, digest) != digest
    ]


def changed_model_files(before: Mapping[str, Any], files: Mapping[str, Mapping[str, str]]) -> list[str]:
    """A line for each file of these folders that is another than a checkpoint notes, has gone, or has come since."""
    noted = before.get(MODEL_FILES)
    noted = noted if isinstance(noted, dict) else {}
    return [
        f"{name} in {folder} was {'another one' if name in now and name in noted[folder] else 'not there'}"
        if name in now
        else f"{name} was in {folder}"
        for folder, now in files.items()
        if isinstance(noted.get(folder), dict)
        for name in sorted(now.keys() | noted[folder].keys())
        if now.get(name) != noted[folder].get(name)
    ]


def changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of settings of which a checkpoint notes another value; folders are compared by their real path."""
    apart = (ROWS, BATCH, PROCESSES, MODELS, MODEL_FILES)
    names = [name for name in now if name in before and name not in apart]
    changed = [name for name in names if _real_path(before[name]) != _real_path(now[name])]
    if before.get(_SAMPLING) == "uniform" and now.get(_SAMPLING) is None:  # an earlier version's default
        changed = [name for name in changed if name != _SAMPLING]
    same_processes = before.get(PROCESSES) == now.get(PROCESSES)
    return changed + [BATCH] * (BATCH in before and same_processes and before[BATCH] != now.get(BATCH))


def changed_rows(before: Mapping[str, Any], rows: Mapping[str, str]) -> list[str]:
    """A line for each data set whose rows, or entry in ``dataset_info.json``, are others than a checkpoint notes."""
    noted = before.get(ROWS)
    noted = noted if isinstance(noted, dict) else {}
    changed = []
    for name in rows:
        was, _, entry_was = str(noted.get(name, rows[name])).partition(" ")
        is_now, _, entry_now = rows[name].partition(" ")
        if was != is_now:
            changed.append(f"the rows of {name!r}, SHA-256 {was[:12]} there, {is_now[:12]} now")
        elif entry_was != entry_now:
            changed.append(f"the entry of {name!r} in dataset_info.json, {entry_was} there, {entry_now} now")
    return changed


def tokenised_rows(folder: str) -> dict[str, str]:
    """The fingerprint that `datasets` saved with tokenised rows."""
    for state in (os.path.join(folder, "train", "state.json"), os.path.join(folder, "state.json")):
        try:
            with open(state, encoding="utf-8") as file:
                return {"tokenized_path": str(json.load(file)["_fingerprint"])}
        except (OSError, ValueError, KeyError):
            continue
    return {}


def _files(path: str) -> list[str]:
    """A data file, or those of a folder in the order that the host reads them in."""
    if os.path.isdir(path):
        return sorted(entry.path for entry in os.scandir(path) if entry.is_file())
    return [path] if os.path.isfile(path) else []


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def _real_path(value: Any) -> Any:
    """A folder by its real path, however it is written; other values as they are."""
    if isinstance(value, list):
        return [_real_path(item) for item in value]
    return os.path.realpath(value) if isinstance(value, str) and os.path.isdir(value) else value
