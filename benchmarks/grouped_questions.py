"""An SFT step on several questions about a clip: rows by themselves, or one row that reads the clip once.

Loss and backward pass of the host's ``CustomSeq2SeqTrainer`` for one batch of ``--questions`` rows about each of
``--clips`` clips: with our switches off (the host's own step), with the head where labels are, and with
``hound.group_questions``. The ways take turns, each in a process of its own (for its memory), and their losses are
compared. The language model has the width, depth and vocabulary given; the towers are small, unless ``--towers`` asks
for the released model's size. The defaults take about three minutes on two idle cores.

    python benchmarks/grouped_questions.py [--hidden 1024] [--layers 4] [--prompt 2100] [--answer 64] [--questions 3]
        [--clips 1] [--repeat 2] [--towers] [--lora]
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from typing import Any

import torch
from side_by_side import (
    VOCABULARY,
    arguments,
    configuration,
    print_machine,
    print_result,
    print_table,
    rows_about_clips,
    run_child,
    write_model,
)

GROUPED = "answers only, one row a clip"
WAYS: dict[str, dict[str, Any]] = {
    "host's own step": {"answers_only": "off"},
    "answers only": {},
    GROUPED: {},
}


def measure(folder: str, way: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """Steps of one way in this process: their seconds, the loss, and the memory above the weights."""
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_model, load_tokenizer
    from llamafactory.train.sft.trainer import CustomSeq2SeqTrainer

    settings = {**WAYS[way], **({"group_questions": chosen.questions} if way == GROUPED else {})}
    values = arguments(folder, "sft", settings, finetuning_type="lora" if chosen.lora else "full")
    model_args, _, training_args, finetuning_args, _ = get_train_args(values)
    tokens = load_tokenizer(model_args)
    model = load_model(tokens["tokenizer"], model_args, finetuning_args, True)
    trainer = CustomSeq2SeqTrainer(
        model=model, finetuning_args=finetuning_args, args=training_args, data_collator=lambda rows: rows, **tokens
    )
    config = next(part.config for part in model.modules() if hasattr(getattr(part, "config", None), "video_token_id"))
    batch = by_clip(rows_about_clips(config, chosen.clips, chosen.questions, chosen.prompt, chosen.answer), chosen)
    model.train()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, losses = [], []
    for _ in range(chosen.repeat + 1):  # the first one warms up, and checks the first group
        start = time.perf_counter()
        loss = trainer.compute_loss(model, dict(batch))
        loss.backward()
        seconds.append(time.perf_counter() - start)
        losses.append(loss.item())
        model.zero_grad()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"seconds": seconds[1:], "loss": losses[0], "mebibytes": peak / 1024}


def by_clip(batch: dict[str, Any], chosen: argparse.Namespace) -> dict[str, Any]:
    """The rows of a clip next to each other, in the order of the data set's groups."""
    order = torch.arange(chosen.questions * chosen.clips).view(chosen.questions, chosen.clips).T.flatten()
    rows = ("input_ids", "attention_mask", "labels", "video_index")
    return {name: value[order] if name in rows else value for name, value in batch.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in (
        ("hidden", 1024),
        ("layers", 4),
        ("prompt", 2100),
        ("answer", 64),
        ("questions", 3),
        ("clips", 1),
        ("repeat", 2),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--towers", action="store_true", help="towers of the released model's size")
    parser.add_argument("--lora", action="store_true", help="LoRA instead of full fine-tuning")
    parser.add_argument("--child", nargs=2, metavar=("FOLDER", "WAY"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        print_result(measure(*chosen.child, chosen))
        return
    print_machine()
    print(
        f"hidden {chosen.hidden}, {chosen.layers} layers, vocabulary {VOCABULARY}, prompt {chosen.prompt}, answers "
        f"{chosen.answer}, {chosen.questions} questions about each of {chosen.clips} clip(s), "
        f"{'LoRA' if chosen.lora else 'full'}\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        write_model(folder, configuration(chosen.hidden, chosen.layers, chosen.towers))
        results = {way: run_child(__file__, folder, way) for way in WAYS}
    print_table(results, rows=chosen.questions * chosen.clips)


if __name__ == "__main__":
    main()
