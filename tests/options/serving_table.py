"""Exports and answers with this model: what each option must do, or how it is refused; see ``test_options``."""

from __future__ import annotations

from typing import Any

from tests.goldens import DPO
from tests.options.option import (
    DAMAGED,
    EXPORTS,
    LANGUAGE,
    LORA,
    NOT_FINITE,
    NOT_FINITE_ADAPTER,
    OWN_SYSTEM,
    PROJECTOR,
    QUANTISED,
    RUNS,
    WIDE,
    Chat,
    Export,
    Option,
    Row,
)

_QUICKLY = {"learning_rate": 1e-2}
LEARNT: dict[str, Row] = {
    "learnt": Option("sft", {**LORA, **_QUICKLY}),
    "learnt_in_4_bits": Option("sft", {**QUANTISED, **_QUICKLY, "model_name_or_path": WIDE}),
    "learnt_with_system": Option("sft", {**LORA, **_QUICKLY, "default_system": OWN_SYSTEM}),
}
"""Trainings whose adapters the rows below take; their names are their folders'."""

ADAPTER = {"adapter_name_or_path": f"{RUNS}/learnt"}
ADAPTER_4 = {"adapter_name_or_path": f"{RUNS}/learnt_in_4_bits", "model_name_or_path": WIDE}
ADAPTER_SYSTEM = {"adapter_name_or_path": f"{RUNS}/learnt_with_system"}
SAMPLED = {"do_sample": True, "temperature": 1.9, "top_p": 1.0, "top_k": 0}
WHOLE = ("model.safetensors", "config.json", "processor_config.json", "tokenizer.json", "!adapter_config.json")


def _exported(name: str, **more: Any) -> dict[str, Any]:
    return {"model_name_or_path": f"{EXPORTS}/{name}", **more}


EXPORTED: dict[str, Row] = {
    "exported": Export({}, dtype="float32", changed=frozenset(), files=WHOLE, long=True),
    "exported_adapter": Export(ADAPTER, dtype="float32", changed=LANGUAGE | PROJECTOR, files=WHOLE),
    "exported_4_bits": Export(ADAPTER_4, dtype="float32", files=WHOLE, long=True),
    "exported_system": Export(ADAPTER_SYSTEM, system=OWN_SYSTEM, long=True),
    "exported_given_system": Export({"default_system": "Given."}, system="Given.", changed=frozenset()),
    "exported_in_4_bits": Export({"model_name_or_path": WIDE, "quantization_bit": 4}, long=True),
    "export, bfloat16": Export({"infer_dtype": "bfloat16"}, dtype="bfloat16", long=True),
    "export, float16": Export({"infer_dtype": "float16"}, dtype="float16", long=True),
    "export_size: 1": Export({"export_size": 1}, weights_of="exported", files=WHOLE, long=True),
    "export_size: 0": Export({"export_size": 0}, refused=r"Expected `export_size` to be at least 1 .* got 0"),
    "export_device: auto": Export({"export_device": "auto"}, weights_of="exported", long=True),
    "export, full": Export({"finetuning_type": "full"}, weights_of="exported", long=True),
    "export again": Export({"export_dir": f"{EXPORTS}/exported"}, weights_of="exported", files=WHOLE, long=True),
    "export onto the model": Export(
        {"model_name_or_path": WIDE, "export_dir": WIDE}, refused=r"is the folder of `model_name_or_path`"
    ),
    "export onto the adapter": Export(
        {**ADAPTER, "export_dir": f"{RUNS}/learnt"}, refused=r"has an adapter in it, which transformers would apply"
    ),
    "export, adapter on 4 bits": Export(
        {**ADAPTER_4, "quantization_bit": 4}, refused=r"`quantization_bit: 4` leaves weights that no adapter"
    ),
    "export, adapter of another model": Export(
        {**ADAPTER, "model_name_or_path": str(DPO)}, refused=r"was trained on .*, whose weights differ"
    ),
    "export, a checkpoint without some of its tensors": Export(
        {"model_name_or_path": DAMAGED}, refused=r"keys are missing .*temporal", long=True
    ),
    "export, weights that are not finite": Export(
        {"model_name_or_path": NOT_FINITE}, refused=r"not_finite, found NaN or infinity in lm_head\.weight"
    ),
    "export_quantization_bit": Export(
        {"export_quantization_bit": 4, "export_quantization_dataset": "data/c4_demo.jsonl"},
        refused=r"`export_quantization_bit` makes a GPTQ model",
    ),
    "export, export_legacy_format": Export(
        {"export_legacy_format": True}, refused=r"`export_legacy_format: true` has no effect"
    ),
    "export, template of another model": Export(
        {"template": "vicuna"}, refused=r"Expected `template: llava_hound` for a LLaVA-Hound model", long=True
    ),
    "export_hub_model_id": Export(
        {"export_hub_model_id": "owner/name"}, refused=r"OfflineModeIsEnabled|HF_HUB_OFFLINE", by_host=True, long=True
    ),
}

CHATS: dict[str, Row] = {
    "chat": Chat({}, dtype="float32", tokens=8),
    # --- weights
    "infer_dtype: auto": Chat({"infer_dtype": "auto"}, dtype="float32", same="chat", long=True),
    "infer_dtype: bfloat16": Chat({"infer_dtype": "bfloat16"}, dtype="bfloat16"),
    "infer_dtype: float16": Chat({"infer_dtype": "float16"}, dtype="float16", long=True),
    "chat, adapter": Chat(ADAPTER, other="chat"),
    "chat, exported adapter": Chat(_exported("exported_adapter"), same="chat, adapter"),
    "chat, adapter of 4 bits": Chat(ADAPTER_4, other="chat", long=True),
    "chat, exported adapter of 4 bits": Chat(_exported("exported_4_bits"), same="chat, adapter of 4 bits", long=True),
    "chat, adapter on 4 bits": Chat({**ADAPTER_4, "quantization_bit": 4}, other="chat, 4 bits", long=True),
    "chat, 4 bits": Chat({"model_name_or_path": WIDE, "quantization_bit": 4}, tokens=8, long=True),
    "chat, exported in 4 bits": Chat(_exported("exported_in_4_bits"), same="chat, 4 bits", long=True),
    "chat, 8 bits": Chat({"quantization_bit": 8}, tokens=8, long=True),
    "chat, two adapters": Chat(
        {"adapter_name_or_path": f"{RUNS}/learnt_with_system,{RUNS}/learnt"}, other="chat, adapter", long=True
    ),
    "chat, adapter of another model": Chat(
        {**ADAPTER, "model_name_or_path": str(DPO)}, refused=r"was trained on .*, whose weights differ"
    ),
    "chat, adapter as the model": Chat(
        {"model_name_or_path": f"{RUNS}/learnt"}, refused=r"has only an adapter. Set `adapter_name_or_path"
    ),
    "chat, a checkpoint without some of its tensors": Chat(
        {"model_name_or_path": DAMAGED}, refused=r"keys are missing .*temporal", long=True
    ),
    "chat, weights that are not finite": Chat(
        {"model_name_or_path": NOT_FINITE}, refused=r"not_finite, found NaN or infinity in lm_head\.weight"
    ),
    "chat, weights that are not finite, 4 bits": Chat(
        {"model_name_or_path": NOT_FINITE, "quantization_bit": 4}, refused=r"found NaN or infinity in lm_head\.weight"
    ),
    "chat, an adapter that is not finite": Chat(
        {**ADAPTER, "adapter_name_or_path": NOT_FINITE_ADAPTER}, refused=r"in the adapter .*, found NaN or infinity in "
    ),
    # --- the system prompt
    "chat, adapter's system": Chat(ADAPTER_SYSTEM, other="chat", long=True),
    "chat, exported system": Chat(_exported("exported_system"), same="chat, adapter's system", long=True),
    "chat, default_system": Chat({"default_system": "Given."}, other="chat"),
    "chat, exported given system": Chat(_exported("exported_given_system"), same="chat, default_system"),
    "chat, system of the question": Chat({}, asked={"system": "Given."}, same="chat, default_system", long=True),
    "chat, default_system with a placeholder": Chat(
        {"default_system": "See <video>"}, refused=r"Expected a `default_system` without <image> and"
    ),
    # --- engines and ways to compute
    "chat, infer_backend: vllm": Chat({"infer_backend": "vllm"}, refused=r"`infer_backend: huggingface` .*'vllm'"),
    "chat, vllm_maxlen": Chat({"vllm_maxlen": 512}, refused=r"`vllm_maxlen` is for an engine that a LLaVA-Hound model"),
    "chat, sglang_tp_size": Chat({"sglang_tp_size": 2}, refused=r"`sglang_tp_size` is for an engine"),
    "chat, infer_backend: sglang": Chat({"infer_backend": "sglang"}, refused=r"`infer_backend: hug.*'sglang'"),
    "chat, infer_backend: ktransformers": Chat(
        {"infer_backend": "ktransformers"}, refused=r"`infer_backend: hug.*'ktransformers'"
    ),
    "chat, flash_attn: sdpa": Chat({"flash_attn": "sdpa"}, same="chat", long=True),
    "chat, flash_attn: disabled": Chat({"flash_attn": "disabled"}, same="chat", long=True),
    "chat, flash_attn: fa2": Chat({"flash_attn": "fa2"}, says=r"FlashAttention-2 is not installed", long=True),
    "chat, flash_attn: fa3": Chat({"flash_attn": "fa3"}, refused=r"auto, sdpa, fa2 or disabled"),
    "chat, rope_scaling": Chat({"rope_scaling": "dynamic"}, refused=r"`rope_scaling: dynamic` has no effect"),
    "chat, use_kv_cache: false": Chat({"use_kv_cache": False}, same="chat", long=True),
    "chat, use_unsloth": Chat({"use_unsloth": True}, refused=r"needs a model that unsloth knows"),
    "chat, enable_liger_kernel": Chat({"enable_liger_kernel": True}, refused=r"no liger kernels for this model"),
    "chat, stage: rm": Chat({"stage": "rm"}, refused=r"does not support `chat`", by_host=True, long=True),
    # --- conversations
    "chat, enable_thinking: false": Chat({"enable_thinking": False}, same="chat", long=True),
    "chat, tool_format": Chat({"tool_format": "qwen"}, refused=r"`tool_format` .*without function calls"),
    "chat, cutoff_len": Chat({"cutoff_len": 10}, same="chat", long=True),
    "chat, video_fps": Chat({"video_fps": 1.0}, refused=r"`video_fps` to be left at 2.0.*hound\.frame_sampling"),
    "chat, num_frames": Chat({"hound": {"num_frames": 16}}, other="chat", long=True),
    # --- how tokens are chosen
    "temperature": Chat(SAMPLED, other="chat"),
    "temperature of the question": Chat({}, asked={"temperature": 1.9, "top_p": 1.0}, other="chat", long=True),
    "temperature: 0": Chat({**SAMPLED, "temperature": 0.0}, same="chat"),
    "temperature without do_sample": Chat({"temperature": 1.9}, same="chat", long=True),
    "temperature: -1": Chat({**SAMPLED, "temperature": -1.0}, refused=r"Expected `temperature` to be at least 0"),
    "top_p": Chat({**SAMPLED, "top_p": 1e-6}, same="chat", long=True),
    "top_p: 2": Chat({**SAMPLED, "top_p": 2.0}, refused=r"Expected `top_p` to be from 0 to 1, got 2\.0"),
    "top_k": Chat({**SAMPLED, "top_k": 1}, same="chat", long=True),
    "top_k: -1": Chat({**SAMPLED, "top_k": -1}, refused=r"Expected `top_k` to be at least 0, got -1"),
    "repetition_penalty": Chat({"repetition_penalty": 5.0}, other="chat"),
    "repetition_penalty: 0": Chat({"repetition_penalty": 0.0}, refused=r"`repetition_penalty` to be above 0"),
    "num_beams": Chat({"num_beams": 3, "max_new_tokens": 40}, other="skip_special_tokens", long=True),
    "num_beams: 0": Chat({"num_beams": 0}, refused=r"Expected `num_beams` to be at least 1, got 0"),
    "length_penalty without beams": Chat({"length_penalty": 5.0}, same="chat", long=True),
    "max_new_tokens": Chat({"max_new_tokens": 3}, tokens=3),
    "max_length": Chat({"max_new_tokens": -1, "max_length": 460}, tokens=5, long=True),
    "max_length within the prompt": Chat(
        {"max_new_tokens": -1, "max_length": 100}, refused=r"`max_length` allows 100 with the answer", long=True
    ),
    "skip_special_tokens": Chat({"skip_special_tokens": False, "max_new_tokens": 40}, tokens=40, long=True),
    "an option that does not exist": Chat(
        {"num_frame": 8}, refused=r"not used by the HfArgumentParser: \['num_frame'\]", by_host=True
    ),
}
