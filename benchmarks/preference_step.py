"""A DPO step of the host's trainer: prompts of pairs read once or twice, the head where labels are or everywhere.

Forward passes of policy and reference, loss and backward pass of ``CustomDPOTrainer``, with our switches off (the
host's own step), with the head where labels are, with all of them on, and with the reference's log-probabilities
stored; last, transformers' Video-LLaVA with the same language model and small towers, as the host trains it. (The
host's call of its processor fails on transformers 5.5, as it passes ``images=None``: a repair of one line, which is not
on the way measured here. Its loss is of another model.) Each way runs in a process of its own, one at a time, and
their losses are compared. The language model has the width, depth and vocabulary given; the towers are small, unless
``--towers`` asks for the released size. Gradients are checkpointed, as by default in the host, so that each step
computes the policy's forward pass twice, unless ``--no-checkpointing`` is given. The defaults take about six minutes on
two idle cores.

    python benchmarks/preference_step.py [--hidden 1024] [--layers 4] [--prompt 2100] [--answer 64] [--pairs 1]
        [--repeat 3] [--towers] [--lora] [--no-checkpointing] [--out FILE]
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
import transformers
from report import Goal, Report, parser
from side_by_side import (
    TOKENIZER,
    Step,
    add_model_options,
    arguments,
    configuration,
    measure,
    memory_share,
    print_result,
    rows_about_clips,
    run_children,
    size_of,
    speedup,
    steps_table,
    with_or_without,
)

STOCK, ANSWERS, SHARED, STORED = (
    "host's own step",
    "answers only",
    "answers only, shared prompts",
    "the same, with the reference stored",
)
VIDEO_LLAVA = "Video-LLaVA in the host"
WAYS: dict[str, dict[str, str]] = {
    STOCK: {"prefix_sharing": "off", "answers_only": "off"},
    ANSWERS: {"prefix_sharing": "off"},
    SHARED: {},
    STORED: {"reference_log_probs": "reference.jsonl"},
    VIDEO_LLAVA: {},
}


def prepare(folder: str, way: str, chosen: argparse.Namespace) -> tuple[Any, Step]:
    """The policy, and the loss of a step of one way."""
    model, trainer = load(folder, way, chosen)
    batch = video_llava_rows(model, chosen) if way == VIDEO_LLAVA else batch_of(model, chosen)
    if "reference_log_probs" in WAYS[way]:
        store_reference(model, batch)
    part_from_reference(model)
    model.train()
    return model, lambda: trainer.get_batch_loss_metrics(model, dict(batch))[0]


def load(folder: str, way: str, chosen: argparse.Namespace) -> tuple[Any, Any]:
    """The policy and the host's trainer for it."""
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_model, load_tokenizer
    from llamafactory.train.dpo.trainer import CustomDPOTrainer
    from llamafactory.train.trainer_utils import create_ref_model

    values = arguments(
        folder, "dpo", WAYS[way], finetuning_type="lora" if chosen.lora else "full",
        disable_gradient_checkpointing=chosen.no_checkpointing,
    )  # fmt: skip
    if way == VIDEO_LLAVA:
        values |= {"model_name_or_path": write_video_llava(folder, chosen), "template": "video_llava"}
        del values["hound"]
    model_args, _, training_args, finetuning_args, _ = get_train_args(values)
    tokens = load_tokenizer(model_args)
    model = load_model(tokens["tokenizer"], model_args, finetuning_args, True)
    has_reference = not chosen.lora and "reference_log_probs" not in WAYS[way]
    reference = create_ref_model(model_args, finetuning_args) if has_reference else None
    return model, CustomDPOTrainer(
        model=model, ref_model=reference, finetuning_args=finetuning_args, processor=None, args=training_args,
        tokenizer=tokens["tokenizer"], data_collator=lambda rows: rows,
    )  # fmt: skip


def batch_of(model: Any, chosen: argparse.Namespace) -> dict[str, Any]:
    """Pairs about a clip each: chosen rows, then rejected ones."""
    config = next(part.config for part in model.modules() if hasattr(getattr(part, "config", None), "video_token_id"))
    return rows_about_clips(config, chosen.pairs, 2, chosen.prompt, chosen.answer)


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


@torch.no_grad()
def part_from_reference(model: Any) -> None:
    """Change the policy a little: were it still the reference, the loss would be log 2 whatever a way computes."""
    if any("lora_B" in name for name, _ in model.named_parameters()):
        torch.manual_seed(2)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)
    else:
        model.lm_head.weight.mul_(1.5)


# --- transformers' Video-LLaVA


def write_video_llava(folder: str, chosen: argparse.Namespace) -> str:
    """A Video-LLaVA with random weights, the language model of ours and a small tower for clips and one for images."""
    ours = configuration(chosen.hidden, chosen.layers, chosen.towers)
    tower = ours.video_tower_config
    vision = transformers.CLIPVisionConfig(
        hidden_size=tower.hidden_size, intermediate_size=tower.intermediate_size, image_size=tower.image_size,
        num_hidden_layers=tower.num_hidden_layers, num_attention_heads=tower.num_attention_heads,
        patch_size=tower.patch_size,
    )  # fmt: skip
    tokenizer = transformers.AutoTokenizer.from_pretrained(TOKENIZER)
    text = transformers.LlamaConfig(**{**ours.text_config.to_dict(), "vocab_size": ours.text_config.vocab_size + 64})
    config = transformers.VideoLlavaConfig(
        vision_config=vision, text_config=text, image_token_index=text.vocab_size - 2,
        video_token_index=text.vocab_size - 1, image_seq_length=256, video_seq_length=2056,
    )  # fmt: skip
    transformers.set_seed(0)
    transformers.VideoLlavaForConditionalGeneration(config).save_pretrained(f"{folder}/video_llava")
    tokenizer.save_pretrained(f"{folder}/video_llava")
    return f"{folder}/video_llava"


def video_llava_rows(model: Any, chosen: argparse.Namespace) -> dict[str, Any]:
    """The pairs for it: 257 tokens a frame, and a clip of its own for every row."""
    config = next(
        part.config for part in model.modules() if isinstance(part, transformers.VideoLlavaForConditionalGeneration)
    )
    ours = configuration(chosen.hidden, chosen.layers, chosen.towers)
    batch = rows_about_clips(ours, chosen.pairs, 2, chosen.prompt, chosen.answer)
    visual = ours.tokens_per_video(8)
    more = 8  # a class token a frame
    batch["input_ids"][batch["input_ids"] == ours.video_token_id] = config.video_token_index
    batch["input_ids"][:, 1 + visual : 1 + visual + more] = config.video_token_index
    clips = batch["pixel_values_videos"][batch.pop("video_index")]
    return {**batch, "pixel_values_videos": clips}


def main() -> None:
    """Print the table."""
    options = parser(__doc__, hidden=1024, layers=4, prompt=2100, answer=64, pairs=1, repeat=3)
    add_model_options(options)
    chosen = options.parse_args()
    if chosen.child:
        print_result(measure(*prepare(*chosen.child, chosen), chosen.repeat))
        return
    results = run_children(__file__, chosen, list(WAYS))
    stock, how = results[STOCK], f"{with_or_without(chosen)} gradient checkpointing"
    goals = [
        Goal(f"DPO step {how}: prompts, answers and towers once", speedup(stock, results[SHARED]), least=3),
        Goal(f"DPO step {how}: with the reference stored", speedup(stock, results[STORED]), least=4),
        Goal(f"DPO step {how}: memory above the weights", memory_share(stock, results[SHARED]), most=0.4),
    ]
    size = f"{size_of(chosen)}, {chosen.pairs} pair(s)"
    name = "preference_step_no_checkpointing" if chosen.no_checkpointing else "preference_step"
    Report(name, size, [steps_table(f"A DPO step {how}", results)], goals, results, __file__).finish(chosen.out)


if __name__ == "__main__":
    main()
