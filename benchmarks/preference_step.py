"""A DPO step of the host's trainer: prompts of pairs read once or twice, the head where labels are or everywhere.

Forward passes of policy and reference, loss and backward pass of ``CustomDPOTrainer``, with our switches off (the
host's own step), with the head where labels are, with all of them on, and with the reference's log-probabilities
stored. The ways take turns, each in a process of its own (for its memory), and their losses are compared. The language
model has the width, depth and vocabulary given; the towers are small, unless ``--towers`` asks for the released model's
size.

    python benchmarks/preference_step.py [--hidden 1024] [--layers 4] [--prompt 2100] [--answer 64] [--pairs 1]
        [--repeat 3] [--towers] [--lora]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers

WAYS: dict[str, dict[str, str]] = {
    "host's own step": {"prefix_sharing": "off", "answers_only": "off"},
    "answers only": {"prefix_sharing": "off"},
    "answers only, shared prompts": {},
    "the same, with the reference stored": {"reference_log_probs": "reference.jsonl"},
}
VOCABULARY = 32000
TOKENIZER = Path(__file__).resolve().parents[1] / "tests" / "golden" / "tokenizer"


def write_model(folder: str, chosen: argparse.Namespace) -> None:
    """A model with random weights, and a processor for it."""
    from transformers import AutoTokenizer, LlamaConfig, set_seed

    import hound_plugin
    from hound_plugin.model.configuration import LlavaHoundTowerConfig

    heads = max(chosen.hidden // 128, 1)
    text = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=chosen.hidden, intermediate_size=chosen.hidden * 43 // 16,
        num_hidden_layers=chosen.layers, num_attention_heads=heads, max_position_embeddings=4096, pad_token_id=0,
        bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    tower: dict[str, Any] = {"image_size": 224, "patch_size": 14, "num_attention_heads": 16}
    tower |= {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24 if chosen.towers else 2}
    tower |= {} if chosen.towers else {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4}
    config = hound_plugin.LlavaHoundConfig(
        text_config=text,
        image_tower_config=LlavaHoundTowerConfig(**{**tower, "num_hidden_layers": 2}),
        video_tower_config=LlavaHoundTowerConfig(**tower, add_time_attn=True, num_frames=8),
        mm_image_tower=None,
        mm_video_tower=None,
    )
    set_seed(0)
    hound_plugin.LlavaHoundForConditionalGeneration(config).save_pretrained(folder)
    hound_plugin.LlavaHoundProcessor.from_config(config, AutoTokenizer.from_pretrained(TOKENIZER)).save_pretrained(
        folder
    )


def make_batch(config: Any, chosen: argparse.Namespace) -> dict[str, torch.Tensor]:
    """Chosen rows, then rejected ones; each pair shows a clip of its own."""
    draw = torch.Generator().manual_seed(1)
    visual = config.tokens_per_video(8)
    rows, labels = [], []
    prompts = torch.randint(3, VOCABULARY, (chosen.pairs, chosen.prompt - visual), generator=draw)
    for _ in ("chosen", "rejected"):
        for prompt in prompts:
            answer = torch.randint(3, VOCABULARY, (chosen.answer,), generator=draw)
            clip = torch.full((visual,), config.video_token_id)
            rows.append(torch.cat([prompt[:1], clip, prompt[1:], answer]))
            labels.append(torch.cat([torch.full((chosen.prompt,), -100), answer]))
    size = config.video_tower_config.image_size
    return {
        "input_ids": torch.stack(rows),
        "attention_mask": torch.ones(len(rows), chosen.prompt + chosen.answer, dtype=torch.long),
        "labels": torch.stack(labels),
        "pixel_values_videos": torch.randn(chosen.pairs, 8, 3, size, size, generator=draw),
        "video_index": torch.arange(chosen.pairs).repeat(2),
    }


def measure(folder: str, way: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """Steps of one way in this process: their seconds, the loss, and the memory above the weights."""
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_model, load_tokenizer
    from llamafactory.train.dpo.trainer import CustomDPOTrainer
    from llamafactory.train.trainer_utils import create_ref_model

    values = {
        "model_name_or_path": folder, "template": "llava_hound", "stage": "dpo", "do_train": True, "dataset": "none",
        "dataset_dir": folder, "output_dir": f"{folder}/run", "report_to": "none", "cutoff_len": 4096,
        "freeze_vision_tower": True, "freeze_multi_modal_projector": True, "hound": WAYS[way],
        "finetuning_type": "lora" if chosen.lora else "full", "remove_unused_columns": False,
    }  # fmt: skip
    model_args, _, training_args, finetuning_args, _ = get_train_args(values)
    tokens = load_tokenizer(model_args)
    model = load_model(tokens["tokenizer"], model_args, finetuning_args, True)
    stored = "reference_log_probs" in WAYS[way]
    reference = None if chosen.lora or stored else create_ref_model(model_args, finetuning_args)
    trainer = CustomDPOTrainer(
        model=model, ref_model=reference, finetuning_args=finetuning_args, processor=None, args=training_args,
        tokenizer=tokens["tokenizer"], data_collator=lambda rows: rows,
    )  # fmt: skip
    config = next(part.config for part in model.modules() if hasattr(getattr(part, "config", None), "video_token_id"))
    batch = make_batch(config, chosen)
    if stored:
        store_reference(model, batch)
    model.train()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, losses = [], []
    for _ in range(chosen.repeat + 1):  # the first one warms up, and checks the first pair
        start = time.perf_counter()
        loss, _ = trainer.get_batch_loss_metrics(model, dict(batch))
        loss.backward()
        seconds.append(time.perf_counter() - start)
        losses.append(loss.item())
        model.zero_grad()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"seconds": seconds[1:], "loss": losses[0], "mebibytes": peak / 1024}


def store_reference(model: Any, batch: dict[str, torch.Tensor]) -> None:
    """Put a batch where a training is that has read ``hound.reference_log_probs``.

    Args:
        model: the policy before its first step, which is the reference.
        batch: gets the numbers of its pairs.
    """
    from hound_plugin.host.reference.forward import RowSums
    from hound_plugin.host.reference.state import ROW, STATE, Table

    model.eval()
    sums, tokens = RowSums(model, "dpo")(batch)
    STATE.table = Table(sums.T, tokens.T)
    batch[ROW] = torch.arange(sums.shape[1])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in (
        ("hidden", 1024),
        ("layers", 4),
        ("prompt", 2100),
        ("answer", 64),
        ("pairs", 1),
        ("repeat", 3),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--towers", action="store_true", help="towers of the released model's size")
    parser.add_argument("--lora", action="store_true", help="LoRA: the reference is the policy without its adapters")
    parser.add_argument("--child", nargs=2, metavar=("FOLDER", "WAY"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        print("RESULT " + json.dumps(measure(*chosen.child, chosen)))
        return
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, float32")
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")
    print(
        f"hidden {chosen.hidden}, {chosen.layers} layers, vocabulary {VOCABULARY}, prompt {chosen.prompt}, answers "
        f"{chosen.answer}, {chosen.pairs} pair(s), {'LoRA' if chosen.lora else 'full'}\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        write_model(folder, chosen)
        results = {way: run_child(folder, way) for way in WAYS}
    first = next(iter(results.values()))
    print("| way | s a step (median, least to most) | ratio | MiB above the weights | ratio | loss |")
    print("|---|---|---|---|---|---|")
    for way, result in results.items():
        times = result["seconds"]
        middle, memory = statistics.median(times), result["mebibytes"]
        ratios = statistics.median(first["seconds"]) / middle, memory / first["mebibytes"]
        spread = f"{middle:.2f} ({min(times):.2f} to {max(times):.2f})"
        print(f"| {way} | {spread} | {ratios[0]:.2f} | {memory:.0f} | {ratios[1]:.2f} | {result['loss']:.7f} |")


def run_child(folder: str, way: str) -> dict[str, Any]:
    """Measure one way in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--child", folder, way]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        sys.exit(done.stdout[-3000:] + done.stderr[-3000:])
    result: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
    return result


if __name__ == "__main__":
    main()
