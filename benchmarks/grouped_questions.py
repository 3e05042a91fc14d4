"""An SFT step on several questions about a clip: rows by themselves, or one row that reads the clip once.

Loss and backward pass of the host's ``CustomSeq2SeqTrainer`` for one batch of ``--questions`` rows about each of
``--clips`` clips: with our switches off (the host's own step), with the head where labels are, and with
``hound.group_questions``. Each way runs in a process of its own, one at a time, and their losses are compared. The
language model has the width, depth and vocabulary given; the towers are small, unless ``--towers`` asks for the
released model's size. The defaults take about four minutes on two idle cores.

    python benchmarks/grouped_questions.py [--hidden 1024] [--layers 4] [--prompt 2100] [--answer 64] [--questions 3]
        [--clips 1] [--repeat 3] [--towers] [--lora]
        [--no-checkpointing] [--out FILE]
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from report import Goal, Report, parser
from side_by_side import (
    Step,
    add_model_options,
    arguments,
    measure,
    memory_share,
    print_result,
    rows_about_clips,
    run_children,
    size_of,
    speedup,
    steps_table,
)

STOCK, ANSWERS, GROUPED = "host's own step", "answers only", "answers only, one row a clip"
WAYS: dict[str, dict[str, Any]] = {STOCK: {"answers_only": "off"}, ANSWERS: {}, GROUPED: {}}


def prepare(folder: str, way: str, chosen: argparse.Namespace) -> tuple[Any, Step]:
    """The model, and the loss of a step of one way."""
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_model, load_tokenizer
    from llamafactory.train.sft.trainer import CustomSeq2SeqTrainer

    settings = {**WAYS[way], **({"group_questions": chosen.questions} if way == GROUPED else {})}
    values = arguments(
        folder, "sft", settings, finetuning_type="lora" if chosen.lora else "full",
        disable_gradient_checkpointing=chosen.no_checkpointing,
    )  # fmt: skip
    model_args, _, training_args, finetuning_args, _ = get_train_args(values)
    tokens = load_tokenizer(model_args)
    model = load_model(tokens["tokenizer"], model_args, finetuning_args, True)
    trainer = CustomSeq2SeqTrainer(
        model=model, finetuning_args=finetuning_args, args=training_args, data_collator=lambda rows: rows, **tokens
    )
    config = next(part.config for part in model.modules() if hasattr(getattr(part, "config", None), "video_token_id"))
    batch = by_clip(rows_about_clips(config, chosen.clips, chosen.questions, chosen.prompt, chosen.answer), chosen)
    model.train()
    return model, lambda: trainer.compute_loss(model, dict(batch))


def by_clip(batch: dict[str, Any], chosen: argparse.Namespace) -> dict[str, Any]:
    """The rows of a clip next to each other, in the order of the data set's groups."""
    order = torch.arange(chosen.questions * chosen.clips).view(chosen.questions, chosen.clips).T.flatten()
    rows = ("input_ids", "attention_mask", "labels", "video_index")
    return {name: value[order] if name in rows else value for name, value in batch.items()}


def main() -> None:
    """Print the table."""
    options = parser(__doc__, hidden=1024, layers=4, prompt=2100, answer=64, questions=3, clips=1, repeat=3)
    add_model_options(options)
    chosen = options.parse_args()
    if chosen.child:
        print_result(measure(*prepare(*chosen.child, chosen), chosen.repeat))
        return
    results = run_children(__file__, chosen, list(WAYS))
    stock, many = results[STOCK], f"{chosen.questions} questions a clip"
    goals = [
        Goal(f"SFT, rows/s with {many}", speedup(stock, results[GROUPED]), least=2),
        Goal("SFT step, memory above the weights, answers only", memory_share(stock, results[ANSWERS]), most=0.6),
        Goal(f"SFT step, memory above the weights, {many}", memory_share(stock, results[GROUPED]), most=0.6),
    ]
    table = steps_table("An SFT step", results, rows=chosen.questions * chosen.clips)
    size = f"{size_of(chosen)}, {chosen.questions} questions about each of {chosen.clips} clip(s)"
    Report("grouped_questions", size, [table], goals, results).finish(chosen.out)


if __name__ == "__main__":
    main()
