"""Checkpoints made from another one: feed-forward layers of an even width, and quantised language models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

WIDTH = 352
"""Of the feed-forward layers: the demo's 341 can neither be halved nor packed 8 to a word."""
GROUP = 32
"""Inputs that share a scale at 4 bits."""
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
Tensors = dict[str, torch.Tensor]


def rewritten(model: Path, folder: Path, change: Callable[[Tensors, dict[str, Any]], Tensors]) -> Path:
    """A copy of a checkpoint with other tensors; ``change`` gets those and the configuration, which it may edit."""
    folder.mkdir(parents=True)
    for file in model.iterdir():
        if file.suffix in (".json", ".jinja"):
            shutil.copy(file, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tensors = change(load_file(model / "model.safetensors"), config)
    whole = {name: value.contiguous() for name, value in tensors.items()}
    save_file(whole, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def widened(model: Path, folder: Path) -> Path:
    """The same function with feed-forward layers of ``WIDTH``: the channels that are added are zeros."""

    def widen(tensors: Tensors, config: dict[str, Any]) -> Tensors:
        missing = WIDTH - config["text_config"]["intermediate_size"]
        config["text_config"]["intermediate_size"] = WIDTH
        for name, value in tensors.items():
            if ".language_model." in name and ".mlp." in name:
                last = name.endswith("down_proj.weight")
                tensors[name] = nn.functional.pad(value, (0, missing) if last else (0, 0, 0, missing))
        return tensors

    return rewritten(model, folder, widen)


def quantised(model: Path, folder: Path, method: str) -> Path:
    """The linear layers of the language model's blocks by one of ``METHODS``; everything else as it is."""
    packed, settings = METHODS[method]

    def pack(tensors: Tensors, config: dict[str, Any]) -> Tensors:
        config["quantization_config"] = settings
        made: Tensors = {}
        for name, value in tensors.items():
            made |= packed(name.removesuffix("weight"), value) if _is_packed(name) else {name: value}
        return made

    return rewritten(model, folder, pack)


def rounded(model: Path, folder: Path, method: str) -> Path:
    """The weights of :func:`quantised` as floating-point numbers again, which our own path runs."""

    def round_(tensors: Tensors, config: dict[str, Any]) -> Tensors:
        steps = _steps8 if method == "int8" else _steps4
        for name, value in tensors.items():
            if _is_packed(name):
                whole, scale = steps(value)
                tensors[name] = (whole * scale).reshape(value.shape)
        return tensors

    return rewritten(model, folder, round_)


def _is_packed(name: str) -> bool:
    return ".language_model.layers." in name and name.endswith("_proj.weight")


def _steps8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Whole numbers ``[out, in]`` in -127..127 and scales ``[out, 1]``."""
    scale = weight.abs().amax(1, keepdim=True).clamp(min=1e-8) / 127
    return (weight / scale).round(), scale


def _steps4(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Whole numbers ``[out, groups, GROUP]`` in -8..7 and scales ``[out, groups, 1]``."""
    grouped = weight.reshape(len(weight), -1, GROUP)
    scale = grouped.abs().amax(2, keepdim=True).clamp(min=1e-8) / 7
    return (grouped / scale).round(), scale


def _unsigned(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers in 0..15 ``[in, out]``, where 8 is zero, and scales ``[groups, out]``."""
    whole, scale = _steps4(weight)
    return (whole + 8).reshape(weight.shape).to(torch.int64).t(), scale.squeeze(2).t()


def _words(numbers: torch.Tensor) -> torch.Tensor:
    """The last axis packed 8 to a word, the first one lowest."""
    eights = numbers.reshape(*numbers.shape[:-1], -1, 8)
    return (eights << torch.arange(0, 32, 4)).sum(-1).to(torch.uint32).view(torch.int32)


def _int8(name: str, weight: torch.Tensor) -> Tensors:
    whole, scale = _steps8(weight)
    return {f"{name}weight": whole.to(torch.int8), f"{name}weight_scale": scale}


def _int4(name: str, weight: torch.Tensor) -> Tensors:
    numbers, scale = _unsigned(weight)
    shape = torch.tensor(weight.shape)
    return {
        f"{name}weight_packed": _words(numbers.t()), f"{name}weight_scale": scale.t(), f"{name}weight_shape": shape
    }  # fmt: skip


def _gptq(name: str, weight: torch.Tensor) -> Tensors:
    numbers, scale = _unsigned(weight)
    return {
        f"{name}qweight": _words(numbers.t()).t(),
        f"{name}qzeros": _words(torch.full(scale.shape, 7)),  # one less than the zero, in this format
        f"{name}scales": scale,
        f"{name}g_idx": torch.arange(weight.shape[1], dtype=torch.int32) // GROUP,
    }


def _awq(name: str, weight: torch.Tensor) -> Tensors:
    numbers, scale = _unsigned(weight)

    def words(rows: torch.Tensor) -> torch.Tensor:
        return _words(rows.reshape(len(rows), -1, 8)[..., _AWQ_ORDER].flatten(1))

    zeros = torch.full(scale.shape, 8)
    return {f"{name}qweight": words(numbers), f"{name}qzeros": words(zeros), f"{name}scales": scale}


def _compressed(format_: str, weights: dict[str, Any], inputs: dict[str, Any] | None) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": {"type": "int", "symmetric": True, "dynamic": False, **weights}}
    if inputs is not None:
        group["input_activations"] = {"type": "int", "symmetric": True, **inputs}
    return {
        "quant_method": "compressed-tensors", "format": format_, "quantization_status": "compressed",
        "ignore": ["lm_head"], "config_groups": {"group_0": group},
    }  # fmt: skip


METHODS: dict[str, tuple[Callable[[str, torch.Tensor], Tensors], dict[str, Any]]] = {
    "int8": (
        _int8,
        _compressed(
            "int-quantized",
            {"num_bits": 8, "strategy": "channel"},
            {"num_bits": 8, "strategy": "token", "dynamic": True},
        ),
    ),
    "int4": (_int4, _compressed("pack-quantized", {"num_bits": 4, "strategy": "group", "group_size": GROUP}, None)),
    "gptq": (_gptq, {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False, "sym": True}),
    "awq": (_awq, {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}),
}
"""How a layer is packed, and what ``config.json`` says of it."""
