"""The host's other options of training with this model; see ``tests/options/table.py``."""

from __future__ import annotations

from tests.goldens import SFT
from tests.options.option import (
    DAMAGED,
    LANGUAGE,
    LORA,
    NOT_FINITE,
    PROJECTOR,
    QUANTISED,
    RUNS,
    TOWERS,
    WIDE,
    Option,
    runs,
)

FREEZE = {"finetuning_type": "freeze", "freeze_trainable_layers": 1}
TOKENS = {"tokenized_path": f"{RUNS}/tokens"}
PREDICTIONS = ("generated_predictions.jsonl",)
PREDICTED = {
    "do_train": False,
    "do_predict": True,
    "predict_with_generate": True,
    "eval_dataset": "sft",
    "max_samples": 2,
    "max_new_tokens": 4,
    "per_device_eval_batch_size": 2,
}


def _lacks(package: str, stage: str, values: dict[str, object], long: bool = False) -> Option:
    """The host asks for a package that is not installed here."""
    return Option(stage, values, refused=rf"To fix: run `pip install {package}", by_host=True, long=long)


MORE_TRAININGS: dict[str, Option] = {
    # --- what is trained
    "freeze, first layers": runs("sft", {**FREEZE, "freeze_trainable_layers": -1}, trained=LANGUAGE | PROJECTOR),
    "freeze, no layers": runs("sft", {**FREEZE, "freeze_trainable_layers": 0}, trained=PROJECTOR),
    "freeze_trainable_modules": runs(
        "sft",
        {**FREEZE, "freeze_trainable_modules": "self_attn", "freeze_multi_modal_projector": True},
        trained=LANGUAGE,
    ),
    "freeze_trainable_modules: misspelt": Option(
        "sft",
        {**FREEZE, "freeze_trainable_modules": "attention"},
        refused=r"Module attention is not found, please choose from .*self_attn",
        by_host=True,
        long=True,
    ),
    "freeze_extra_modules": runs(
        "sft",
        {**FREEZE, "freeze_extra_modules": "lm_head", "freeze_multi_modal_projector": True},
        trained=LANGUAGE,
        later_steps="other",
    ),
    "freeze_extra_modules: multi_modal_projector": Option(
        "sft",
        {**FREEZE, "freeze_extra_modules": "multi_modal_projector"},
        refused=r"set `freeze_multi_modal_projector: false`",
    ),
    "use_llama_pro": runs("sft", {**FREEZE, "use_llama_pro": True}, trained=LANGUAGE | PROJECTOR),
    "use_llama_pro, full": Option(
        "sft", {"use_llama_pro": True}, refused=r"`use_llama_pro` is only valid for Freeze or LoRA", by_host=True
    ),
    "use_llama_pro, lora": Option(
        "sft", {**LORA, "use_llama_pro": True}, refused=r"`use_llama_pro` with .*use `finetuning_type: freeze`"
    ),
    "train_from_scratch": runs("sft", {"train_from_scratch": True}, trained=TOWERS | LANGUAGE | PROJECTOR),
    "pissa_convert": runs(
        "sft", {**LORA, "pissa_init": True, "pissa_convert": True}, files=("pissa_converted/adapter_model.safetensors",)
    ),
    "pissa, dpo": Option("dpo", {**LORA, "pissa_init": True}, refused=r"Cannot use PiSSA for current", by_host=True),
    "pissa, 4 bits": Option(
        "sft", {**QUANTISED, "pissa_init": True}, refused=r"initialize PiSSA for a quantized model", by_host=True
    ),
    "create_new_adapter without an adapter": runs("dpo", {**LORA, "create_new_adapter": True}, first_loss=0.693147),
    "adapter_folder alone": Option(
        "sft", {**LORA, "adapter_folder": "x"}, refused=r"`adapter_folder: x` has no effect without `adapter_name_or_p"
    ),
    "adapter, full": Option(
        "sft", {"adapter_name_or_path": "saves/sft"}, refused=r"only valid for the LoRA method", by_host=True
    ),
    "a checkpoint without some of its tensors": Option(
        "sft", {"model_name_or_path": DAMAGED}, refused=r"keys are missing .*temporal"
    ),
    "weights that are not finite": Option(
        "sft", {"model_name_or_path": NOT_FINITE}, refused=r"not_finite, found NaN or infinity in lm_head\.weight"
    ),
    "a reference that is not finite": Option(
        "dpo", {"ref_model": NOT_FINITE}, refused=r"not_finite, found NaN or infinity in lm_head\.weight"
    ),
    # --- the reference
    "ref_model, lora": runs("dpo", {**LORA, "ref_model": str(SFT)}, first_loss=0.693147, trained=LANGUAGE),
    "ref_model: no folder": Option(
        "dpo", {"ref_model": "/nowhere/model"}, refused=r"`ref_model: /nowhere/model` is not a folder on this machine"
    ),
    "ref_model_quantization_bit": runs("dpo", {"ref_model": WIDE, "ref_model_quantization_bit": 4}, trained=LANGUAGE),
    "ref_model_quantization_bit alone": Option(
        "dpo", {"ref_model_quantization_bit": 4}, refused=r"`ref_model_quantization_bit: 4` has no effect without"
    ),
    # --- bits
    "quantization_bit: 8": runs("sft", {**QUANTISED, "quantization_bit": 8}, trained=LANGUAGE | PROJECTOR),
    "quantization_bit: 5": Option(
        "sft", {**QUANTISED, "quantization_bit": 5}, refused=r"only accepts 4-bit or 8-bit", by_host=True, long=True
    ),
    "quantization_bit, full": Option(
        "sft", {"quantization_bit": 4}, refused=r"only compatible with the LoRA or OFT method", by_host=True
    ),
    "quantization_type: fp4": runs("sft", {**QUANTISED, "quantization_type": "fp4"}, trained=LANGUAGE | PROJECTOR),
    "quantization_method: hqq": _lacks("hqq", "sft", {**QUANTISED, "quantization_method": "hqq"}, long=True),
    "quantization_method: eetq": _lacks(
        "eetq", "sft", {**LORA, "quantization_bit": 8, "quantization_method": "eetq"}, long=True
    ),
    "quantization_device_map": Option(
        "sft",
        {**QUANTISED, "quantization_device_map": "auto"},
        refused=r"Cannot use device map for quantized models in training",
        by_host=True,
    ),
    "fp16": runs("sft", {"fp16": True}, trained=LANGUAGE | PROJECTOR),
    "pure_bf16 without a GPU": Option(
        "sft", {"pure_bf16": True}, refused=r"This device does not support `pure_bf16`", by_host=True
    ),
    "fp8 without a GPU": Option("sft", {"fp8": True}, refused=r"`fp8: true` needs a GPU"),
    # --- ways to compute
    "use_unsloth": Option("sft", {**LORA, "use_unsloth": True}, refused=r"needs a model that unsloth knows"),
    "enable_liger_kernel": Option("sft", {"enable_liger_kernel": True}, refused=r"no liger kernels for this model"),
    "use_kt": Option("sft", {**LORA, "use_kt": True}, refused=r"`use_kt` computes the experts"),
    "kt_weight_path": Option("sft", {"kt_weight_path": "x"}, refused=r"`kt_weight_path` is for an engine that"),
    "use_mca": Option(
        "sft", {"use_mca": True}, refused=r"`use_mca` computes in Megatron.* silently unless `USE_MCA=1`"
    ),
    "ray_num_workers": Option("sft", {"ray_num_workers": 4}, refused=r"`ray_num_workers: 4` has no effect unless"),
    "fp8_enable_fsdp_float8_all_gather": Option(
        "sft", {"fp8_enable_fsdp_float8_all_gather": True}, refused=r"means to turn `fp8` on with it, and does not"
    ),
    "remove_unused_columns": Option(
        "sft", {"remove_unused_columns": True}, refused=r"`remove_unused_columns: true` has no effect"
    ),
    "remove_unused_columns: false": runs("sft", {"remove_unused_columns": False}, later_steps="same"),
    "use_v1_kernels": runs("sft", {"use_v1_kernels": True}, says=r"future feature about kernels", later_steps="same"),
    "mixture_of_depths": Option("sft", {"mixture_of_depths": "convert"}, refused=r"`mixture_of_depths` is made for"),
    "use_hyper_parallel": Option("sft", {"use_hyper_parallel": True}, refused=r"`use_hyper_parallel` .*ZeRO and FSDP2"),
    "moe_aux_loss_coef": Option("sft", {"moe_aux_loss_coef": 0.1}, refused=r"has no experts to choose from"),
    "infer_backend: vllm": Option("sft", {"infer_backend": "vllm"}, refused=r"Expected `infer_backend: huggingface`"),
    "flash_attn: fa3": Option("sft", {"flash_attn": "fa3"}, refused=r"to be auto, sdpa, fa2 or disabled.* got 'fa3'"),
    "flash_attn: fa2": runs("sft", {"flash_attn": "fa2"}, says=r"FlashAttention-2 is not installed"),
    "shift_attn": runs("sft", {"shift_attn": True}, says=r"does not support shift short attention", later_steps="same"),
    "use_galore": _lacks("galore_torch", "sft", {"use_galore": True}),
    "use_apollo": _lacks("apollo_torch", "sft", {"use_apollo": True}),
    "use_swanlab": _lacks("swanlab", "sft", {"use_swanlab": True}),
    # --- the tokenizer and the conversation
    "use_fast_tokenizer: false": runs("sft", {"use_fast_tokenizer": False}, later_steps="same"),
    "split_special_tokens": Option("sft", {"split_special_tokens": True}, refused=r"every turn but the first"),
    "tool_format": Option("sft", {"tool_format": "qwen"}, refused=r"`tool_format` .*without function calls"),
    "enable_thinking: false": runs("sft", {"enable_thinking": False}, later_steps="same"),
    "template of another model": Option(
        "sft", {"template": "vicuna"}, refused=r"Expected `template: llava_hound`", long=True
    ),
    "ignore_pad_token_for_loss: false": runs("sft", {"ignore_pad_token_for_loss": False}, first_loss=10.722979),
    # --- losses
    "eaft_alpha": runs("sft", {"use_eaft_loss": True, "eaft_alpha": 2.0}, first_loss=6.806191),
    # --- steps
    "max_grad_norm: null": Option(
        "sft", {"max_grad_norm": None}, refused=r"max_grad_norm`: expected a number, got null"
    ),
    "warmup_steps, constant": Option("sft", {"warmup_steps": 1}, refused=r"Set `lr_scheduler_type: constant_with_warm"),
    "max_grad_norm: 0": runs("sft", {"max_grad_norm": 0}, later_steps="same"),
    "max_grad_norm": runs("sft", {"max_grad_norm": 1e-9}, later_steps="other"),
    "dataloader_prefetch_factor": runs(
        "sft", {"dataloader_num_workers": 1, "dataloader_prefetch_factor": 1}, later_steps="same"
    ),
    # --- options of inference in a training
    "infer_dtype": runs("sft", {"infer_dtype": "bfloat16"}, later_steps="same"),
    "use_kv_cache: false": runs("sft", {"use_kv_cache": False}, later_steps="same"),
    # --- data
    "overwrite_cache": runs("sft", {"overwrite_cache": True}, later_steps="same"),
    "tokenized_path": runs("sft", TOKENS, later_steps="same", says=r"Tokenized dataset is saved"),
    "tokenized_path, again": runs("sft", TOKENS, later_steps="same", says=r"Loaded tokenized dataset"),
    "rows without clips": runs("sft", {"dataset": "text"}, trained=LANGUAGE),
    "rows with and without clips": runs("sft", {"dataset": "text,sft", "max_steps": 3}, trained=LANGUAGE | PROJECTOR),
    "pt on text": runs("pt", {"dataset": "text", "packing": False}, trained=LANGUAGE),
    "pt on text, packed": Option("pt", {"dataset": "text", "packing": True}, refused=r"Set `packing: false`"),
    # --- output
    "print_param_status": runs("sft", {"print_param_status": True}, says=r"name: .*image_tower.*trainable: False"),
    "include_effective_tokens_per_second": runs(
        "sft", {"include_effective_tokens_per_second": True}, says=r"effective_tokens_per_sec += +\d"
    ),
    "report_to: tensorboard": Option("sft", {"report_to": "tensorboard"}, refused=r"Run: pip install tensorboard"),
    # --- predictions
    "do_predict": runs("sft", PREDICTED, files=PREDICTIONS, says=r"predict_bleu-4"),
    "do_predict, 4 bits": runs("sft", {**PREDICTED, **QUANTISED, "model_name_or_path": WIDE}, files=PREDICTIONS),
    "do_predict without predict_with_generate": Option(
        "sft", {**PREDICTED, "predict_with_generate": False}, refused=r"enable `predict_with_generate`", by_host=True
    ),
    "do_predict, num_beams": runs("sft", {**PREDICTED, "num_beams": 2}, files=PREDICTIONS),
    "do_predict, eval_num_beams": Option(
        "sft", {**PREDICTED, "eval_num_beams": 2}, refused=r"Expected `eval_num_beams` .* Predictions take `num_beams`"
    ),
    "do_predict, generation_num_beams": Option(
        "sft", {**PREDICTED, "generation_num_beams": 2}, refused=r"Predictions take `num_beams`"
    ),
    "do_predict, generation_max_length": Option(
        "sft", {**PREDICTED, "generation_max_length": 9}, refused=r"Predictions take `max_new_tokens`"
    ),
    "do_predict, rejected answers": Option(
        "sft", {**PREDICTED, "eval_dataset": "kto"}, refused=r"a rejected answer .*`label`: expected a good answer"
    ),
    "do_predict, dpo": Option(
        "dpo", {**PREDICTED, "eval_dataset": "dpo"}, refused=r"cannot be set as True except SFT", by_host=True
    ),
    "predict_with_generate with compute_accuracy": Option(
        "sft", {**PREDICTED, "compute_accuracy": True}, refused=r"Cannot use .* together", by_host=True
    ),
    "do_eval alone": runs("sft", {"do_train": False, "do_eval": True, "eval_dataset": "sft"}, says=r"eval_loss"),
    # --- other stages
    "rm, lora": runs("rm", {**LORA, "dataset": "dpo"}, files=("value_head.safetensors",)),
}
