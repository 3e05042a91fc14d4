"""Answers of one prompt share its prefill, depend on their own seed, and agree with the ordinary ways to ask."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hound_plugin.model import answer_sampling
from hound_plugin.model.answer_sampling import answer_log_probs, pick, sample_answers, sample_many
from hound_plugin.model.inference import HoundModel
from tests.model.batches import media_path

QUESTION = "What happens?"


@pytest.fixture(scope="module")
def hound(reference: Any, processor: Any) -> HoundModel:
    return HoundModel(reference, processor)


def test_greedy_is_what_chat_says(hound: HoundModel) -> None:
    clip = media_path("clip_short")
    expected = hound.chat(QUESTION, video=clip, temperature=0, max_new_tokens=12)
    answers = sample_answers(hound, QUESTION, clip, [1, 2, 3], temperature=0, max_new_tokens=12)
    assert {answer.text for answer in answers} == {expected}
    assert {answer.finish for answer in answers} <= {"stop", "length"}


def test_an_answer_depends_on_its_own_seed_alone(hound: HoundModel) -> None:
    clip = media_path("clip_short")
    together = sample_answers(hound, QUESTION, clip, [5, 6, 7, 8, 9], max_new_tokens=8, batch_size=4)
    alone = [sample_answers(hound, QUESTION, clip, [seed], max_new_tokens=8)[0] for seed in (9, 7)]
    assert [together[4], together[2]] == alone
    assert len({answer.text for answer in together}) > 1


def test_questions_side_by_side_get_the_answers_that_they_get_alone(hound: HoundModel) -> None:
    asked = [(QUESTION, media_path("clip_short")), ("Which colours are there, and what moves first?", None),
             ("Why?", media_path("clip_long")), ("And then?", media_path("clip_short"))]  # fmt: skip
    seeds = [[1, 2, 3], [4], [], [1, 5, 6, 7, 8]]
    together = sample_many(hound, asked, seeds, max_new_tokens=6, batch_size=8)
    alone = [
        sample_answers(hound, question, clip, own, max_new_tokens=6)
        for (question, clip), own in zip(asked, seeds, strict=True)
    ]
    assert together == alone
    assert sample_many(hound, [], []) == []


def test_attention_that_takes_no_mask_gives_the_same(hound: HoundModel, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [(QUESTION, media_path("clip_short")), ("Why?", None)]
    shared = sample_many(hound, asked, [[1, 2], [3, 4]], max_new_tokens=6)
    monkeypatch.setattr(answer_sampling, "_MASKED", ())
    assert sample_many(hound, asked, [[1, 2], [3, 4]], max_new_tokens=6) == shared


def test_prompt_and_clip_are_encoded_once(hound: HoundModel, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, towers = [], []
    tower = hound.model.model.video_tower
    handle = tower.register_forward_hook(lambda *_: towers.append(1))
    first = hound.model.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        if kwargs["input_ids"].shape[1] > 8:
            prompts.append(kwargs["input_ids"].shape[0])
        return first(*args, **kwargs)

    monkeypatch.setattr(hound.model, "forward", forward)
    sample_answers(hound, QUESTION, media_path("clip_short"), range(6), max_new_tokens=3, batch_size=2)
    handle.remove()
    assert prompts == [1]
    assert len(towers) == 1


def test_draws_follow_the_probabilities() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    many = 4000
    draws = [torch.Generator().manual_seed(seed) for seed in range(many)]
    for temperature, top_p in ((1.0, 1.0), (0.7, 0.9)):
        chosen = pick(logits.expand(many, -1), draws, temperature, top_p)
        expected = (logits[0] / temperature).softmax(-1)
        kept = expected * ((expected.cumsum(0) - expected) < top_p)
        share = torch.bincount(chosen, minlength=4) / many
        assert (share - kept / kept.sum()).abs().max() < 0.03
        assert not share[kept == 0].any()
    assert pick(logits, draws[:1], 0, 0.5).tolist() == [0]


def test_log_probs_count_the_tokens_of_the_answer(hound: HoundModel) -> None:
    clip = media_path("clip_short")
    items = [(QUESTION, "A dog runs.", clip), (QUESTION, "A cat.", clip), ("Hello?", "Yes.", None)]
    found = answer_log_probs(hound, items)
    tokenizer = hound.processor.tokenizer
    for (_, answer, _), (value, tokens) in zip(items, found, strict=True):
        assert tokens == len(tokenizer(answer, add_special_tokens=False)["input_ids"]) + 1
        assert value < 0
    assert [value for value, _ in found] == pytest.approx(hound.log_probs(items).tolist(), abs=1e-6)
