"""The files of a checkpoint: where they are and what they contain, with one open at a time."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download

from hound_plugin.errors import CheckpointError
from hound_plugin.model.adapters import check_not_both
from hound_plugin.model.checkpoint import read_tensors
from hound_plugin.model.completeness import check_floating, check_once, check_within_folder, tensor_shapes
from hound_plugin.model.configuration import ORIGINAL_MODEL_TYPE, VIDEO_LLAVA_MODEL_TYPE, LlavaHoundConfig

_FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_SINGLE = ("model.safetensors", "pytorch_model.bin")
UNFINISHED = "save.unfinished"
"""In a folder while a model is saved there: its files may be of two models."""
_GENERATION = "generation_config.json"
_OBJECTS = ("config.json", "tokenizer_config.json", "processor_config.json", _GENERATION)
_RANGES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "do_sample": ("true or false", lambda value: isinstance(value, bool)),
    "temperature": ("a number of at least 0", lambda value: _is_number(value) and value >= 0),
    "top_p": ("a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1),
    "top_k": ("a whole number of at least 0", lambda value: _is_number(value, int) and value >= 0),
    "repetition_penalty": ("a number above 0", lambda value: _is_number(value) and value > 0),
    "num_beams": ("a whole number of at least 1", lambda value: _is_number(value, int) and value >= 1),
    "max_new_tokens": ("a whole number of at least 1", lambda value: _is_number(value, int) and value >= 1),
    "max_length": ("a whole number of at least 1", lambda value: _is_number(value, int) and value >= 1),
    "eos_token_id": ("ids of tokens", lambda value: _are_tokens(value)),
    "pad_token_id": ("the id of a token", lambda value: _are_tokens(value)),
}
"""What ``generate`` would stop at, or take for something else, when the first answer is due."""
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
    model_type = _read_object(file).get("model_type")
    known = (LlavaHoundConfig.model_type, ORIGINAL_MODEL_TYPE, VIDEO_LLAVA_MODEL_TYPE)
    if model_type not in known:
        raise CheckpointError(
            f"Expected a checkpoint of model_type {' or '.join(known)} in {folder}, found {model_type!r}. Name another "
            "checkpoint."
        )


def check_files(folder: str | os.PathLike[str], with_tokenizer: bool = True) -> None:
    """Check the small files of a checkpoint, which libraries skip or crash on if they are damaged or absent.

    Args:
        folder: a local folder.
        with_tokenizer: whether the tokenizer is required; a model may be saved without it.

    Raises:
        CheckpointError: a file is not a JSON object, the tokenizer is missing, an index of weights is unusable, the
            weights may be of two models, or there is an adapter next to them.
    """
    path = Path(folder)
    check_not_both(path)
    _check_one_model(path)
    for name in _OBJECTS:
        if (path / name).is_file():
            _read_object(path / name)
    if (path / _GENERATION).is_file():
        _check_generation(path / _GENERATION)
    for single in _SINGLE:
        if (path / f"{single}.index.json").is_file():
            _indexed(path / f"{single}.index.json")
    if not with_tokenizer:
        return
    file = path / "tokenizer.json"
    if file.is_file() and not isinstance(_read_object(file).get("model"), dict):
        raise CheckpointError(f"Expected a tokenizer with its `model` in {file}. It is damaged; download it again.")
    if not file.is_file() and not (path / "tokenizer.model").is_file():
        raise CheckpointError(
            f"Expected tokenizer.json or tokenizer.model in {folder}, found neither. Is the download complete?"
        )


_together: ContextVar[list[Path] | None] = ContextVar("_together", default=None)


@contextlib.contextmanager
def saved_together() -> Iterator[list[Path]]:
    """For a block that saves a model and then what belongs to it: the mark of :func:`saving` stays until it ends.

    It stays for good if the block raises.

    Yields:
        The folders in which a model was saved, as they come.
    """
    folders: list[Path] = []
    token = _together.set(folders)
    try:
        yield folders
    finally:
        _together.reset(token)
    for folder in folders:
        (folder / UNFINISHED).unlink(missing_ok=True)


@contextlib.contextmanager
def saving(folder: Path) -> Iterator[None]:
    """For a block that saves a model with transformers: afterwards the folder has the weights of that model alone.

    If the block is ended half-way, the folder may have files of two models, of the same names and shapes. A mark stays
    then, by which :func:`check_files` refuses it. transformers removes older shards, but not an older single file in
    favour of new shards, and then loads the older one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / UNFINISHED).touch()
    before = _stamps(folder)
    yield
    for single in _SINGLE:
        both = {f"{single}.index.json", single}
        written = {name for name, stamp in _stamps(folder).items() if name in both and before.get(name) != stamp}
        if len(written) == 1:
            (folder / next(iter(both - written))).unlink(missing_ok=True)
    together = _together.get()
    if together is None:
        (folder / UNFINISHED).unlink(missing_ok=True)
    else:
        together.append(folder)


def _stamps(folder: Path) -> dict[str, tuple[int, int, int]]:
    """What changes when a file is written, of the files by which weights are found."""
    files = [folder / f"{single}{end}" for single in _SINGLE for end in ("", ".index.json")]
    stats = {file.name: file.stat() for file in files if file.is_file()}
    return {name: (stat.st_mtime_ns, stat.st_size, stat.st_ino) for name, stat in stats.items()}


def _check_one_model(folder: Path) -> None:
    """Refuse weights of two models, between which libraries choose differently."""
    if (folder / UNFINISHED).exists():
        raise CheckpointError(
            f"Expected a whole checkpoint in {folder}; a model was being saved there when its process ended, and some "
            f"of its files may be of an earlier model. Save or export it again. ({UNFINISHED} says so; delete it if "
            "you know that the files belong together.)"
        )
    for single in _SINGLE:
        index = folder / f"{single}.index.json"
        if index.is_file() and (folder / single).is_file() and single not in _indexed(index):
            raise CheckpointError(
                f"Expected the weights of one model in {folder}; it has {single}, and {index.name} names other files. "
                "Remove the older of the two, and what it names."
            )
    _check_same_in_both_formats(folder)


_COMPARED = 64  # numbers at both ends of each tensor


def _check_same_in_both_formats(folder: Path) -> None:
    """Refuse safetensors and .bin files of two models: everybody reads the safetensors, which may be the older ones."""
    both = [_files_of(folder, single) for single in _SINGLE]
    if not all(file.is_file() for files in both for file in files) or not all(both):
        return
    try:
        safe, pickled = (dict(_entries_together(files)) for files in both)
    except CheckpointError:  # the reader says so, if it is a file that is read
        return
    other = sorted(name for name in safe.keys() & pickled.keys() if not _are_alike(safe[name], pickled[name]))
    if other:
        raise CheckpointError(
            f"Expected the weights of one model in {folder}; {len(other)} tensors differ between its safetensors and "
            f"its .bin files, such as {other[0]}. The safetensors would be read: remove the older files."
        )


def _files_of(folder: Path, single: str) -> list[Path]:
    index = folder / f"{single}.index.json"
    names = _indexed(index) if index.is_file() else [single] if (folder / single).is_file() else []
    return [folder / name for name in names]


def _entries_together(files: list[Path]) -> Iterator[tuple[str, tuple[str, torch.Tensor]]]:
    """Names with dtypes and both ends of tensors, as float32."""
    for name, value in _entries(files):
        shape = value.shape if torch.is_tensor(value) else value.get_shape()
        if not len(shape):
            continue
        rows = max(1, _COMPARED * shape[0] // max(1, math.prod(shape)))
        ends = [part.reshape(-1).float() for part in (value[:rows], value[-rows:])]
        dtype = str(value.dtype) if torch.is_tensor(value) else str(value[:0].dtype)
        yield name, (dtype, torch.cat([ends[0][:_COMPARED], ends[1][-_COMPARED:]]))


def _are_alike(first: tuple[str, torch.Tensor], second: tuple[str, torch.Tensor]) -> bool:
    """Whether two samples are of one tensor, perhaps rounded to another dtype."""
    (one, left), (two, right) = first, second
    if left.shape != right.shape:
        return False
    return torch.equal(left, right) if one == two else torch.allclose(left, right, rtol=1e-2, atol=1e-6)


def _check_generation(file: Path) -> None:
    values = _read_object(file)
    for name, (expected, is_good) in _RANGES.items():
        value = values.get(name)
        if value is not None and not is_good(value):
            raise CheckpointError(f"Expected {expected} for {name} in {file}, found {value!r:.80}. Correct it there.")
    if values.get("do_sample") and values.get("temperature") == 0:
        raise CheckpointError(
            f"Expected a temperature above 0 beside do_sample in {file}, found 0. Correct one of them there."
        )


def _is_number(value: Any, kind: type = float) -> bool:
    is_kind = isinstance(value, int | kind) and not isinstance(value, bool)
    return is_kind and math.isfinite(value)


def _are_tokens(value: Any) -> bool:
    return all(_is_number(item, int) for item in (value if isinstance(value, list) else [value]))


def _read_object(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"Expected JSON in {file}: {error}. It is damaged; download it again.") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"Expected a JSON object in {file}, found a {type(values).__name__}. Download it again.")
    return values


def weight_files(folder: Path) -> list[Path]:
    """The checkpoint's weight files in order: safetensors before .bin, an index before single files.

    Raises:
        CheckpointError: there are none, the index names missing files, or they may be of two models.
    """
    _check_one_model(folder)
    for single in _SINGLE:
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
    values = _read_object(index)
    weights = values.get("weight_map")
    if not isinstance(weights, dict) or not weights or not all(isinstance(name, str) for name in weights.values()):
        weights = None
    if weights is None or not isinstance(values.get("metadata"), dict):
        raise CheckpointError(
            f"Expected an index of weights with `metadata` and a `weight_map` from tensors to files in {index}. It is "
            "damaged; download it again."
        )
    return sorted(set(weights.values()))


def key_names(files: list[Path]) -> list[str]:
    """Names of all tensors, in file order."""
    return [name for name, _ in _entries(files)]


def stored_shapes(files: list[Path]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors, from the files' headers."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, value in _entries(files):
        check_floating({name: value}, files[0].parent)
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
    names: set[str] = set()
    for file in files:
        with contextlib.ExitStack() as stack:
            tensors = read_tensors([str(file)], stack)
            check_once(names, tensors, file)
            names.update(tensors)
            for name in list(tensors):
                yield name, tensors.pop(name)
