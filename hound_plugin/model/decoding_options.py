"""Ways of decoding that transformers' ``generate`` offers: those that cannot show a clip are refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import GenerationConfig

from hound_plugin.errors import SettingsError

MEDIA = ("pixel_values_images", "pixel_values_videos")
_HUB_CODE = {
    "penalty_alpha": "contrastive search",
    "dola_layers": "DoLa",
    "num_beam_groups": "beams in groups",
    "constraints": "beams with constraints",
    "force_words_ids": "beams with constraints",
}
"""Options of decoding that transformers loads as code from the hub, and their names; 0 and 1 switch them off."""
_NEVER = {
    "assistant_early_exit": "its first layers alone are no model of their own. Use `prompt_lookup_num_tokens`",
    "use_mtp": "it has no heads that predict several tokens. Use `prompt_lookup_num_tokens`",
    "speculation_type": "it is for assistants of another kind. Use `prompt_lookup_num_tokens`",
    "token_healing": "it encodes the prompt again, without the visual tokens. Leave it out",
}
_WITHOUT_MEDIA = {
    "assistant_model": "an assistant gets no clip and no image. Use `prompt_lookup_num_tokens`",
    "prefill_chunk_size": "clips and images are read in one prefill. Leave it out",
}


def check_decoding(config: GenerationConfig, given: Mapping[str, Any], device: torch.device) -> None:
    """Refuse options that change the way of decoding and do not work with this model.

    Args:
        config: of the call, or the model's own.
        given: the arguments of ``generate``, which come first; with media or without.
        device: of the model.

    Raises:
        SettingsError: the first such option, with what to do.
    """

    def value(name: str) -> Any:
        return given[name] if name in given else getattr(config, name, None)

    shows = any(given.get(name) is not None for name in MEDIA)
    for name, reason in {**_NEVER, **(_WITHOUT_MEDIA if shows else {})}.items():
        if value(name) not in (None, False):
            raise SettingsError(f"{name}: expected none with LLaVA-Hound: {reason}.", name)
    for name, way in _HUB_CODE.items():
        if value(name) not in (None, 0, 1) and not callable(given.get("custom_generate")):
            raise SettingsError(
                f"{name}: expected none, got {value(name)!r}: transformers loads {way} as code from the hub, which is "
                "not run here. Use plain beams (`num_beams`), sampling, or greedy decoding.",
                name,
            )
    if isinstance(given.get("custom_generate"), str):
        raise SettingsError(
            f"custom_generate: expected a function, got {given['custom_generate']!r}: code from the hub or a folder is "
            "not run here. Import the function, and give it.",
            "custom_generate",
        )
    cache = value("cache_implementation")
    if str(cache).startswith("offloaded") and device.type == "cpu":
        raise SettingsError(
            f"cache_implementation: expected one for the CPU, got {cache!r}, which moves the cache from a GPU to the "
            "CPU. Leave it out.",
            "cache_implementation",
        )


class LookupInText:
    """transformers' candidates of prompt lookup, looked up after the last visual token.

    Their placeholders have ids above the vocabulary, which are no candidates. There are no more candidates than leave
    room for the token after them: the generator's own may lead beyond ``max_new_tokens``.

    Args:
        generator: transformers' ``PromptLookupCandidateGenerator``.
        vocab_size: of the language model.
    """

    def __init__(self, generator: Any, vocab_size: int) -> None:
        self._generator = generator
        self._vocab_size = vocab_size
        self._max_length = generator.max_length

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generator, name)

    def get_candidates(self, input_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """``input_ids`` [1, S] with candidates after them."""
        places = (input_ids[0] >= self._vocab_size).nonzero()
        start = int(places[-1]) + 1 if len(places) else 0
        if start == input_ids.shape[1]:
            return input_ids, None
        self._generator.max_length = self._max_length - start
        found, logits = self._generator.get_candidates(input_ids[:, start:])
        room = max(self._max_length - 1, input_ids.shape[1])
        return torch.cat((input_ids[:, :start], found), dim=1)[:, :room], logits
