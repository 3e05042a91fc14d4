"""The tokenizer as vLLM takes it, with the two placeholders above the model's vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer
from vllm.tokenizers.hf import get_cached_tokenizer

from hound_plugin.errors import damage_named
from hound_plugin.processing.prompt import add_placeholder_tokens


class PlaceholderTokenizer:
    """Loads it; what is returned is the checkpoint's own fast tokenizer."""

    @classmethod
    def from_pretrained(
        cls,
        path_or_repo_id: str | Path,
        *args: Any,
        trust_remote_code: bool = False,
        revision: str | None = None,
        download_dir: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """The tokenizer of a checkpoint of either layout; arguments as vLLM gives them.

        Raises:
            CheckpointError: its files are damaged, or it is not a fast tokenizer.
        """
        hub = {"revision": revision, "cache_dir": download_dir}
        for name in ("config", "tokenizer_mode", "mistral_format", "trust_remote_code"):
            kwargs.pop(name, None)
        with damage_named(path_or_repo_id, "config.json"):
            config = AutoConfig.from_pretrained(path_or_repo_id, trust_remote_code=False, **hub)
        with damage_named(path_or_repo_id, "tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(path_or_repo_id, *args, trust_remote_code=False, **hub, **kwargs)
        add_placeholder_tokens(tokenizer, config.text_config.vocab_size)
        return get_cached_tokenizer(tokenizer)
