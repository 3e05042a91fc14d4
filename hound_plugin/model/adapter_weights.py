"""The tensors in an adapter's file: do all of them reach the model, and does the model get all that it expects?

PEFT loads what fits by name. It leaves out the other tensors silently, and the layers that got none stay as they were.
"""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from hound_plugin.errors import CheckpointError, damage_named
from hound_plugin.model.checkpoint import read_tensors
from hound_plugin.model.checkpoint_files import weight_files
from hound_plugin.model.key_mapping import to_ours

_FILES = ("adapter_model.safetensors", "adapter_model.bin", "adapter_model.pt")
_PREFIX = "base_model.model."
_OF_TUNERS = re.compile(r"(lora|oft|hada|lokr|ia3|vera)_|token_adapter\.|base_layer\.|modules_to_save\.")
_MISSING = "Found missing adapter keys while loading the checkpoint"
"""How PEFT begins its warning."""
_SHOWN = 5


def tensor_names(folder: str | os.PathLike[str]) -> list[str]:
    """Names of an adapter's tensors, of the file that PEFT and vLLM read.

    Raises:
        FileNotFoundError: there is none.
        CheckpointError: it is damaged.
    """
    file = next((path for path in (Path(folder) / name for name in _FILES) if path.is_file()), None)
    if file is None:
        raise FileNotFoundError(folder)
    with contextlib.ExitStack() as stack, damage_named(folder, "adapter"):
        return sorted(read_tensors([str(file)], stack))


def check_fits(adapter: str | os.PathLike[str], model: Any) -> None:
    """Refuse an adapter with tensors for parts that the model does not have: they would be left out.

    Args:
        adapter: a folder; one without a file of weights passes, as does a hub id.
        model: the network, before the adapter is put into it.

    Raises:
        CheckpointError: some tensors have no place; the first ones are named.
    """
    try:
        names = tensor_names(adapter)
    except FileNotFoundError:
        return
    places = {name for name, _ in model.named_modules()} | set(model.state_dict())
    lost = [name for name in names if not _has_place(name.removeprefix(_PREFIX), places)]
    if lost:
        raise CheckpointError(
            f"Expected an adapter of this model in {os.fspath(adapter)}; {len(lost)} of its {len(names)} tensors are "
            f"for parts that the model does not have ({_listed(lost)}). It was trained on another model, or by a "
            "program that names the parts in another way. Use the model that it was trained on, or rename the tensors."
        )


def _has_place(name: str, places: set[str]) -> bool:
    """Whether a tensor is one of the model's, or belongs to a module of it."""
    if name in places:
        return True
    parts = name.split(".")
    deepest = next((number for number in range(len(parts), 0, -1) if ".".join(parts[:number]) in places), 0)
    return deepest > 0 and _OF_TUNERS.match(".".join(parts[deepest:])) is not None


@contextlib.contextmanager
def applied_whole(adapters: Iterable[str | os.PathLike[str]]) -> Iterator[None]:
    """For a block in which PEFT loads adapters: a layer that an adapter is for, and that it has no weights for.

    Raises:
        CheckpointError: there is one; PEFT would leave that layer as it was.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=_MISSING)
        try:
            yield
        except UserWarning as warning:
            if not str(warning).startswith(_MISSING):
                raise
            missing, named = re.findall(r"'([^']+)'", str(warning)), ", ".join(str(adapter) for adapter in adapters)
            raise CheckpointError(
                f"Expected weights for every layer that the adapter {named} is for; "
                f"{len(missing)} tensors are missing ({_listed(missing)}). It is incomplete, or its tensors have other "
                "names: copy or download it again."
            ) from None


def same_model(first: str | os.PathLike[str], second: str | os.PathLike[str]) -> bool:
    """Whether two folders have the same model, in whatever layout and files: by the first row of each tensor.

    Towers count if both are in our layout: a checkpoint in the original one may have none, or rounded copies.

    Raises:
        CheckpointError: a checkpoint is damaged.
    """
    with contextlib.ExitStack() as stack:
        (one, one_is_ours), (two, two_is_ours) = (_tensors(folder, stack) for folder in (first, second))
        names = {name for name in {*one, *two} if (one_is_ours and two_is_ours) or "_tower." not in name}
        return names <= one.keys() & two.keys() and all(_begin_alike(one[name][:1], two[name][:1]) for name in names)


def _begin_alike(one: torch.Tensor, two: torch.Tensor) -> bool:
    return one.dtype == two.dtype and torch.equal(one, two)


def _tensors(folder: str | os.PathLike[str], stack: contextlib.ExitStack) -> tuple[dict[str, Any], bool]:
    """Tensors by our names, lazily read, and whether they are stored in our layout."""
    stored = read_tensors([str(file) for file in weight_files(Path(folder))], stack)
    is_ours = any(name.startswith("model.language_model.") for name in stored)
    names = {name: name for name in stored} if is_ours else to_ours(list(stored))
    return {ours: stored[name] for name, ours in names.items()}, is_ours


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
