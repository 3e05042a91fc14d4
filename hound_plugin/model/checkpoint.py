"""Reading an original checkpoint during ``from_pretrained``: keys are renamed, towers located, nothing is copied.

safetensors files stay lazy slices; ``.bin`` files are read with ``weights_only=True``. A checkpoint saved in
bfloat16 contains rounded towers, so the tower files named in the config are preferred if available, as in the
original; which ones were used is logged.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.utils import cached_file, logging

from hound_plugin.errors import CheckpointError
from hound_plugin.model.completeness import (
    check_complete,
    check_finite,
    check_floating,
    check_once,
    check_within_folder,
    expected_shapes,
    tensor_shapes,
)
from hound_plugin.model.configuration import tower_location
from hound_plugin.model.key_mapping import IGNORED, is_original, to_ours

logger = logging.get_logger(__name__)

TOWER_FILES = ("model.safetensors", "pytorch_model.bin")
TOWER_PREFIXES = ("image_tower", "video_tower")
_LORA = re.compile(r"base_model\.model\.|\.base_layer")


@contextlib.contextmanager
def read_as_ours(model: Any, state_dict: Any, files: Any, load_config: Any) -> Iterator[Any]:
    """Yield the state dict of an original checkpoint under our names, or ``state_dict`` unchanged for our layout.

    Args:
        model: the composite or its base model, before its parameters are loaded.
        state_dict: the one given to ``from_pretrained``, or None.
        files: the resolved checkpoint files, or None.
        load_config: transformers' ``LoadStateDictConfig``: hub arguments and the checkpoint's name.

    Raises:
        CheckpointError: unknown or missing keys (listed), or a tower that cannot be found.
    """
    if state_dict is not None or not files:
        yield state_dict
        return
    name = str(load_config.pretrained_model_name_or_path)
    if os.path.isdir(name):
        check_within_folder(files, name)
    with contextlib.ExitStack() as stack:
        tensors = read_tensors(files, stack)
        if load_config.hf_quantizer is None or not load_config.hf_quantizer.pre_quantized:
            check_floating(tensors, name)
        if load_config.hf_quantizer is not None or is_deepspeed_zero3_enabled():  # bits or parts have no NaN to look at
            packed = {key.removesuffix(".absmax") for key in tensors if key.endswith(".absmax")}  # 4 bits, as any type
            plain = ((key, tensors[key]) for key in tensors if key not in packed)
            check_finite(
                ((key, value if torch.is_tensor(value) else value[...]) for key, value in plain),
                f"the checkpoint {name}",
            )
        if not is_original(list(tensors)):
            _check_ours(model, tensors, load_config)
            stack.close()
            yield None
            return
        ours = {new: tensors[old] for old, new in to_ours(list(tensors)).items()}
        hub = {key: value for key, value in (load_config.download_kwargs or {}).items() if key not in _NOT_FOR_TOWERS}
        ours.update(tower_tensors(model.config, ours, name if os.path.isdir(name) else None, hub, stack))
        if not hasattr(model, "lm_head"):
            ours = {key.removeprefix("model."): value for key, value in ours.items() if key != "lm_head.weight"}
        check_complete(expected_shapes(model), tensor_shapes(ours), name)
        if is_deepspeed_zero3_enabled():  # scattering needs tensors
            ours = {key: value if torch.is_tensor(value) else value[...] for key, value in ours.items()}
        yield ours


def _check_ours(model: Any, tensors: dict[str, Any], load_config: Any) -> None:
    """Check a checkpoint in our layout; it and the model may each be the composite or the base model."""
    shapes, expected = tensor_shapes(tensors), expected_shapes(model)
    if not hasattr(model, "lm_head"):
        shapes = {name.removeprefix("model."): shape for name, shape in shapes.items()}
    elif not any(name.startswith("model.") for name in shapes):
        shapes = {name if name.startswith("lm_head.") else f"model.{name}": shape for name, shape in shapes.items()}
    quantised = load_config.hf_quantizer is not None and load_config.hf_quantizer.pre_quantized
    check_complete(expected, shapes, load_config.pretrained_model_name_or_path, names_only=quantised)


_NOT_FOR_TOWERS = ("revision", "commit_hash", "subfolder")


def read_tensors(files: list[str], stack: contextlib.ExitStack) -> dict[str, Any]:
    """Open checkpoint files: ``key -> tensor`` (.bin) or lazy slice (.safetensors), open until the stack closes.

    Raises:
        CheckpointError: a file is damaged, or a tensor is in two files: libraries choose differently between them.
    """
    tensors: dict[str, Any] = {}
    for file in files:
        if file.endswith(".safetensors"):
            try:
                handle = stack.enter_context(safe_open(file, framework="pt", device="cpu"))
            except SafetensorError as error:
                raise CheckpointError(f"Cannot read {file} ({error}). It is damaged; download it again.") from error
            except OSError as error:
                raise CheckpointError(
                    f"Cannot open {file} ({error}). Check that all files of the checkpoint are there."
                ) from error
            new = {key: handle.get_slice(key) for key in handle.keys()}  # noqa: SIM118 (not a mapping)
        else:
            new = load_bin(file)
        check_once(tensors, new, file)
        tensors.update(new)
    return tensors


def load_bin(file: str | Path) -> dict[str, torch.Tensor]:
    """Read a ``.bin`` checkpoint without unpickling anything but tensors.

    Raises:
        CheckpointError: torch is older than 2.6 (``weights_only`` could be bypassed: CVE-2025-32434), or the file is
            damaged or contains other objects.
    """
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 6):
        raise CheckpointError(
            f"Expected torch 2.6 or later to read {file} safely, found {torch.__version__}. Update torch, or convert "
            "the checkpoint to safetensors elsewhere."
        )
    try:
        mapped = zipfile.is_zipfile(file)  # the format before torch 1.6 cannot be mapped
        return torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:
        raise CheckpointError(
            f"Expected a checkpoint of tensors in {file}, but it cannot be read ({type(error).__name__}: {error}). "
            "It is damaged, or contains other Python objects, which are never loaded. Download it again."
        ) from error


def tower_tensors(
    config: Any, ours: Collection[str], folder: str | None, hub: dict[str, Any], stack: contextlib.ExitStack
) -> dict[str, Any]:
    """The towers' tensors under our names, for each tower whose own files are available.

    Args:
        config: of an original checkpoint.
        ours: names of the tensors in the checkpoint itself.
        folder: the checkpoint's, if it is a folder.
        hub: where on the hub, as transformers' ``cached_file`` takes it.
        stack: keeps files open whose tensors are lazy slices.

    Raises:
        CheckpointError: a tower is neither in the checkpoint nor elsewhere.
    """
    towers: dict[str, Any] = {}
    for tower, name in (("image_tower", config.mm_image_tower), ("video_tower", config.mm_video_tower)):
        prefix = f"model.{tower}."
        in_checkpoint = any(key.startswith(prefix) for key in ours)
        file = find_tower(name, folder, hub) if name else None
        if file is not None:
            tensors = read_tower(file, getattr(config, f"{tower}_config"), stack)
            towers.update({prefix + key: value for key, value in tensors.items()})
            logger.warning(f"{tower}: weights from {name} ({file}).")
        elif in_checkpoint:
            logger.warning(
                f"{tower}: weights from the checkpoint itself; {name} is unavailable. If the checkpoint was saved in "
                "bfloat16, these are rounded."
            )
        else:
            raise CheckpointError(
                f"The checkpoint has no weights of the {tower.replace('_', ' ')}, and {name!r}, named in its "
                "config.json, cannot be found as a folder or on the hub. Download it once "
                f"(`hf download {name}`), or put the path of a local copy into config.json."
            )
    return towers


def find_tower(name: str, folder: str | None, hub: dict[str, Any]) -> str | None:
    """The weight file of a tower in a folder, the hub's cache or the hub; None if not found."""
    location = tower_location(name, folder)
    for file in TOWER_FILES:
        try:
            path = cached_file(
                location, file, **hub, _raise_exceptions_for_missing_entries=False,
                _raise_exceptions_for_connection_errors=False, _raise_exceptions_for_gated_repo=False,
            )  # fmt: skip
        except OSError as error:
            logger.info(f"{name}/{file}: {error}")
            continue
        if path is not None:
            return str(path)
    return None


def read_tower(file: str, config: Any, stack: contextlib.ExitStack) -> dict[str, Any]:
    """Tensors of a LanguageBind file under the names of our tower.

    The text tower and the projections of the contrastive model are left out. On the hub, the encoder of
    ``LanguageBind_Image`` is wrapped in LoRA; those weights are merged: ``W + B A * alpha / r``.
    """
    tensors = read_tensors([file], stack)
    vision = {}
    for key, value in tensors.items():
        if key.startswith("vision_model.") and not IGNORED.search(key):
            vision[key.removeprefix("vision_model.")] = value
    if any(".lora_A." in key for key in vision):
        vision = merge_lora(vision, *_lora_scale(file))
    return vision


def _lora_scale(file: str) -> tuple[float, int]:
    values = json.loads((Path(file).parent / "config.json").read_text(encoding="utf-8"))
    vision = values.get("vision_config", values)
    return float(vision.get("lora_alpha", 16)), int(vision.get("lora_r", 2))


def merge_lora(tensors: dict[str, Any], alpha: float, rank: int) -> dict[str, Any]:
    """Merge LoRA pairs into their base weights and drop PEFT's infixes from the names.

    Args:
        tensors: keys such as ``encoder.base_model.model.layers.0.self_attn.q_proj.lora_A.default.weight`` with the
            base weight at ``...q_proj.weight`` or ``...q_proj.base_layer.weight``.
        alpha, rank: LoRA's scale is ``alpha / rank``.
    """
    merged: dict[str, Any] = {}
    pairs: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        clean = _LORA.sub("", key)
        match = re.fullmatch(r"(.+)\.lora_([AB])(?:\.[^.]+)?\.weight", clean)
        if match:
            pairs.setdefault(match.group(1), {})[match.group(2)] = value if torch.is_tensor(value) else value[...]
        else:
            merged[clean] = value
    for name, pair in pairs.items():
        base = merged.get(f"{name}.weight")
        if base is None or set(pair) != {"A", "B"}:
            raise CheckpointError(f"Expected a base weight and a LoRA pair for {name}, found {sorted(pair)}.")
        base = base if torch.is_tensor(base) else base[...]
        delta = (pair["B"].float() @ pair["A"].float()) * (alpha / rank)
        merged[f"{name}.weight"] = (base.float() + delta).to(base.dtype)
    return merged
