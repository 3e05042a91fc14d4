"""LoRA adapters in vLLM: only those that it applies as a whole are loaded.

vLLM adapts the linear layers of the language model's blocks. It compares no more than the last part of a layer's name,
so that a tower's ``q_proj`` passes as the language model's and is then left out; nor does it know of the model that one
was trained on, of the adapters below it, or of a system prompt and frames that belong to it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from vllm.lora.utils import get_adapter_absolute_path
from vllm.lora.worker_manager import WorkerLoRAManager

from hound_plugin.errors import CheckpointError
from hound_plugin.model.adapter_weights import same_model, tensor_names
from hound_plugin.model.adapters import adapters_below, check_base, check_whole, other_base
from hound_plugin.processing.saved_settings import saved_settings

WITH_ITS_SYSTEM = "adapter and its system prompt"
"""The name of a request whose prompts have the adapter's own system prompt."""
_APPLIED = re.compile(r"(base_model\.model\.)?model\.(language_model\.)?layers\.\d+\.(self_attn|mlp)\.")
_PARTS = ("image_tower", "video_tower", "multi_modal_projector", "mm_projector", "embed_tokens", "lm_head")


def check_adapter(
    folder: str, system: str | None, base: str | None = None, frames: Mapping[str, Any] | None = None
) -> None:
    """Refuse an adapter of which vLLM would leave something out, or that belongs to another model.

    Args:
        folder: of the adapter.
        system: the system prompt of the model that is served; None: prompts have the adapter's own.
        base: folder of the model that is served; None: it was compared already, or has no weights to compare.
        frames: ``num_frames`` and ``frame_sampling`` of the server; None: clips are shown as the adapter's were.

    Raises:
        CheckpointError: the adapter changes more than the blocks of the language model, was trained on another model,
            on top of another adapter, with another system prompt or other frames, or is damaged.
    """
    check_whole(folder)
    if base is not None:
        check_base(folder, base)
        _check_named_base(folder, base)
    below = adapters_below(folder)
    if below:
        raise CheckpointError(
            f"The adapter {folder} was trained on top of {', '.join(below)}, and vLLM applies one adapter. {_INSTEAD}"
        )
    names = tensor_names(folder)
    others = [name for name in names if not _APPLIED.match(name)]
    if others:
        raise CheckpointError(
            f"Expected an adapter of the language model's layers in {folder}: vLLM applies no other, and "
            f"{len(others)} of its {len(names)} tensors are elsewhere ({_parts(others)}). {_INSTEAD}"
        )
    saved = saved_settings(folder)
    own = saved.get("system", system)
    if system is not None and own != system:
        raise CheckpointError(
            f"The adapter {folder} was trained with the system prompt {own!r}, and the model that is served has "
            f"{system!r}, which vLLM would put before every question. {_INSTEAD}"
        )
    for name, value in (frames or {}).items():
        trained = saved["video_processor"].get(name, value)
        if trained != value:
            raise CheckpointError(
                f"The adapter {folder} was trained with `{name}: {trained}`, and the server has {value!r} "
                f"for all that it serves. Serve both with --mm-processor-kwargs '{json.dumps({name: trained})}'. {_OR}"
            )


def _check_named_base(folder: str, base: str) -> None:
    other = other_base(folder, base)
    if other is not None and not same_model(other, base):  # one may be in the original layout
        raise CheckpointError(
            f"The adapter {folder} was trained on {other}, and the model that is served is {base}, whose weights "
            f"differ. Serve {other}, or train the adapter on {base}."
        )


_INSTEAD = (
    "Merge it into the model (`llamafactory-cli export`) and use that, or `backend: model`, which applies all of it."
)
_OR = "Or merge it into the model (`llamafactory-cli export`) and serve that."


def refuse_partial_adapters() -> None:
    """Have vLLM ask :func:`check_adapter` before it loads one for a model of this package; may be called repeatedly.

    A patch: vLLM has no hook for it. To be removed when `LoRAModel.from_local_checkpoint` compares whole names, and
    models may check an adapter's folder.
    """
    load = WorkerLoRAManager._load_adapter
    if getattr(load, "checks_adapters", False):
        return

    @functools.wraps(load)
    def checked(self: Any, lora_request: Any) -> Any:
        system_of = getattr(self._adapter_manager.model, "system_of_adapters", None)
        if system_of is not None:
            model = self._adapter_manager.model
            with contextlib.suppress(FileNotFoundError):  # vLLM's own words follow
                folder = get_adapter_absolute_path(lora_request.lora_path)
                name = lora_request.lora_name
                check_adapter(folder, system_of(name), model.base_of_adapters, model.frames_of_adapters(name))
        return load(self, lora_request)

    checked.checks_adapters = True  # type: ignore[attr-defined]
    WorkerLoRAManager._load_adapter = checked


def _parts(names: Iterable[str]) -> str:
    """The parts of the model that tensors belong to, or the tensors where that is none of those known."""
    parts = {next((part for part in _PARTS if part in name.split(".")), name) for name in names}
    return ", ".join(sorted(parts)[:10])
