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

WAYS: dict[str, dict[str, str]] = {
    "host's own step": {"prefix_sharing": "off", "answers_only": "off"},
    "answers only": {"prefix_sharing": "off"},
    "answers only, shared prompts": {},
    "the same, with the reference stored": {"reference_log_probs": "reference.jsonl"},
}


def measure(folder: str, way: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """Steps of one way in this process: their seconds, the loss, and the memory above the weights."""
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_model, load_tokenizer
    from llamafactory.train.dpo.trainer import CustomDPOTrainer
    from llamafactory.train.trainer_utils import create_ref_model

    values = arguments(folder, "dpo", WAYS[way], finetuning_type="lora" if chosen.lora else "full")
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
    batch = rows_about_clips(config, chosen.pairs, 2, chosen.prompt, chosen.answer)
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
        print_result(measure(*chosen.child, chosen))
        return
    print_machine()
    print(
        f"hidden {chosen.hidden}, {chosen.layers} layers, vocabulary {VOCABULARY}, prompt {chosen.prompt}, answers "
        f"{chosen.answer}, {chosen.pairs} pair(s), {'LoRA' if chosen.lora else 'full'}\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        write_model(folder, configuration(chosen.hidden, chosen.layers, chosen.towers))
        results = {way: run_child(__file__, folder, way) for way in WAYS}
    print_table(results)


if __name__ == "__main__":
    main()
