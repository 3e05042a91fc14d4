"""Every option of ``GenerationConfig`` with a clip: it works as with text, or it is refused by name."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, SynthIDTextWatermarkingConfig, WatermarkingConfig
from transformers.generation.configuration_utils import ALL_CACHE_IMPLEMENTATIONS

import hound_plugin
from hound_plugin.errors import SettingsError
from hound_plugin.model.inference import HoundModel
from tests.goldens import ROOT, SFT

LONG = str(ROOT / "media" / "clip_long.mp4")
NEW = 20
BEAMS = {"num_beams": 2}


def _is_known(name: str) -> bool:
    return hasattr(GenerationConfig(), name)


# The answer is that of greedy decoding.
SAME: dict[str, dict[str, Any]] = {
    "prompt_lookup_num_tokens": {"prompt_lookup_num_tokens": 3},
    "max_matching_ngram_size": {"prompt_lookup_num_tokens": 2, "max_matching_ngram_size": 1},
    "use_cache": {"use_cache": False},
    "low_memory": {"low_memory": True},
    "stop_strings": {"stop_strings": ["no such text"]},
    "top_k": {"do_sample": True, "top_k": 1},
    "renormalize_logits": {"renormalize_logits": True},
    "remove_invalid_values": {"remove_invalid_values": True},
    "max_time": {"max_time": 1000.0},
    "num_return_sequences": {"num_return_sequences": 1},
    "disable_compile": {"disable_compile": True},
    **(
        {"max_cache_len": {"cache_implementation": "static", "max_cache_len": 8192}}
        if _is_known("max_cache_len")
        else {}
    ),
    **{
        f"cache_implementation {name}": {"cache_implementation": name}
        for name in ALL_CACHE_IMPLEMENTATIONS
        if not name.startswith(("offloaded", "quantized"))
    },
}
# The answer may be another one; it is one, and always the same.
OTHER: dict[str, dict[str, Any]] = {
    "num_beams": BEAMS,
    "length_penalty": {**BEAMS, "length_penalty": 2.0},
    "early_stopping": {**BEAMS, "early_stopping": True},
    "guidance_scale": {"guidance_scale": 1.5},
    "repetition_penalty": {"repetition_penalty": 1.3},
    "encoder_repetition_penalty": {"encoder_repetition_penalty": 1.3},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 2},
    "encoder_no_repeat_ngram_size": {"encoder_no_repeat_ngram_size": 2},
    "bad_words_ids": {"bad_words_ids": [[7]]},
    "sequence_bias": {"sequence_bias": [[[7], -1.0]]},
    "suppress_tokens": {"suppress_tokens": [7]},
    "begin_suppress_tokens": {"begin_suppress_tokens": [7]},
    "forced_bos_token_id": {"forced_bos_token_id": 5},
    "forced_eos_token_id": {"forced_eos_token_id": 2},
    "exponential_decay_length_penalty": {"exponential_decay_length_penalty": (2, 1.1)},
    "min_new_tokens": {"min_new_tokens": 10},
    "min_length": {"min_length": 10},
    "watermarking_config": {"watermarking_config": WatermarkingConfig()},
    "watermarking_config SynthID": {"watermarking_config": SynthIDTextWatermarkingConfig(keys=[1, 2, 3], ngram_len=5)},
    **{name: {"do_sample": True, name: value} for name, value in {
        "temperature": 0.7, "top_p": 0.9, "min_p": 0.1, "top_h": 0.4, "typical_p": 0.9, "epsilon_cutoff": 0.001,
        "eta_cutoff": 0.001,
    }.items()},
}  # fmt: skip
REFUSED: dict[str, dict[str, Any]] = {
    "assistant_model": {"assistant_model": None},  # made in the test
    "assistant_early_exit": {"assistant_early_exit": 1},
    "use_mtp": {"use_mtp": True},
    "speculation_type": {"speculation_type": "dflash"},
    "token_healing": {"token_healing": True},
    "prefill_chunk_size": {"prefill_chunk_size": 16},
    "penalty_alpha": {"penalty_alpha": 0.6, "top_k": 4},
    "dola_layers": {"dola_layers": "low"},
    "num_beam_groups": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
    "constraints": {**BEAMS, "constraints": [1]},
    "force_words_ids": {**BEAMS, "force_words_ids": [[5]]},
    "custom_generate": {"custom_generate": "transformers-community/dola"},
    **{
        f"cache_implementation {name}": {"cache_implementation": name}
        for name in ALL_CACHE_IMPLEMENTATIONS
        if name.startswith("offloaded")
    },
}
# What these say is in others' rows, is only about an assistant or encoder, or does not change how tokens are chosen.
NOT_WAYS = {
    "assistant_confidence_threshold", "assistant_ensemble_weight", "assistant_lookbehind", "bos_token_id",
    "cache_config", "cache_implementation", "compile_config", "continuous_batching_config",
    "decoder_start_token_id", "diversity_penalty", "do_sample", "eos_token_id", "is_assistant", "max_length",
    "max_new_tokens", "num_assistant_tokens", "num_assistant_tokens_schedule", "output_attentions",
    "output_hidden_states", "output_logits", "output_scores", "pad_token_id", "return_dict_in_generate",
    "target_lookbehind", "transformers_version",
}  # fmt: skip


@pytest.fixture(scope="module")
def hound() -> HoundModel:
    return hound_plugin.load(str(SFT), device="cpu", dtype=torch.float32)


@pytest.fixture(scope="module")
def inputs(hound: HoundModel) -> dict[str, Any]:
    return hound._inputs("What moves here, and where, and what moves there?", LONG, None, None)


def answer(hound: HoundModel, inputs: dict[str, Any], **options: Any) -> list[int]:
    torch.manual_seed(0)
    options = {"do_sample": False, "max_new_tokens": NEW, "tokenizer": hound.processor.tokenizer, **options}
    output = hound.model.generate(**inputs, **options)
    return output[0, inputs["input_ids"].shape[1] :].tolist()


@pytest.fixture(scope="module")
def greedy(hound: HoundModel, inputs: dict[str, Any]) -> list[int]:
    return answer(hound, inputs)


def test_every_option_is_in_the_table() -> None:
    named = {name.partition(" ")[0] for name in (*SAME, *OTHER, *REFUSED)} | NOT_WAYS
    assert {name for name in GenerationConfig().to_dict() if not name.startswith("_")} <= named


@pytest.mark.parametrize("name", SAME)
def test_the_answer_is_that_of_greedy_decoding(
    name: str, hound: HoundModel, inputs: dict[str, Any], greedy: list[int]
) -> None:
    assert answer(hound, inputs, **SAME[name]) == greedy


@pytest.mark.parametrize("name", OTHER)
def test_there_is_an_answer_and_always_the_same(name: str, hound: HoundModel, inputs: dict[str, Any]) -> None:
    first = answer(hound, inputs, **copy.deepcopy(OTHER[name]))
    assert 0 < len(first) <= NEW
    assert max(first) < hound.model.config.text_config.vocab_size
    assert answer(hound, inputs, **copy.deepcopy(OTHER[name])) == first


@pytest.mark.parametrize("place", ["arguments", "config"])
@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_by_name(name: str, place: str, hound: HoundModel, inputs: dict[str, Any]) -> None:
    options, option = dict(REFUSED[name]), name.partition(" ")[0]
    if option == "assistant_model":
        options = {option: hound.model}
    if place == "config" and option not in ("assistant_model", "custom_generate"):
        options = {"generation_config": GenerationConfig(max_new_tokens=4, **options)}
    with pytest.raises(SettingsError, match=rf"^{option}: expected ") as caught:
        hound.model.generate(**inputs, **options)
    assert caught.value.key == option


def test_candidates_are_found_and_save_steps(hound: HoundModel, inputs: dict[str, Any]) -> None:
    """An answer that repeats itself takes fewer steps than tokens, and is the same."""
    cycle = [11, 12, 13]
    bias = [[[one, two], 50.0] for one, two in zip(cycle, [*cycle[1:], cycle[0]], strict=True)]
    options = {"sequence_bias": [[[11], 20.0], *bias]}
    expected = answer(hound, inputs, **copy.deepcopy(options))
    steps: list[int] = []
    hook = hound.model.register_forward_pre_hook(lambda *_: steps.append(1))
    try:
        assert answer(hound, inputs, prompt_lookup_num_tokens=4, **copy.deepcopy(options)) == expected
    finally:
        hook.remove()
    assert len(steps) < NEW / 2


def test_text_alone_takes_an_assistant(hound: HoundModel) -> None:
    text = hound._inputs("What moves here, and where?", None, None, None)
    expected = answer(hound, text)
    assert answer(hound, text, assistant_model=copy.deepcopy(hound.model)) == expected
    assert answer(hound, text, prompt_lookup_num_tokens=3) == expected
