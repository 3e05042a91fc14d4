"""What the scripts beside it share: a model with random weights, one process a way, and the table of all ways."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import transformers

import hound_plugin
from hound_plugin.model.configuration import LlavaHoundConfig, LlavaHoundTowerConfig

VOCABULARY = 32000
TOKENIZER = Path(__file__).resolve().parents[1] / "tests" / "golden" / "tokenizer"


def configuration(hidden: int, layers: int, released_towers: bool, image_size: int = 224) -> LlavaHoundConfig:
    """A LLaVA-Hound model with a language model of this size.

    Args:
        hidden: units; heads have 128 of them, and the middle layer is 43 / 16 as wide, as in the 7B model.
        layers: of the language model.
        released_towers: towers of the released model's size (ViT-L/14), else small ones.
        image_size: pixels of a side; a frame of 224 takes 256 tokens.
    """
    text = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=hidden, intermediate_size=hidden * 43 // 16, num_hidden_layers=layers,
        num_attention_heads=max(hidden // 128, 1), max_position_embeddings=4096, pad_token_id=0, bos_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    tower: dict[str, Any] = {"image_size": image_size, "patch_size": 14, "num_attention_heads": 16}
    tower |= {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24 if released_towers else 2}
    tower |= {} if released_towers else {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4}
    return LlavaHoundConfig(
        text_config=text,
        image_tower_config=LlavaHoundTowerConfig(**{**tower, "num_hidden_layers": 2}),
        video_tower_config=LlavaHoundTowerConfig(**tower, add_time_attn=True, num_frames=8),
        mm_image_tower=None,
        mm_video_tower=None,
    )


def write_model(folder: str, config: LlavaHoundConfig) -> None:
    """A model with random weights, and a processor for it."""
    transformers.set_seed(0)
    hound_plugin.LlavaHoundForConditionalGeneration(config).save_pretrained(folder)
    write_processor(folder, config)


def write_processor(folder: str, config: LlavaHoundConfig) -> None:
    """A processor for a model of this configuration."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(TOKENIZER)
    hound_plugin.LlavaHoundProcessor.from_config(config, tokenizer).save_pretrained(folder)


def rows_about_clips(config: LlavaHoundConfig, clips: int, answers: int, prompt: int, answer: int) -> dict[str, Any]:
    """A batch of rows with random tokens.

    Args:
        config: the model's, with the ids of the placeholders.
        clips: number of clips, each with a prompt of its own.
        answers: number of rows about each clip.
        prompt, answer: tokens of a prompt with its clip, and of an answer.

    Returns:
        Rows ``[answers * clips, prompt + answer]``: the first answers of all clips, then the second ones, and so on;
        and pixels of a clip each.
    """
    draw = torch.Generator().manual_seed(1)
    visual = torch.full((config.tokens_per_video(8),), config.video_token_id)
    rows, labels = [], []
    prompts = torch.randint(3, VOCABULARY, (clips, prompt - len(visual)), generator=draw)
    for _ in range(answers):
        for text in prompts:
            own = torch.randint(3, VOCABULARY, (answer,), generator=draw)
            rows.append(torch.cat([text[:1], visual, text[1:], own]))
            labels.append(torch.cat([torch.full((prompt,), -100), own]))
    size = config.video_tower_config.image_size
    return {
        "input_ids": torch.stack(rows),
        "attention_mask": torch.ones(len(rows), prompt + answer, dtype=torch.long),
        "labels": torch.stack(labels),
        "pixel_values_videos": torch.randn(clips, 8, 3, size, size, generator=draw),
        "video_index": torch.arange(clips).repeat(answers),
    }


def arguments(folder: str, stage: str, settings: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The host's arguments for a training of the model in a folder, with our settings."""
    return {
        "model_name_or_path": folder, "template": "llava_hound", "stage": stage, "do_train": True, "dataset": "none",
        "dataset_dir": folder, "output_dir": f"{folder}/run", "report_to": "none", "cutoff_len": 4096,
        "freeze_vision_tower": True, "freeze_multi_modal_projector": True, "remove_unused_columns": False,
        "hound": settings, **changes,
    }  # fmt: skip


def run_child(script: str, folder: str, way: str) -> dict[str, Any]:
    """Measure one way in a process of its own: the script with its arguments and ``--child FOLDER WAY``."""
    command = [sys.executable, script, *sys.argv[1:], "--child", folder, way]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        sys.exit(done.stdout[-3000:] + done.stderr[-3000:])
    result: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
    return result


def print_result(result: dict[str, Any]) -> None:
    """What :func:`run_child` reads."""
    print("RESULT " + json.dumps(result))


def print_machine() -> None:
    """The machine and the versions."""
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, float32")
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")


def print_table(results: dict[str, dict[str, Any]], rows: int | None = None) -> None:
    """A line a way, compared with the first one.

    Args:
        results: ``seconds`` of each step, ``mebibytes`` above the weights, and ``loss``.
        rows: of a step, for rows a second; None: they are not shown.
    """
    first = next(iter(results.values()))
    counted = "" if rows is None else " rows/s |"
    print(f"| way | s a step (median, least to most) |{counted} ratio | MiB above the weights | ratio | loss |")
    print("|---" * (6 if rows is None else 7) + "|")
    for way, result in results.items():
        times = result["seconds"]
        middle, memory = statistics.median(times), result["mebibytes"]
        ratios = statistics.median(first["seconds"]) / middle, memory / first["mebibytes"]
        spread = f"{middle:.2f} ({min(times):.2f} to {max(times):.2f})"
        counted = "" if rows is None else f" {rows / middle:.2f} |"
        loss = f"{result['loss']:.7f}"
        print(f"| {way} | {spread} |{counted} {ratios[0]:.2f} | {memory:.0f} | {ratios[1]:.2f} | {loss} |")
