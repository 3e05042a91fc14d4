"""The entry point ``vllm.general_plugins``: makes LLaVA-Hound known in every process that vLLM starts.

Only names are registered; the modules are imported by vLLM when such a model is loaded.
"""

from __future__ import annotations

from typing import Any

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
        """On a CPU, take whole prompts at each step, and share prompts in blocks of 32 tokens unless told otherwise.

        vLLM draws a token after each part of a prompt and rewinds the request's generator, which generators of a CPU
        cannot do: a request with a seed would end the engine. Its blocks on a CPU have 128 tokens: what a prompt has
        beyond a multiple of that is computed again for each answer, which is a third of a short prompt.
        """
        from vllm.platforms import current_platform

        if current_platform.is_cpu():
            scheduler = vllm_config.scheduler_config
            scheduler.enable_chunked_prefill = False
            most = max(scheduler.max_num_batched_tokens, vllm_config.model_config.max_model_len)
            scheduler.max_num_batched_tokens = scheduler.max_num_encoder_input_tokens = most
            scheduler.encoder_cache_size = most
            cache = vllm_config.cache_config
            if not cache.user_specified_block_size:
                cache.block_size, cache.user_specified_block_size = 32, True
