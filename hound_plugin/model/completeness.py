"""Is a checkpoint complete and usable: all tensors, of the shapes that its configuration implies, without NaN?"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch

from hound_plugin.errors import CheckpointError
from hound_plugin.model.key_mapping import IGNORED

_SHOWN = 10


def expected_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a model, which may be on the meta device or sharded by ZeRO-3.

    Args:
        model: the composite, with or without its head.
    """
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items() if not IGNORED.search(name)}
    shapes |= {name: tuple(value.ds_shape) for name, value in model.named_parameters() if hasattr(value, "ds_shape")}
    if getattr(model.config, "tie_word_embeddings", False):  # that of text_config ties nothing
        shapes.pop("lm_head.weight", None)
    return shapes


def tensor_shapes(tensors: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of tensors, or of lazy slices of safetensors files, without reading them."""
    return {
        name: tuple(value.get_shape() if hasattr(value, "get_shape") else value.shape)
        for name, value in tensors.items()
        if not IGNORED.search(name)
    }


def check_once(before: Collection[str], new: Iterable[str], file: Any) -> None:
    """Check that no tensor of a file is in an earlier file too.

    Args:
        before: names of the tensors in the earlier files of the checkpoint.
        new: names of those in ``file``.
        file: for the message.

    Raises:
        CheckpointError: some are, so that it is not clear which copy is the model's.
    """
    twice = sorted(name for name in new if name in before and not IGNORED.search(name))
    if twice:
        raise CheckpointError(
            f"Expected each tensor in one file; {file} has {len(twice)} that an earlier file has too: "
            f"{', '.join(twice[:_SHOWN])}. Files of two models may be mixed: download or save the checkpoint again."
        )


def check_complete(
    expected: Mapping[str, tuple[int, ...]], actual: Mapping[str, tuple[int, ...]], name: Any, names_only: bool = False
) -> None:
    """Compare the tensors of a checkpoint with those that its configuration implies.

    Args:
        expected, actual: shapes by our names.
        name: of the checkpoint, for the message.
        names_only: for quantised checkpoints, which have other shapes and additional tensors.

    Raises:
        CheckpointError: keys are missing, unexpected, or of another shape; the first ten of each are listed.
    """
    missing = sorted(expected.keys() - actual.keys())
    unexpected = [] if names_only else sorted(actual.keys() - expected.keys() - {"lm_head.weight"})
    shaped = (
        [] if names_only else sorted(key for key in expected.keys() & actual.keys() if expected[key] != actual[key])
    )
    if missing or unexpected or shaped:
        shapes = [f"{key} {list(actual[key])} instead of {list(expected[key])}" for key in shaped[:_SHOWN]]
        problems = [
            f"{len(missing)} keys are missing ({_listed(missing)})" if missing else "",
            f"{len(unexpected)} are unexpected ({_listed(unexpected)})" if unexpected else "",
            f"{len(shaped)} have another shape ({_listed(shapes)})" if shaped else "",
        ]
        raise CheckpointError(
            f"The checkpoint {name} does not match its config.json: {', '.join(filter(None, problems))}. Are all "
            "of its files there, and is it of this architecture?"
        )


def check_floating(tensors: Mapping[str, Any], name: Any) -> None:
    """Refuse integer or boolean weights, which torch would treat as weights of another scale.

    Raises:
        CheckpointError: some weights are; the message names them and their types.
    """
    dtypes = {key: _dtype(value) for key, value in tensors.items() if not IGNORED.search(key)}
    wrong = sorted(
        f"{key} {dtype}" for key, dtype in dtypes.items() if not re.match(r"(torch\.)?(b?float|B?F)\d", dtype)
    )
    if wrong:
        raise CheckpointError(
            f"Expected weights as floating-point numbers in the checkpoint {name}; {len(wrong)} are not "
            f"({_listed(wrong)}). It is damaged, or quantised without a `quantization_config`; download it again."
        )


def _dtype(tensor: Any) -> str:
    return str(tensor.get_dtype() if hasattr(tensor, "get_dtype") else tensor.dtype)


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether a tensor has no NaN and no infinity; one pass without a copy, about 0.1 s a GB on a CPU core.

    True for tensors without values to look at: of integers, empty (as ZeRO-3 leaves them), on the meta device, or of
    quantised weights, whose packed bits may have any type.
    """
    return all(map(math.isfinite, _range(tensor) or ()))


def _range(tensor: torch.Tensor) -> tuple[float, float] | None:
    """The least and the largest value, NaN where there is one; None without values to look at."""
    if not tensor.is_floating_point() or tensor.is_meta or not tensor.numel() or hasattr(tensor, "quant_state"):
        return None
    if tensor.element_size() == 1:
        tensor = tensor.float()  # torch does not compare 8-bit numbers
    least, most = torch.aminmax(tensor.detach())
    return float(least), float(most)


# Projections that write into the residual stream may begin as zeros (LLaMA-Pro), as may LoRA's second matrix.
_NEVER_ZERO = re.compile(
    r"(?:^|\.)(?:[qkv]_proj|gate_proj|up_proj|fc1|embed_tokens|patch_embedding|position_embedding|lm_head)\.weight$"
)


def check_finite(tensors: Iterable[tuple[str, torch.Tensor]], name: Any) -> None:
    """Refuse weights with which every answer is nonsense.

    Args:
        tensors: names with tensors or parameters.
        name: of the checkpoint, for the message.

    Raises:
        CheckpointError: tensors have NaN or infinity, or are zeros throughout where no model has them; the first ten
            are listed.
    """
    bad, blank = [], []
    for key, tensor in tensors:
        values = _range(tensor)
        if values is None:
            continue
        if not all(map(math.isfinite, values)):
            bad.append(key)
        elif values == (0.0, 0.0) and _NEVER_ZERO.search(key):
            blank.append(key)
    if bad:
        raise CheckpointError(
            f"Expected finite weights in {name}, found NaN or infinity in {_listed(sorted(bad))}. The file is damaged, "
            "or a training had diverged when it was saved: download it again, or take an earlier checkpoint."
        )
    if blank:
        raise CheckpointError(
            f"Expected weights in {name}, found nothing but zeros in {_listed(sorted(blank))}. The file has a hole, as "
            "a download or a copy that was cut off leaves it: download or copy it again."
        )


def check_within_folder(files: Iterable[str | os.PathLike[str]], folder: str | os.PathLike[str]) -> None:
    """Refuse weight files outside the checkpoint's folder, which an index may name.

    Raises:
        CheckpointError: a file is outside; the message names it.
    """
    for file in files:
        relative = os.path.relpath(os.path.abspath(file), os.path.abspath(folder))
        if relative.split(os.sep)[0] == os.pardir:
            raise CheckpointError(
                f"Expected the files of the checkpoint {folder} within its folder, but its index names {relative}. It "
                "is damaged, or not what it claims to be; download it again."
            )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
