"""What transformers' VideoLlava makes of the same weights, beside this package.

The stock classes have no temporal attention in the video tower and keep the CLS token of every frame, so that
released LLaVA-Hound and Video-LLaVA weights give another model there. This script loads one checkpoint into both and
prints the difference, for a sceptic.

    python benchmarks/compare_video_llava.py [CHECKPOINT] [CLIP]

CHECKPOINT is of the original layout (default: the recorded one of the tests); CLIP a file or a folder of frames.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    VideoLlavaConfig,
    VideoLlavaForConditionalGeneration,
)

import hound_plugin  # noqa: F401  (registers the architecture)
from hound_plugin.model.modeling import LlavaHoundForConditionalGeneration

GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "golden"


def stock_model(ours: LlavaHoundForConditionalGeneration) -> tuple[VideoLlavaForConditionalGeneration, list[str]]:
    """Our weights in transformers' classes, as its conversion script places them; and what found no place."""
    tower = ours.config.video_tower_config
    vision = {
        "model_type": "clip_vision_model",
        **{key: getattr(tower, key) for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "hidden_act")},
        **{key: getattr(tower, key) for key in ("num_attention_heads", "image_size", "patch_size", "layer_norm_eps")},
    }
    config = VideoLlavaConfig(
        text_config=ours.config.text_config.to_dict(),
        vision_config=vision,
        image_token_index=ours.config.image_token_id,
        video_token_index=ours.config.video_token_id,
    )
    model = VideoLlavaForConditionalGeneration(config).eval()
    places = {"0": "linear_1", "2": "linear_2"}
    state = model.state_dict()
    vision_infix = "vision_model." if any(".vision_model." in name for name in state) else ""
    lost = []
    for name, tensor in ours.state_dict().items():
        parts = name.split(".")
        if "multi_modal_projector" in name:
            name = ".".join(["model.multi_modal_projector", places[parts[-2]], parts[-1]])
        elif "_tower." in name:
            name = ".".join(["model", parts[1], vision_infix + ".".join(parts[2:])])
        if name in state and state[name].shape == tensor.shape:
            state[name] = tensor
        else:
            lost.append(name)
    model.load_state_dict(state)
    return model, lost


@torch.no_grad()
def main() -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    checkpoint = sys.argv[1] if len(sys.argv) > 1 else str(GOLDEN / "ckpt" / "llava-hound-sft-tiny")
    clip = sys.argv[2] if len(sys.argv) > 2 else str(GOLDEN / "frames" / "clip_long")
    processor = AutoProcessor.from_pretrained(checkpoint)
    ours = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32).eval()
    stock, lost = stock_model(ours)
    pixels = processor.read_video(clip)[None]
    here = ours.get_video_features(pixels)[0]
    there = stock.model.get_video_features(pixel_values_videos=pixels).pooler_output.flatten(0, -2)
    frames = pixels.shape[1]
    patches = there.unflatten(0, (frames, -1))[:, 1:].flatten(0, 1)  # the fairest comparison: its CLS tokens left out
    error = (patches - here).norm(dim=-1) / here.norm(dim=-1)
    temporal = sum("temporal" in name for name in lost)
    rows = [
        ("visual tokens of one clip", str(len(here)), str(len(there))),
        ("parameters without a place (temporal)", "0", f"{len(lost)} ({temporal})"),
        ("feature error, relative, mean / max", "0", f"{error.mean():.2f} / {error.max():.2f}"),
        ("changes when the frames are reversed", _reversal(ours, pixels), _reversal(stock, pixels)),
    ]
    print(f"checkpoint {Path(checkpoint).name}, clip {Path(clip).name}")
    print(f"{platform.machine()}, torch {torch.__version__}, transformers {transformers.__version__}, float32 on CPU\n")
    print(f"| {'':<38} | {'hound_plugin':<12} | {'transformers VideoLlava':<24} |")
    print(f"|{'-' * 40}|{'-' * 14}|{'-' * 26}|")
    for name, left, right in rows:
        print(f"| {name:<38} | {left:<12} | {right:<24} |")


def _reversal(model: Any, pixels: torch.Tensor) -> str:
    """Largest change of a frame's features when the clip runs backwards: 0 means that time does not matter."""

    def features(values: torch.Tensor) -> torch.Tensor:
        found = model.model.get_video_features(values)
        found = found if torch.is_tensor(found) else found.pooler_output
        return found.flatten(0, -2).unflatten(0, (values.shape[1], -1))

    change = features(pixels) - features(pixels.flip(1)).flip(0)
    return f"{change.abs().max():.2e}"


if __name__ == "__main__":
    main()
