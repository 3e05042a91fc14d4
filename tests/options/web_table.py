"""Fields of the web UI's page with a LLaVA-Hound model: what each must do, or how it is refused."""

from __future__ import annotations

from tests.options.option import LANGUAGE, Page, Row

PAGES: dict[str, Row] = {
    "page as it opens": Page(trained=LANGUAGE, says=r"trainable params"),
    "page, DPO": Page(
        values={"train.training_stage": "DPO", "train.dataset": ["dpo"]}, first_loss=0.693147, trained=LANGUAGE
    ),
    "page, quantization bit": Page(values={"top.quantization_bit": "4"}, trained=LANGUAGE),
    "page, compute type": Page(values={"train.compute_type": "bf16"}, refused=r"choose fp32 as \*Compute type\*"),
    "page, booster: unsloth": Page(values={"top.booster": "unsloth"}, refused=r"unsloth knows.*\*Booster\* auto"),
    "page, booster: liger_kernel": Page(values={"top.booster": "liger_kernel"}, refused=r"liger.*\*Booster\* auto"),
    "page, RoPE scaling": Page(values={"top.rope_scaling": "yarn"}, refused=r"`rope_scaling: yarn` has no effect"),
    "page, image max pixels": Page(values={"train.image_max_pixels": "512*512"}, refused=r"`image_max_pixels` to be"),
    "page, video min pixels": Page(values={"train.video_min_pixels": "8*8"}, refused=r"`video_min_pixels` to be left"),
    "page, pack sequences": Page(values={"train.packing": True}, refused=r"Use `neat_packing: true`"),
    "page, neat packing": Page(values={"train.neat_packing": True}, trained=LANGUAGE),
    "page, resize token embeddings": Page(values={"train.resize_vocab": True}, refused=r"`resize_vocab` would give"),
    "page, LLaMA Pro": Page(values={"train.use_llama_pro": True}, refused=r"use `finetuning_type: freeze`"),
    "page, BAdam": Page(
        values={"train.use_badam": True, "top.finetuning_type": "full"}, refused=r"`use_badam` .*the frozen towers' too"
    ),
    "page, predictions": Page(
        values={"eval.dataset": ["sft"], "eval.max_samples": "2", "eval.max_new_tokens": 4},
        files=("generated_predictions.jsonl",),
    ),
}
