"""The entry point ``vllm.general_plugins``: makes LLaVA-Hound known in every process that vLLM starts.

Only names are registered; the modules are imported by vLLM when such a model is loaded.
"""

from __future__ import annotations

from typing import Any

import torch

from hound_plugin.errors import SettingsError

ARCHITECTURE = "LlavaHoundForConditionalGeneration"
MODE = "llava_hound"
"""vLLM's name of our tokenizer and renderer."""
_HERE = "hound_plugin.vllm"


def register() -> None:
    """Register model, tokenizer, renderer, video loader and media connector; may be called any number of times."""
    from vllm.model_executor.models.registry import ModelRegistry

    if ARCHITECTURE in ModelRegistry.get_supported_archs():
        return
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP
    from vllm.renderers.registry import RENDERER_REGISTRY
    from vllm.tokenizers.registry import TokenizerRegistry

    import hound_plugin.model.configuration
    import hound_plugin.vllm.media  # noqa: F401  (loader and connector)

    ModelRegistry.register_model(ARCHITECTURE, f"{_HERE}.model:LlavaHoundForVllm")
    TokenizerRegistry.register(MODE, f"{_HERE}.tokenizer", "PlaceholderTokenizer")
    RENDERER_REGISTRY.register(MODE, f"{_HERE}.renderer", "LlavaHoundRenderer")
    MODELS_CONFIG_MAP[ARCHITECTURE] = _ModelSettings


class _ModelSettings:
    """What vLLM calls with the configuration of such a model."""

    @staticmethod
    def verify_and_update_model_config(model_config: Any) -> None:
        """Choose our tokenizer and renderer, unless others are named, and count the placeholders to the vocabulary.

        Their ids lie above the model's. vLLM looks up log-probabilities and penalties of a prompt's tokens by their
        ids, and its engine would die of one that is outside; so the head gets a column for them, which is never chosen.
        """
        if model_config.tokenizer_mode == "auto":
            model_config.tokenizer_mode = MODE
        config = model_config.hf_config
        if not hasattr(config, "answer_vocab_size"):
            config.answer_vocab_size = config.text_config.vocab_size
            config.text_config.vocab_size = max(
                config.text_config.vocab_size, config.image_token_id + 1, config.video_token_id + 1
            )
            model_config.model_arch_config = model_config.get_model_arch_config()

    @staticmethod
    def verify_and_update_config(vllm_config: Any) -> None:
        """Refuse what vLLM or the model cannot do; on a CPU, set how prompts are worked through.

        There, whole prompts are taken at each step: vLLM draws a token after each part of a prompt and rewinds the
        request's generator, which generators of a CPU cannot do, and a request with a seed would end the engine. And
        prompts are shared in blocks of 32 tokens unless told otherwise: vLLM's blocks on a CPU have 128, and what a
        prompt has beyond a multiple of that is computed again for each answer, which is a third of a short prompt.

        Raises:
            SettingsError: the feed-forward layers cannot be split evenly; or vLLM cannot run this on a CPU.
        """
        parts = vllm_config.parallel_config.tensor_parallel_size
        width = vllm_config.model_config.hf_config.text_config.intermediate_size
        if width % parts:
            raise SettingsError(
                f"tensor_parallel_size: expected a divisor of {width}, the model's intermediate_size, got {parts}.",
                "tensor_parallel_size",
            )
        from vllm.platforms import current_platform

        if current_platform.is_cpu():
            _check_weights(vllm_config.model_config)
            if vllm_config.parallel_config.pipeline_parallel_size > 1:
                raise SettingsError(
                    "pipeline_parallel_size: expected 1: vLLM's engine for CPUs ends at its first step with more, for "
                    "every model. Set tensor_parallel_size instead.",
                    "pipeline_parallel_size",
                )
            scheduler = vllm_config.scheduler_config
            scheduler.enable_chunked_prefill = False
            most = max(scheduler.max_num_batched_tokens, vllm_config.model_config.max_model_len)
            scheduler.max_num_batched_tokens = scheduler.max_num_encoder_input_tokens = most
            scheduler.encoder_cache_size = most
            cache = vllm_config.cache_config
            if not cache.user_specified_block_size:
                cache.block_size, cache.user_specified_block_size = 32, True


def _check_weights(model_config: Any) -> None:
    """Refuse weights of which vLLM's CPU build notices only at its first step that it cannot compute with them."""
    settings = getattr(model_config.hf_config, "quantization_config", None) or {}
    if settings.get("format") == "pack-quantized" and model_config.dtype == torch.float32:
        raise SettingsError(
            "dtype: expected bfloat16 or float16, got float32, for which vLLM's CPU build has no code where "
            "weights are packed.",
            "dtype",
        )
    if str(model_config.quantization).startswith("fp8") and not torch.cpu._is_amx_tile_supported():
        raise SettingsError(
            f"quantization: expected int8_per_channel_weight_only, or a checkpoint of 4 or 8 bits, got "
            f"{model_config.quantization}, for which vLLM's CPU build needs a processor with AMX.",
            "quantization",
        )
