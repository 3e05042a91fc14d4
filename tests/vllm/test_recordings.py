"""vLLM against what our own path answered in the environment that trains: other torch, other transformers."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import pytest
import torch

from hound_plugin.processing.prompt import Turn, encode_conversation
from tests.goldens import assert_close
from tests.vllm import recording
from tests.vllm.conftest import FEATURES, LOG_PROBS, Demo
from tests.vllm.recording import GIVEN, MEDIA, TOKENS, shown

pytestmark = pytest.mark.skipif("HOUND_DEMO" in os.environ, reason="the recordings are of the untrained demo")


@pytest.fixture(scope="module")
def rows(demo: Demo) -> list[dict[str, Any]]:
    recorded = json.loads(recording.ANSWERS.read_text(encoding="utf-8"))
    assert recorded["weights"] == recording.weights_hash(demo.model), "other weights: record again, and say why"
    found: list[dict[str, Any]] = recorded["rows"]
    assert [(row["question"], row["media"]) for row in found] == recording.asked()
    return found


def _requests(engine: Any, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    paths = [shown(row["media"]) for row in rows]
    requests = []
    for row, path, media in zip(rows, paths, engine._read(paths), strict=True):
        prompt = engine._prompt(row["question"], path, media, TOKENS)
        request: dict[str, Any] = {"prompt_token_ids": prompt.ids}
        if media is not None:
            request["multi_modal_data"] = {prompt.kind: [media]}
        requests.append(request)
    return requests


def test_prompts_and_greedy_answers(engine: Any, rows: list[dict[str, Any]]) -> None:
    from vllm import SamplingParams

    greedy = SamplingParams(temperature=0, max_tokens=TOKENS)
    outputs = engine._llm.generate(_requests(engine, rows), greedy, use_tqdm=False)
    prompts = [recording.runs(output.prompt_token_ids) for output in outputs]
    assert prompts == [row["prompt"] for row in rows]
    answers = [list(output.outputs[0].token_ids) for output in outputs]
    different = [number for number, row in enumerate(rows) if answers[number] != row["answer"]]
    assert not different, f"{len(different)} of {len(rows)}: {[rows[number] for number in different[:3]]}"
    assert len(set(map(tuple, answers))) > len(rows) / 2


def test_log_probabilities_of_a_given_answer(ours: Any, engine: Any, rows: list[dict[str, Any]]) -> None:
    from vllm import SamplingParams

    requests, lengths = _requests(engine, rows), []
    for request, row in zip(requests, rows, strict=True):
        ((_, target),) = encode_conversation(ours.processor.tokenizer, [Turn("?", GIVEN)], ours.processor.system)
        request["prompt_token_ids"] = [*request["prompt_token_ids"], *target]
        lengths.append(len(target))
        assert row["log_prob"] < 0
    outputs = engine._llm.generate(requests, SamplingParams(max_tokens=1, prompt_logprobs=0), use_tqdm=False)
    sums = []
    for output, length in zip(outputs, lengths, strict=True):
        ids, steps = output.prompt_token_ids[-length:], output.prompt_logprobs[-length:]
        sums.append(sum(step[token].logprob for token, step in zip(ids, steps, strict=True)))
    assert_close(torch.tensor(sums), np.array([row["log_prob"] for row in rows]), LOG_PROBS, "log-probabilities")


def test_features(engine: Any, ours: Any, rows: list[dict[str, Any]]) -> None:
    read = ours.processor
    with np.load(recording.FEATURES) as recorded, torch.inference_mode():
        for medium in filter(None, MEDIA):
            path = shown(medium)
            is_clip = recorded[medium].shape[0] * recording.STEP > ours.processor.tokens_per_image
            name = "pixel_values_videos" if is_clip else "pixel_values_images"
            pixels = (read.read_video if is_clip else read.read_image)(path)
            ((theirs,),) = engine._llm.apply_model(
                lambda model, name=name, pixels=pixels: model.embed_multimodal(**{name: pixels[None]})
            )
            assert_close(recording.kept(theirs), recorded[medium], FEATURES, medium)
            assert recorded[medium].std() > 0.01
