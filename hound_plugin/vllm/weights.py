"""The tensors of a checkpoint on their way into vLLM, checked as everywhere else in this package.

vLLM notices neither a missing part of a fused layer nor, in quantised checkpoints, anything that is missing; and it
copies integers into floating-point weights.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from hound_plugin.errors import CheckpointError
from hound_plugin.model.completeness import check_complete, check_floating, expected_shapes
from hound_plugin.model.configuration import LlavaHoundConfig
from hound_plugin.model.key_mapping import IGNORED, is_original, our_name
from hound_plugin.model.modeling import LlavaHoundForConditionalGeneration

TOWERS = ("image_tower", "video_tower")
_BLOCKS = "model.language_model.layers."
_PACKED = ("qweight", "weight_packed")
"""What quantised weights are called where it is not ``weight``."""


class CheckedWeights:
    """What a checkpoint should have, and what was read of it.

    Args:
        config: of the model, with the vocabulary that vLLM has.
        vocab_size: the checkpoint's.
        name: of the checkpoint, for messages.
    """

    def __init__(self, config: LlavaHoundConfig, vocab_size: int, name: str) -> None:
        own: Any = copy.deepcopy(config)
        own.text_config.vocab_size = vocab_size
        self._is_quantised = getattr(config, "quantization_config", None) is not None
        with torch.device("meta"):
            self._expected = expected_shapes(LlavaHoundForConditionalGeneration._from_config(own))
        self._name = name
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._names: list[str] = []
        self._packed: set[str] = set()

    @property
    def is_original(self) -> bool:
        """Whether what was read is in the original layout."""
        return is_original(self._names)

    def checked(self, weights: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
        """The tensors, each checked before it is handed on.

        Raises:
            CheckpointError: one is not of this model, has another shape, or is quantised where vLLM does not expect it.
        """
        for name, tensor in weights:
            if IGNORED.search(name):
                continue
            ours, shape = our_name(name), tuple(tensor.shape)
            if not (self._is_quantised and ours.startswith(_BLOCKS)):
                self._check(ours, tensor)
            elif tensor.itemsize == 1 or not tensor.is_floating_point():
                self._packed.add(ours.rpartition(".")[0])
            self._names.append(name)
            self._shapes[ours] = shape
            yield name, tensor

    def _check(self, name: str, tensor: torch.Tensor) -> None:
        is_packed = name not in self._expected or not tensor.is_floating_point()
        if self._is_quantised and is_packed:
            raise CheckpointError(
                f"Expected towers, projector, embeddings and head of {self._name} as floating-point numbers: vLLM runs "
                f"quantised layers in the blocks of the language model alone. Found {name} {list(tensor.shape)} of "
                f"{tensor.dtype}. Quantise the model again, and leave these parts out."
            )
        check_floating({name: tensor}, self._name)
        expected = {name: self._expected[name]} if name in self._expected else {}
        check_complete(expected, {name: tuple(tensor.shape)}, self._name)

    def check_complete(self) -> None:
        """Once all were read; the towers of an original checkpoint may be elsewhere.

        Raises:
            CheckpointError: something is missing.
        """
        present = {self._plain(name) for name in self._shapes}
        elsewhere = tuple(
            f"model.{tower}." for tower in TOWERS if not any(name.startswith(f"model.{tower}.") for name in present)
        )
        expected = {
            name: shape
            for name, shape in self._expected.items()
            if not (self.is_original and name.startswith(elsewhere))
        }
        check_complete(expected, dict.fromkeys(present, ()), self._name, names_only=True)
        if self._is_quantised:
            self._check_scales()

    def _plain(self, name: str) -> str:
        """The name of a packed weight as that of the weight."""
        module, _, last = name.rpartition(".")
        return f"{module}.weight" if self._is_quantised and last in _PACKED else name

    def _check_scales(self) -> None:
        """Every quantised layer has what the others have besides its weight: scales, zeros, shapes."""
        quantised: dict[str, set[str]] = {module: set() for module in self._packed}
        for name in self._shapes:
            module, _, last = name.rpartition(".")
            if module in quantised:
                quantised[module].add(last)
        every = set().union(*quantised.values()) if quantised else set()
        check_complete(
            {f"{module}.{last}": () for module in quantised for last in every},
            {f"{module}.{last}": () for module, names in quantised.items() for last in names},
            self._name,
            names_only=True,
        )
