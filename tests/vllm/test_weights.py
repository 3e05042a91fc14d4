"""What is refused of a checkpoint's tensors on their way into vLLM, which would take it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig

from hound_plugin.errors import CheckpointError, SettingsError
from hound_plugin.model.key_mapping import to_original
from hound_plugin.vllm.weights import CheckedWeights
from tests.vllm.conftest import Demo
from tests.vllm.variants import Tensors, quantised, widened

BLOCK = "model.language_model.layers.1."


def _read(folder: Path, change: Callable[[Tensors], object]) -> None:
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    weights = CheckedWeights(config, config.text_config.vocab_size, "demo")
    names = [name for name, _ in weights.checked(tensors.items())]
    weights.check_complete()
    assert names == list(tensors)


def _integers(name: str) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.update({name: tensors[name].to(torch.int8)})


def _renamed(tensors: Tensors) -> None:
    names = to_original(list(tensors))
    for name, other in names.items():
        tensors[other] = tensors.pop(name)


def test_whole_checkpoints_pass(demo: Demo) -> None:
    _read(demo.model, dict)
    _read(demo.model, _renamed)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda tensors: tensors.pop(f"{BLOCK}self_attn.k_proj.weight"), r"1 keys are missing \(.*k_proj"),
        (lambda tensors: tensors.pop("model.multi_modal_projector.0.weight"), "1 keys are missing .*projector"),
        (lambda tensors: tensors.pop("model.video_tower.embeddings.class_embedding"), "1 keys are missing .*video"),
        (_integers(f"{BLOCK}mlp.up_proj.weight"), "Expected weights as floating-point numbers"),
        (_integers("lm_head.weight"), "Expected weights as floating-point numbers"),
        (lambda tensors: tensors.update({f"{BLOCK}mlp.up_proj.bias": torch.zeros(3)}), "1 are unexpected .*up_proj"),
        (lambda tensors: tensors.update({f"{BLOCK}mlp.up_proj.weight": torch.zeros(3, 3)}), "1 have another shape"),
    ],
)  # fmt: skip
def test_what_is_missing_or_of_another_kind(change: Callable[[Tensors], object], reason: str, demo: Demo) -> None:
    with pytest.raises(CheckpointError, match=reason):
        _read(demo.model, change)


@pytest.fixture(scope="module")
def packed(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints by the method that quantised them."""
    folder = tmp_path_factory.mktemp("packed")
    wide = widened(demo.model, folder / "wide")
    return {method: quantised(wide, folder / method, method) for method in ("int8", "int4", "gptq")}


@pytest.mark.parametrize(
    ("method", "change", "reason"),
    [
        ("int8", lambda tensors: tensors.pop(f"{BLOCK}self_attn.q_proj.weight"), "1 keys are missing .*q_proj.weight"),
        ("int8", lambda tensors: tensors.pop(f"{BLOCK}mlp.up_proj.weight_scale"), "missing .*up_proj.weight_scale"),
        ("int4", lambda tensors: tensors.pop(f"{BLOCK}self_attn.v_proj.weight_packed"), "missing .*v_proj.weight"),
        ("gptq", lambda tensors: tensors.pop(f"{BLOCK}self_attn.o_proj.scales"), "missing .*o_proj.scales"),
        ("int8", lambda tensors: tensors.pop("model.image_tower.embeddings.class_embedding"), "missing .*image_tower"),
        ("int4", _integers("model.multi_modal_projector.0.weight"), "towers, projector, embeddings and head of demo"),
        ("gptq", _integers("lm_head.weight"), "quantised layers in the blocks of the language model alone"),
        ("int8", lambda tensors: tensors.update({"model.video_tower.pre_layrnorm.weight_scale": torch.ones(1)}),
         "Found model.video_tower.pre_layrnorm.weight_scale"),
    ],
)  # fmt: skip
def test_quantised_checkpoints(
    method: str, change: Callable[[Tensors], object], reason: str, packed: dict[str, Path]
) -> None:
    _read(packed[method], dict)
    with pytest.raises(CheckpointError, match=reason):
        _read(packed[method], change)


def test_packed_weights_at_32_bits_are_refused_before_anything_starts(packed: dict[str, Path]) -> None:
    from hound_plugin.vllm.engine import VllmModel

    with pytest.raises(SettingsError, match="dtype: expected bfloat16 or float16, got float32"):
        VllmModel(str(packed["int4"]), "float32")


@pytest.mark.skipif(torch.cpu._is_amx_tile_supported(), reason="this processor has AMX")
def test_eight_bit_floats_without_the_processor_for_them(demo: Demo) -> None:
    from hound_plugin.vllm.engine import VllmModel

    with pytest.raises(
        SettingsError, match="got fp8_per_tensor, for which vLLM's CPU build needs a processor with AMX"
    ):
        VllmModel(str(demo.model), "bfloat16", engine={"quantization": "fp8_per_tensor"})
