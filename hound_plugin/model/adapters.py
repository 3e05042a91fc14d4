"""Folders of LoRA adapters: the model that one was trained on, and the adapters that had been merged into it before."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from hound_plugin.errors import CheckpointError
from hound_plugin.model.weights_identity import weights_of

CONFIG = "adapter_config.json"
NEXT_TO_IT = "non_lora_trainables.bin"
"""What LLaVA's own trainings put next to an adapter: the weights that they trained in full, such as the projector."""
RUN = "hound_run.json"
"""In checkpoints of the host's trainings: which run they belong to; in an adapter's folder, the adapters below it."""
BELOW = "adapters_below"
BASE_WEIGHTS = "base_weights"
"""In the same file: :func:`~hound_plugin.model.weights_identity.weights_of` the model below."""


def is_adapter(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder has an adapter and no model."""
    return os.path.isfile(os.path.join(folder, CONFIG)) and not os.path.isfile(os.path.join(folder, "config.json"))


def check_not_both(folder: str | os.PathLike[str]) -> None:
    """Refuse a folder with a model and an adapter, of which libraries take either, or both.

    Raises:
        CheckpointError: it has both.
    """
    both = (CONFIG, "config.json")
    if all(os.path.isfile(os.path.join(folder, name)) for name in both):
        check_whole(folder)
        raise CheckpointError(
            f"Expected a model or an adapter in {os.fspath(folder)}, found both: {' and '.join(both)}. transformers "
            f"would load what the adapter was trained on, under the configuration of another model. Move {CONFIG} and "
            "adapter_model.* into a folder of their own, or remove the one that you do not need."
        )


def check_no_adapter(folder: str | os.PathLike[str]) -> None:
    """Refuse to save a model next to an adapter: neither could be told from the other.

    Raises:
        CheckpointError: there is one in the folder.
    """
    if os.path.isfile(os.path.join(folder, CONFIG)):
        raise CheckpointError(
            f"Expected a folder without an adapter to save a model in; {os.fspath(folder)} has {CONFIG}. Choose "
            f"another folder, or remove {CONFIG} and adapter_model.* there."
        )


def base_of(adapter: str | os.PathLike[str]) -> str | None:
    """The folder or hub id of the model that an adapter was trained on, or None if its configuration has none."""
    base = _settings(adapter).get("base_model_name_or_path")
    return base if isinstance(base, str) else None


def _settings(adapter: str | os.PathLike[str]) -> dict[str, Any]:
    """The configuration of an adapter; empty if it cannot be read."""
    return _read(Path(adapter) / CONFIG)


def adapters_below(adapter: str | os.PathLike[str]) -> list[str]:
    """Folders of the adapters that were merged into the model before an adapter was trained, in their order."""
    below = _note(adapter).get(BELOW)
    return [name for name in below if isinstance(name, str)] if isinstance(below, list) else []


def _note(adapter: str | os.PathLike[str]) -> dict[str, Any]:
    """What a training of the host noted about an adapter."""
    return _read(Path(adapter) / RUN)


def _read(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def other_base(adapter: str | os.PathLike[str], name: str) -> str | None:
    """The folder of the model that an adapter was trained on, if its weights differ from those in ``name``.

    None if they are the same, or if that is unknown: the folder is not there, or is not named.
    """
    base = base_of(adapter)
    if base is None or not os.path.isdir(base) or same_weights(base, name):
        return None
    return base


def same_weights(first: str, second: str) -> bool:
    """Whether two folders have the same weight files, by name and identity (size and samples)."""
    if not os.path.isdir(first) or not os.path.isdir(second):
        return False
    return os.path.samefile(first, second) or weights_of(first) == weights_of(second)


def check_base(adapter: str | os.PathLike[str], base: str) -> None:
    """Refuse a model whose weights are others than when an adapter was trained on it: of a newer training, say.

    Raises:
        CheckpointError: they are.
    """
    before = _note(adapter).get(BASE_WEIGHTS)
    every_tensor = isinstance(before, dict) and any(len(identity) > 2 for identity in before.values())
    if before is not None and os.path.isdir(base) and before != weights_of(base, every_tensor):
        raise CheckpointError(
            f"Expected the model that the adapter {os.fspath(adapter)} was trained on; the weights in {base} are "
            "others now. Bring the earlier ones back, or train the adapter again. (If they are the same in other "
            f"files, remove `{BASE_WEIGHTS}` from {RUN} in the adapter's folder.)"
        )


def check_whole(adapter: str | os.PathLike[str]) -> None:
    """Refuse an adapter that is one part of what was trained.

    Raises:
        CheckpointError: there are weights next to it, which would be left out; or it belongs to a remainder of the
            model's weights that was not saved and that comes out differently each time.
    """
    start = _settings(adapter).get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith("pissa_niter_"):
        raise CheckpointError(
            f"Expected an adapter that a model can be given again in {os.fspath(adapter)}; it was trained by PiSSA "
            f"with an approximate decomposition (`init_lora_weights: {start}`), whose remainder of the model's weights "
            "is random and was not saved. Use the folder `pissa_converted` in it, which the host writes with "
            "`pissa_convert: true`; or train again with that, or with `pissa_iter: -1`."
        )
    if os.path.exists(os.path.join(adapter, NEXT_TO_IT)):
        raise CheckpointError(
            f"Expected all that was trained in the adapter {os.fspath(adapter)}, found {NEXT_TO_IT} next to it: "
            "LLaVA's own trainings put there what they trained in full, such as the projector. Merge both into the "
            "model with LLaVA's `merge_lora_weights.py` and use that."
        )


def chain_of(adapter: str) -> tuple[str, list[str]]:
    """The model that an adapter belongs to, and all adapters to merge into it, in their order.

    Raises:
        CheckpointError: the model is not named or has changed, an adapter below is missing or has a model next to it,
            or one is not whole.
    """
    base = base_of(adapter)
    if base is None:
        raise CheckpointError(
            f"Expected `base_model_name_or_path` in {os.path.join(adapter, CONFIG)}, the model that the adapter was "
            "trained on. The file is damaged, or was written by something else; copy the folder again."
        )
    below = adapters_below(adapter)
    for folder in below:
        check_not_both(folder)
        if not is_adapter(folder):
            raise CheckpointError(
                f"The adapter {adapter} was trained on a model into which the adapter {folder} had been merged, which "
                "is not there. Bring that folder back, or use the model that was exported with both."
            )
    for folder in (*below, adapter):
        check_whole(folder)
        check_base(folder, base)
    return base, [*below, adapter]
