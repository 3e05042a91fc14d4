"""What benchmarks of training steps share: a model with random weights, a process for each way, and their table."""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from report import Table, spread

import hound_plugin
from hound_plugin.model.configuration import LlavaHoundConfig, LlavaHoundTowerConfig

VOCABULARY = 32000
TOKENIZER = Path(__file__).resolve().parents[1] / "tests" / "golden" / "tokenizer"


def configuration(
    hidden: int, layers: int, released_towers: bool, image_size: int = 224, frames: int = 8
) -> LlavaHoundConfig:
    """A LLaVA-Hound model with a language model of this size.

    Args:
        hidden: units; heads have 128 of them, and the middle layer is 43 / 16 as wide, as in the 7B model.
        layers: of the language model.
        released_towers: towers of the released model's size (ViT-L/14), else small ones.
        image_size: pixels of a side; a frame of 224 takes 256 tokens.
        frames: of a clip.
    """
    text = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=hidden, intermediate_size=hidden * 43 // 16, num_hidden_layers=layers,
        num_attention_heads=max(hidden // 128, 1), max_position_embeddings=8192, pad_token_id=0, bos_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    tower: dict[str, Any] = {"image_size": image_size, "patch_size": 14, "num_attention_heads": 16}
    tower |= {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24 if released_towers else 2}
    tower |= {} if released_towers else {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4}
    return LlavaHoundConfig(
        text_config=text,
        image_tower_config=LlavaHoundTowerConfig(**{**tower, "num_hidden_layers": 2}),
        video_tower_config=LlavaHoundTowerConfig(**tower, add_time_attn=True, num_frames=frames),
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
    frames = config.video_tower_config.num_frames
    visual = torch.full((config.tokens_per_video(frames),), config.video_token_id)
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
        "pixel_values_videos": torch.randn(clips, frames, 3, size, size, generator=draw),
        "video_index": torch.arange(clips).repeat(answers),
    }


def arguments(folder: str, stage: str, settings: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The host's arguments for a training of the model in a folder, with our settings."""
    return {
        "model_name_or_path": folder, "template": "llava_hound", "stage": stage, "do_train": True, "dataset": "none",
        "dataset_dir": folder, "output_dir": f"{folder}/run", "report_to": "none", "cutoff_len": 8192,
        "freeze_vision_tower": True, "freeze_multi_modal_projector": True, "remove_unused_columns": False,
        "hound": settings, **changes,
    }  # fmt: skip


Step = Callable[[], torch.Tensor]
"""The loss of a step, with its graph."""


def measure(model: Any, step: Step, repeat: int) -> dict[str, Any]:
    """Forward and backward passes in this process.

    Returns:
        ``seconds`` of each step after the first, which warms up and compares shared rows with separate ones; the first
        ``loss``; ``mebibytes``: the most memory above the weights, gradients and all.
    """
    seconds, losses = [], []
    memory = None
    for turn in range(repeat + 1):
        memory = PeakMemory() if turn == 1 else memory
        start = time.perf_counter()
        loss = step()
        loss.backward()
        seconds.append(time.perf_counter() - start)
        losses.append(loss.item())
        del loss
        model.zero_grad()
    assert memory is not None
    return {"seconds": seconds[1:], "loss": losses[0], "mebibytes": memory.mebibytes()}


class PeakMemory:
    """The most memory that this process takes from now on, above what it has now."""

    def __init__(self) -> None:
        gc.collect()
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the peak until now
        self._before = self._peak()

    def mebibytes(self) -> float:
        """Above what there was."""
        return (self._peak() - self._before) / 1024

    @staticmethod
    def _peak() -> int:
        if sys.platform != "linux":
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Options about what is trained; and how a process of one way is started."""
    parser.add_argument("--towers", action="store_true", help="towers of the released model's size")
    parser.add_argument("--lora", action="store_true", help="LoRA instead of full fine-tuning")
    parser.add_argument(
        "--no-checkpointing", action="store_true", help="`disable_gradient_checkpointing: true`, in all ways"
    )
    parser.add_argument("--child", nargs=2, metavar=("FOLDER", "WAY"), help=argparse.SUPPRESS)


def size_of(chosen: argparse.Namespace) -> str:
    """The size of the model and of its rows in words."""
    return (
        f"hidden {chosen.hidden}, {chosen.layers} layers, vocabulary {VOCABULARY}, prompt {chosen.prompt}, answers "
        f"{chosen.answer}, {'LoRA' if chosen.lora else 'full'}, {'large' if chosen.towers else 'small'} towers, "
        f"{with_or_without(chosen)} gradient checkpointing"
    )


def with_or_without(chosen: argparse.Namespace) -> str:
    """Whether gradients are checkpointed."""
    return "without" if chosen.no_checkpointing else "with"


def run_children(script: str, chosen: argparse.Namespace, ways: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Measure each way in a process of its own, one at a time."""
    with tempfile.TemporaryDirectory() as folder:
        write_model(folder, configuration(chosen.hidden, chosen.layers, chosen.towers))
        return {way: run_child(script, folder, way) for way in ways}


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


def steps_table(title: str, results: dict[str, dict[str, Any]], rows: int | None = None) -> Table:
    """A line a way, compared with the first one.

    Args:
        title: of the table.
        results: ``seconds`` of each step, ``mebibytes`` above the weights, and ``loss``.
        rows: of a step, for rows a second; None: they are not shown.
    """
    first = next(iter(results.values()))
    lines = []
    for way, result in results.items():
        middle = statistics.median(result["seconds"])
        counted = [] if rows is None else [f"{rows / middle:.2f}"]
        faster, less = speedup(first, result), memory_share(first, result)
        memory = f"{result['mebibytes']:.0f}"
        lines.append(
            [way, spread(result["seconds"]), *counted, f"{faster:.2f}", memory, f"{less:.2f}", f"{result['loss']:.7f}"]
        )
    counted = [] if rows is None else ["rows/s"]
    columns = ["way", "s a step (median, least to most)", *counted, "times faster", "MiB above the weights"]
    return Table(title, [*columns, "share", "loss"], lines)


def speedup(first: dict[str, Any], result: dict[str, Any]) -> float:
    """How many times faster than the first way."""
    return statistics.median(first["seconds"]) / statistics.median(result["seconds"])


def memory_share(first: dict[str, Any], result: dict[str, Any]) -> float:
    """Memory above the weights as a share of the first way's."""
    share: float = result["mebibytes"] / first["mebibytes"]
    return share
