"""The files of a checkpoint: where they are and what they contain, with one open at a time."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download

from hound_plugin.errors import CheckpointError
from hound_plugin.model.checkpoint import read_tensors
from hound_plugin.model.completeness import check_within_folder, tensor_shapes
from hound_plugin.model.configuration import ORIGINAL_MODEL_TYPE, VIDEO_LLAVA_MODEL_TYPE, LlavaHoundConfig

_FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_WEIGHT_PATTERNS = ("*.safetensors", "*.bin", "*.json", "tokenizer.model")


def fetch(name: str) -> Path:
    """The local copy of a hub repository's weights, configuration and tokenizer.

    Raises:
        CheckpointError: the name is neither a folder nor a reachable repository.
    """
    try:
        return Path(snapshot_download(name, allow_patterns=list(_WEIGHT_PATTERNS)))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"Expected a checkpoint folder or a hub id, but {name!r} is not a folder, and the hub does not have "
            f"it: {error}"
        ) from error


def check_architecture(folder: Path) -> None:
    """Refuse a checkpoint of another architecture.

    Raises:
        CheckpointError: it has no config.json, or the config is of another model.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise CheckpointError(f"Expected config.json in {folder}, which does not have it. Is the download complete?")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"Expected JSON in {file}: {error}. It is damaged; download it again.") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"Expected a JSON object in {file}, found a {type(values).__name__}. Download it again.")
    model_type = values.get("model_type")
    known = (LlavaHoundConfig.model_type, ORIGINAL_MODEL_TYPE, VIDEO_LLAVA_MODEL_TYPE)
    if model_type not in known:
        raise CheckpointError(
            f"Expected a checkpoint of model_type {' or '.join(known)} in {folder}, found "
            f"{model_type!r}. Name another checkpoint."
        )


def weight_files(folder: Path) -> list[Path]:
    """The checkpoint's weight files in order: safetensors before .bin, an index before single files.

    Raises:
        CheckpointError: there are none, or the index names missing files.
    """
    for single in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{single}.index.json"
        if index.is_file():
            names = _indexed(index)
            check_within_folder([folder / name for name in names], folder)
            missing = [name for name in names if not (folder / name).is_file()]
            if missing:
                raise CheckpointError(
                    f"{index} names {len(missing)} missing file(s): {', '.join(missing[:5])}. Download them."
                )
            return [folder / name for name in names]
        if (folder / single).is_file():
            return [folder / single]
    raise CheckpointError(
        f"Expected model.safetensors or pytorch_model.bin (or their index) in {folder}, found neither. "
        "Is the download complete?"
    )


def _indexed(index: Path) -> list[str]:
    """The files that an index names."""
    try:
        weights = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return sorted({os.fspath(name) for name in weights.values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"Expected an index of weights with a `weight_map` from tensors to files in {index}; it cannot be read "
            f"({error!r}). It is damaged; download it again."
        ) from error


def key_names(files: list[Path]) -> list[str]:
    """Names of all tensors, in file order."""
    return [name for name, _ in _entries(files)]


def stored_shapes(files: list[Path]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors, from the files' headers."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, value in _entries(files):
        shapes |= tensor_shapes({name: value})
    return shapes


def stored_dtypes(files: list[Path]) -> dict[str, torch.dtype]:
    """Names and dtypes of all tensors, read from the headers for floating-point tensors."""
    return {name: _dtype(value) for name, value in _entries(files)}


def _dtype(value: Any) -> torch.dtype:
    if torch.is_tensor(value):
        return value.dtype
    return _FLOATS.get(value.get_dtype()) or value[...].dtype


def stored_tensors(
    files: list[Path], wanted: Callable[[str], bool] = lambda name: True
) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors one by one; at most one file is open, and memory-mapped.

    Args:
        files: the weight files.
        wanted: whether to read the tensor of a name.
    """
    for name, value in _entries(files):
        if wanted(name):
            yield name, value if torch.is_tensor(value) else value[...]


def _entries(files: list[Path]) -> Iterator[tuple[str, Any]]:
    """Names with lazy slices (safetensors) or memory-mapped tensors (.bin), which are valid until the next one."""
    for file in files:
        with contextlib.ExitStack() as stack:
            tensors = read_tensors([str(file)], stack)
            for name in list(tensors):
                yield name, tensors.pop(name)
