"""Other checkpoints of the same model in vLLM's engine: the original layout, and a LoRA adapter."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from hound_plugin.model.checkpoint_conversion import convert
from tests.vllm.conftest import Demo

ANSWER = 12  # tokens

ANSWER_ALL = """
import json, sys
from hound_plugin.vllm.engine import VllmModel
model, asked = sys.argv[1], json.loads(sys.argv[2])
engine = VllmModel(model, "float32", engine={"enforce_eager": True})
answers = engine.answer(asked, [[0]] * len(asked), temperature=0.0, max_new_tokens=%d)
print(json.dumps([own[0].text for own in answers]))
"""


def _answers(model: Path, asked: list[tuple[str, str]]) -> list[str]:
    """Greedy answers by an engine in a process of its own."""
    command = [sys.executable, "-c", ANSWER_ALL % ANSWER, str(model), json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    answers: list[str] = json.loads(done.stdout.splitlines()[-1])
    return answers


def _ours(model: Any, asked: list[tuple[str, str]]) -> list[str]:
    questions, clips = zip(*asked, strict=True)
    answers: list[str] = model.chat_many(list(questions), list(clips), do_sample=False, max_new_tokens=ANSWER)
    return answers


def test_the_original_layout_with_its_towers_elsewhere(demo: Demo, ours: Any, tmp_path: Path) -> None:
    folder = tmp_path / "original"
    convert(str(demo.model), folder, to="original", tokenizer=str(demo.folder / "tokenizer"), progress=False)
    (weights,) = folder.glob("*.safetensors")
    tensors = load_file(weights)
    for tower in ("image_tower", "video_tower"):
        prefix = f"model.{tower}.{tower}."
        own = {name: tensors.pop(name) for name in list(tensors) if name.startswith(prefix)}
        assert own
        save_file(
            {f"vision_model.{name.removeprefix(prefix)}": value for name, value in own.items()},
            folder / tower / "model.safetensors",
        )
    save_file(tensors, weights, metadata={"format": "pt"})
    assert json.loads((folder / "config.json").read_text())["model_type"] == "llava_llama"
    asked = demo.asked[:24]
    assert _answers(folder, asked) == _ours(ours, asked)


def test_an_adapter_on_the_language_model(demo: Demo, ours: Any, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    import hound_plugin

    base = hound_plugin.load(str(demo.model), "cpu", "float32")
    targets = r"model\.language_model\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    torch.manual_seed(0)
    adapted = get_peft_model(base.model, LoraConfig(r=4, lora_alpha=8, target_modules=targets))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    adapted.peft_config["default"].base_model_name_or_path = str(demo.model)
    adapted.save_pretrained(tmp_path / "adapter")
    asked = demo.asked[:24]
    expected = _ours(hound_plugin.load(str(tmp_path / "adapter"), "cpu", "float32"), asked)
    assert expected != _ours(ours, asked)
    assert _answers(tmp_path / "adapter", asked) == expected
