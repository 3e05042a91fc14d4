"""Training steps of the 7B model on one GPU of 80 GB: tokens a second, MFU and memory; the host's own steps and ours.

Random weights in bfloat16, towers of the released size, gradient checkpointing, the host's own trainers; once with
PyTorch's attention, and once with flash-attn where it is installed. A step is the loss of one pair (DPO, with its
reference) or of three questions about a clip (SFT), and its backward pass; the optimiser does not run. What Adam adds
is arithmetic: on 8 cards with ZeRO-2 for full fine-tuning, on this card for LoRA and QLoRA.

Tokens are counted as in separate rows, so that ways can be compared; MFU counts what is computed, without the towers
and without what gradient checkpointing computes again. The whole takes less than 9 minutes: what does not begin within
``--limit`` seconds is named and left out.

This script has run with ``--tiny`` on a CPU alone, in which case its figures mean nothing. It has not run on a GPU.

    python benchmarks/gpu.py [--limit 480] [--repeat 3] [--peak TFLOPS] [--tiny] [--out FILE]
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import os
import platform
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # before torch looks for GPUs

import torch
import transformers
from arithmetic import flops
from peft import LoraConfig, get_peft_model
from report import Report, Table, spread
from side_by_side import TOKENIZER, arguments, configuration, rows_about_clips, write_processor

import hound_plugin
from hound_plugin.model.configuration import LlavaHoundConfig

RECIPES: dict[str, tuple[str, str]] = {
    f"{name}, {method}": (stage, method)
    for stage, name in (("dpo", "DPO"), ("sft", "SFT"))
    for method in ("full", "LoRA", "QLoRA")
}
OFF = {"prefix_sharing": "off", "answers_only": "off"}
WAYS: dict[str, dict[str, dict[str, Any]]] = {
    "dpo": {"host's own step": OFF, "ours": {}},
    "sft": {"host's own step": OFF, "ours": {"group_questions": 3}},
}
ANSWERS = {"dpo": 2, "sft": 3}
PEAKS = (("H200", 989), ("H100 PCIe", 756), ("H100", 989), ("A100", 312), ("L40S", 362), ("4090", 165))
"""TFLOPS of dense bfloat16, from NVIDIA's data sheets."""
LANGUAGE_LAYERS = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"
GIGA = 1e9
CARDS = 8


@dataclass(frozen=True)
class Size:
    """What is measured: the model's size and the batch's, and where."""

    config: LlavaHoundConfig
    prompt: int
    answer: int
    rank: int
    device: torch.device
    dtype: torch.dtype


def size_of(chosen: argparse.Namespace) -> Size:
    """7B on a GPU, or a toy on a CPU."""
    if chosen.tiny:
        config = configuration(128, 2, released_towers=False, image_size=28)
        return Size(config, 60, 9, 4, torch.device("cpu"), torch.float32)
    return Size(configuration(4096, 32, released_towers=True), 2100, 64, 64, torch.device("cuda"), torch.bfloat16)


# --- models


def build(size: Size, attention: str) -> Any:
    """A model with random weights on the device; towers and projector are frozen."""
    transformers.set_seed(0)
    config = LlavaHoundConfig.from_dict(size.config.to_dict())
    with torch.device(size.device):
        model = hound_plugin.LlavaHoundForConditionalGeneration._from_config(
            config, dtype=size.dtype, attn_implementation=attention
        )
    model.model.set_towers_trainable(False)
    model.model.multi_modal_projector.requires_grad_(False)
    return model


def trained(size: Size, attention: str, method: str) -> Any:
    """The model of a recipe, ready for training."""
    model = build(size, attention)
    if method == "QLoRA":
        quantise(model, size.dtype)
    if method != "full":
        model = get_peft_model(model, LoraConfig(r=size.rank, lora_alpha=2 * size.rank, target_modules=LANGUAGE_LAYERS))
        model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


def quantise(model: Any, dtype: torch.dtype) -> None:
    """The language model's blocks in 4 bits (NF4, double quantisation), as ``quantization_bit: 4`` loads them."""
    import bitsandbytes

    linear = [name for name, part in model.named_modules() if re.fullmatch(LANGUAGE_LAYERS, name)]
    for name in linear:
        parent, _, own = name.rpartition(".")
        weight = model.get_submodule(name).weight.data
        layer = bitsandbytes.nn.Linear4bit(
            weight.shape[1], weight.shape[0], bias=False, compute_dtype=dtype, quant_type="nf4", device="meta"
        )
        layer.weight = bitsandbytes.nn.Params4bit(
            weight.cpu(), requires_grad=False, quant_type="nf4", compress_statistics=True, module=layer
        )
        setattr(model.get_submodule(parent), own, layer.to(weight.device))


# --- steps


def trainer_of(stage: str, model: Any, reference: Any, size: Size, folder: str, settings: dict[str, Any]) -> Any:
    """The host's trainer, with our settings."""
    from llamafactory.hparams import get_train_args
    from llamafactory.train.dpo.trainer import CustomDPOTrainer
    from llamafactory.train.sft.trainer import CustomSeq2SeqTrainer

    method = "full" if reference is not None or stage == "sft" else "lora"
    _, _, training_args, finetuning_args, _ = get_train_args(arguments(folder, stage, settings, finetuning_type=method))
    tokenizer = transformers.AutoTokenizer.from_pretrained(TOKENIZER)
    how = {
        "model": model, "ref_model": reference, "args": training_args, "finetuning_args": finetuning_args,
        "tokenizer": tokenizer, "data_collator": lambda rows: rows,
        "processor": hound_plugin.LlavaHoundProcessor.from_config(size.config, tokenizer),
    }  # fmt: skip
    return (CustomDPOTrainer if stage == "dpo" else CustomSeq2SeqTrainer)(**how)


def loss_of(stage: str, trainer: Any, model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """The loss of one step, as the trainer computes it."""
    if stage == "dpo":
        loss: torch.Tensor = trainer.get_batch_loss_metrics(model, dict(batch))[0]
        return loss
    computed: torch.Tensor = trainer.compute_loss(model, dict(batch))
    return computed


def measure(stage: str, trainer: Any, model: Any, batch: dict[str, Any], repeat: int) -> dict[str, Any]:
    """Seconds of each step, the loss of the first one, and the peak of the memory in bytes (0 on a CPU)."""
    gpu = torch.cuda.is_available()
    seconds, losses = [], []
    for number in range(repeat + 1):  # the first one warms up, and compares the rows of a clip with separate ones
        if gpu and number == 1:
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        loss = loss_of(stage, trainer, model, batch)
        loss.backward()
        losses.append(loss.item())
        if gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
        model.zero_grad(set_to_none=True)
    return {"seconds": seconds[1:], "loss": losses[0], "peak": torch.cuda.max_memory_allocated() if gpu else 0}


# --- arithmetic


def operations_of(size: Size, stage: str, method: str, shared: bool) -> float:
    """Floating-point operations of one step, without the towers and without what is computed again."""
    passes = (3 if method == "full" else 2) + (1 if stage == "dpo" else 0)  # adapters need no gradients of weights
    return flops(
        size.config.text_config, passes, ANSWERS[stage], size.prompt, size.answer, shares_prompt=shared,
        answers_only=shared,
    )  # fmt: skip


def with_adam(peak: float, trainable: int, method: str) -> float:
    """Bytes on a card when Adam runs too: fp32 weights and two moments, 12 bytes a trained parameter.

    Full fine-tuning shares these and the gradients (2 bytes) among the cards by ZeRO-2; adapters are small enough for
    each card to have all of them.
    """
    if method == "full":
        return peak - 2 * trainable + 14 * trainable / CARDS
    return peak + 12 * trainable


def peak_flops(chosen: argparse.Namespace) -> float | None:
    """Operations a second that the card is sold with; None if it is unknown."""
    if chosen.peak:
        return float(chosen.peak) * 1e12
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return next((tera * 1e12 for card, tera in PEAKS if card in name), None)


# --- the table


COLUMNS = [
    "recipe", "way", "s a step (median, least to most)", "tokens/s", "ratio", "MFU", "peak GB", "ratio of memory",
    "GB with Adam", "loss",
]  # fmt: skip


def lines_of(recipe: str, size: Size, attention: str, folder: str, chosen: argparse.Namespace) -> Iterator[list[str]]:
    """A line of the table for each way of a recipe."""
    stage, method = RECIPES[recipe]
    model = trained(size, attention, method)
    reference = build(size, attention).eval().requires_grad_(False) if (stage, method) == ("dpo", "full") else None
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    batch = rows_about_clips(size.config, 1, ANSWERS[stage], size.prompt, size.answer)
    batch = {
        name: value.to(size.device, size.dtype if value.is_floating_point() else None) for name, value in batch.items()
    }
    first: dict[str, Any] | None = None
    for way, settings in WAYS[stage].items():
        try:
            result = measure(
                stage, trainer_of(stage, model, reference, size, folder, settings), model, batch, chosen.repeat
            )
        except torch.cuda.OutOfMemoryError:
            model.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            yield [recipe, way, "out of memory", *[""] * 7]
            continue
        first = result if first is None and way == next(iter(WAYS[stage])) else first
        operations = operations_of(size, stage, method, way == "ours")
        tokens = ANSWERS[stage] * (size.prompt + size.answer)
        yield line(recipe, way, result, first, tokens, operations / (peak_flops(chosen) or float("inf")), trainable)


def line(
    recipe: str,
    way: str,
    result: dict[str, Any],
    first: dict[str, Any] | None,
    tokens: int,
    least: float,
    trainable: int,
) -> list[str]:
    """A line of the table.

    Args:
        recipe, way: its names.
        result: of :func:`measure`.
        first: of the host's own step; None where that ran out of memory.
        tokens: of the batch in separate rows.
        least: seconds that the operations would take at the card's peak.
        trainable: trained parameters.
    """
    middle, peak = statistics.median(result["seconds"]), result["peak"]
    faster = f"{statistics.median(first['seconds']) / middle:.2f}" if first else "-"
    utilised = f"{least / middle:.0%}" if least else "-"
    smaller = f"{peak / first['peak']:.2f}" if first and first["peak"] else "-"
    total = f"{with_adam(peak, trainable, RECIPES[recipe][1]) / GIGA:.1f}" if peak else "-"
    return [
        recipe, way, spread(result["seconds"], 3), f"{tokens / middle:.0f}", faster, utilised, f"{peak / GIGA:.1f}",
        smaller, total, f"{result['loss']:.5f}",
    ]  # fmt: skip


def attentions() -> list[str]:
    """PyTorch's attention, and flash-attn where it can run."""
    flash = torch.cuda.is_available() and importlib.util.find_spec("flash_attn") is not None
    return ["sdpa", *(["flash_attention_2"] if flash else [])]


def measure_all(size: Size, folder: str, chosen: argparse.Namespace) -> list[Table]:
    """Print a table for each attention while it is made, and what was left out."""
    began, left_out = time.perf_counter(), []
    tables = []
    for attention in attentions():
        tables.append(Table(attention, COLUMNS, []))
        print(f"\n{attention}\n\n{tables[-1].markdown()}", end="")
        for recipe, (_, method) in RECIPES.items():
            if time.perf_counter() - began > chosen.limit:
                left_out.append(f"{recipe} with {attention}")
                continue
            if method == "QLoRA" and importlib.util.find_spec("bitsandbytes") is None:
                left_out.append(f"{recipe}: bitsandbytes is not installed")
                continue
            for cells in lines_of(recipe, size, attention, folder, chosen):
                tables[-1].rows.append(cells)
                print(f"| {' | '.join(cells)} |", flush=True)
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
    if "flash_attention_2" not in attentions():
        left_out.append("flash_attention_2: flash-attn or a GPU is missing")
    print(f"\n{time.perf_counter() - began:.0f} s. Left out: {'; '.join(left_out) or 'nothing'}.")
    return tables


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--limit", type=float, default=480, help="seconds after which no further recipe begins")
    parser.add_argument("--repeat", type=int, default=3, help="steps that are measured")
    parser.add_argument("--peak", type=float, help="TFLOPS of the card in bfloat16, for the MFU")
    parser.add_argument("--tiny", action="store_true", help="a toy model on a CPU, to see that the script runs")
    parser.add_argument("--out", type=Path, help="JSON file (default: results/gpu.json; with --tiny: none)")
    chosen = parser.parse_args()
    if not chosen.tiny and not torch.cuda.is_available():
        sys.exit("Expected a GPU, and torch finds none. `--tiny` runs a toy model on a CPU.")
    size = size_of(chosen)
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    print(f"{card}, {str(size.dtype).removeprefix('torch.')}")
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")
    text = size.config.text_config
    shown = (
        f"hidden {text.hidden_size}, {text.num_hidden_layers} layers, prompt {size.prompt}, answers {size.answer}; "
        f"adapters of rank {size.rank}. With Adam, by arithmetic: full on {CARDS} cards (ZeRO-2), adapters on one"
    )
    print(shown)
    if chosen.tiny:
        print("A toy model on a CPU: no figure below means anything.")
    with tempfile.TemporaryDirectory() as folder:
        size.config.save_pretrained(folder)
        write_processor(folder, size.config)
        tables = measure_all(size, folder, chosen)
    if chosen.out or not chosen.tiny:
        Report("gpu", f"{card}, {str(size.dtype).removeprefix('torch.')}; {shown}", tables).write(chosen.out)


if __name__ == "__main__":
    main()
