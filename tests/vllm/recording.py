"""What our own path answers, recorded where the host is, for a model whose heads have 32 channels.

The recordings of the original are of heads with 16, for which vLLM's CPU build has no attention. These are of the
demo's untrained model (the same bytes everywhere) on the original's clips, frames and images. To make them again, in
the environment of `make test`:

    python -m tests.vllm.recording
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hound_plugin.processing.prompt import medium_of
from tests.goldens import ROOT

FOLDER = Path(__file__).parent / "recordings"
ANSWERS, FEATURES = FOLDER / "answers.json", FOLDER / "features.npz"
ADAPTER = FOLDER / "adapter"
MEDIA = (
    "media/clip_short.mp4", "media/clip_portrait.mp4", "media/clip_long.mp4", "frames/clip_short",
    "frames/clip_portrait", "frames/few3", "media/img_tall.png", "media/img_wide.jpg", None,
)  # fmt: skip
QUESTIONS = (
    "What moves?",
    "Which way does it move?",
    "What colour comes first?",
    "How many shapes are there?",
    "Describe it in detail.",
    "Is it red, then blue?\nSay why.",
)
GIVEN = "The red shape moves, then it stops."
TOKENS = 24
STEP = 4
"""Every fourth feature of every fourth visual token is kept."""


def shown(medium: str | None) -> str | None:
    """The path of a medium."""
    return None if medium is None else str(ROOT / medium)


def asked() -> list[tuple[str, str | None]]:
    """Every question about every medium, which is one of ``MEDIA``."""
    return [(question, medium) for medium in MEDIA for question in QUESTIONS]


def greedy_tokens(hound: Any, question: str, clip: Any, most: int) -> tuple[list[int], list[int]]:
    """The prompt's tokens, with every visual one, and those of the greedy answer, by our own path."""
    batch = hound.batch([(question, "", clip)], "left")
    batch.pop("labels")
    end = hound.processor.tokenizer.eos_token_id
    with torch.inference_mode():
        made = hound.model.generate(**batch, do_sample=False, max_new_tokens=most, eos_token_id=end, pad_token_id=0)
    prompt = batch["input_ids"][0].tolist()
    return prompt, made[0, len(prompt) :].tolist()


def runs(ids: Sequence[int]) -> list[list[int]]:
    """Tokens as ``[id, how often in a row]``: visual ones are hundreds of one id."""
    short: list[list[int]] = []
    for token in ids:
        if short and short[-1][0] == token:
            short[-1][1] += 1
        else:
            short.append([token, 1])
    return short


def features(hound: Any, medium: str) -> torch.Tensor:
    """Projected features ``[tokens, hidden]`` of a medium, by our own path."""
    path, processor = shown(medium), hound.processor
    with torch.inference_mode():
        if medium_of(path) == "video":
            found: torch.Tensor = hound.model.get_video_features(processor.read_video(path)[None])[0]
        else:
            found = hound.model.get_image_features(processor.read_image(path)[None])[0]
    return found


def kept(projected: torch.Tensor) -> np.ndarray:
    """The part of features that is recorded."""
    return projected[::STEP, ::STEP].numpy()


def weights_hash(model: Path) -> str:
    """A hash of the model's weights."""
    return hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()


def record() -> None:
    """Write the recordings."""
    import hound_plugin
    from hound_plugin.demo.model import write_model
    from hound_plugin.demo.tokenizer import write_tokenizer

    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write_model(write_tokenizer(folder / "tokenizer"), folder / "model")
        hound = hound_plugin.load(str(folder / "model"), "cpu", "float32")
        rows = []
        for question, medium in asked():
            prompt, answer = greedy_tokens(hound, question, shown(medium), TOKENS)
            rows.append({"question": question, "media": medium, "prompt": runs(prompt), "answer": answer})
        log_probs = hound.log_probs([(question, GIVEN, shown(medium)) for question, medium in asked()])
        for row, value in zip(rows, log_probs.tolist(), strict=True):
            row["log_prob"] = round(value, 5)
        made_by = {name: version(name) for name in ("torch", "transformers", "av")}
        head = {
            "made_by": {"python": platform.python_version(), **made_by},
            "weights": weights_hash(folder / "model"),
            "given": GIVEN,
        }
    FOLDER.mkdir(exist_ok=True)
    lines = ",\n".join(json.dumps(row) for row in rows)
    ANSWERS.write_text(json.dumps(head, indent=1)[:-2] + ',\n "rows": [\n' + lines + "\n]}\n", encoding="utf-8")
    record_adapter()
    np.savez_compressed(FEATURES, **{medium: kept(features(hound, medium)) for medium in MEDIA if medium is not None})


def record_adapter() -> None:
    """Train an adapter of the untrained demo by the recipe for DPO with LoRA, and write it with its answers."""
    import hound_plugin
    from hound_plugin.demo.build import build_demo
    from hound_plugin.demo.model import write_model

    recipe = ROOT.parents[1] / "examples" / "yaml" / "hound_dpo_lora.yaml"
    with tempfile.TemporaryDirectory() as made:
        demo = build_demo(Path(made) / "demo", train_clips=8, held_out_clips=4, progress=False, write_model=write_model)
        trained = Path(made) / "adapter"
        settings = {
            "model_name_or_path": demo.model, "dataset_dir": demo.folder / "data", "media_dir": demo.folder / "clips",
            "dataset": "demo_dpo", "output_dir": trained, "max_steps": 8, "bf16": "false", "lora_rank": 2,
            "lora_alpha": 4, "gradient_accumulation_steps": 1, "per_device_train_batch_size": 4, "learning_rate": 0.02,
            "cutoff_len": 1024, "preprocessing_num_workers": 1, "dataloader_num_workers": 0, "plot_loss": "false",
        }  # fmt: skip
        command = ["llamafactory-cli", "train", str(recipe), *(f"{name}={value}" for name, value in settings.items())]
        subprocess.run(command, check=True)
        ADAPTER.mkdir(parents=True, exist_ok=True)
        for name in ("adapter_config.json", "adapter_model.safetensors", "processor_config.json"):
            shutil.copy(trained / name, ADAPTER)
        hound = hound_plugin.load(str(trained), "cpu", "float32")
        answers = [greedy_tokens(hound, question, shown(medium), TOKENS)[1] for question, medium in asked()]
    config = json.loads((ADAPTER / "adapter_config.json").read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = None  # a folder that is gone
    (ADAPTER / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    (ADAPTER / "answers.json").write_text(json.dumps(answers) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record()
