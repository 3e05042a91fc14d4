"""What is shared between the rows of a pair, and between policy and reference; and the check of the first pair."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from llamafactory.train.trainer_utils import get_batch_logps
from transformers import AutoModelForImageTextToText

import hound_plugin  # noqa: F401  (activates)
from hound_plugin.errors import TrainingError
from hound_plugin.host import preference_step
from hound_plugin.host.preference_step import PreferenceStep, same_towers
from tests.goldens import DPO, SFT
from tests.model.test_shared_prompts import CASES, CLIP, PICTURE, batch_of, conversation, zip_pairs


@pytest.fixture
def model() -> Any:
    return AutoModelForImageTextToText.from_pretrained(SFT, dtype=torch.float32)


def trainer(reference: Any = None) -> Any:
    return SimpleNamespace(ref_model=reference, finetuning_args=SimpleNamespace(use_ref_model=True))


def batch(model: Any) -> dict[str, Any]:
    rows = zip_pairs(conversation(1, 9, (5, 7), [CLIP], model), conversation(2, 9, (3, 1), [PICTURE], model))
    return batch_of(list(rows), model, "right")


def test_frozen_equal_towers_are_shared(model: Any) -> None:
    other = AutoModelForImageTextToText.from_pretrained(DPO, dtype=torch.float32)
    assert same_towers(model, None)
    assert same_towers(model, other)
    with torch.no_grad():
        other.model.video_tower.get_parameter("encoder.layers.0.layer_norm1.weight")[3] += 1e-3
    assert not same_towers(model, other)
    assert not same_towers(model, AutoModelForImageTextToText.from_pretrained(SFT, dtype=torch.bfloat16))
    next(model.model.image_tower.parameters()).requires_grad_(True)
    assert not same_towers(model, None)


def test_the_towers_of_a_shared_step_run_once(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    tower = type(model.model.video_tower)
    features = tower.features
    monkeypatch.setattr(tower, "features", lambda self, *args: runs.append(len(args[0])) or features(self, *args))
    step, rows = PreferenceStep(trainer(), model), batch(model)
    step._checked = True
    step.log_probs(model, rows, is_reference=False)
    step.log_probs(model, rows, is_reference=True)
    assert sorted(runs) == [1, 1]  # one clip, one picture, for policy and reference and both answers
    step.log_probs(model, batch(model), is_reference=False)
    assert len(runs) == 4


def test_the_first_pair_is_compared_once(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    step, rows = PreferenceStep(trainer(), model), batch(model)
    model.train()
    step.log_probs(model, rows, is_reference=False)
    assert model.training

    def wrong(segment_ids: torch.Tensor, prompt_width: int) -> torch.Tensor:
        return right(segment_ids, prompt_width).roll(1, dims=-1)

    from hound_plugin.model import shared_attention

    right = shared_attention.answers_mask
    monkeypatch.setattr(shared_attention, "answers_mask", wrong)
    step.log_probs(model, batch(model), is_reference=False)
    with pytest.raises(TrainingError, match=r"relative difference of .* at most 2e-06.*prefix_sharing: off"):
        PreferenceStep(trainer(), model).log_probs(model, rows, is_reference=False)


@pytest.mark.parametrize("ld_alpha", [None, 0.0, 0.3])
@pytest.mark.parametrize("side", ["left", "right"])
def test_sums_are_those_of_the_host(ld_alpha: float | None, side: str) -> None:
    draw = torch.Generator().manual_seed(3)
    logits, labels = torch.randn(4, 12, 7, generator=draw), torch.full((4, 12), -100)
    for row, (start, end) in enumerate([(4, 8), (3, 10), (5, 11), (6, 7)]):
        labels[row, start:end] = torch.randint(7, (end - start,), generator=draw)
    if side == "left":
        labels = labels.roll(1, dims=1)
    expected, lengths = get_batch_logps(logits, labels, ld_alpha=ld_alpha)
    learnt = labels[:, 1:] != -100
    chosen = logits[:, :-1].log_softmax(-1).gather(2, labels[:, 1:].clamp(min=0).unsqueeze(2)).squeeze(2) * learnt
    pad = torch.nn.functional.pad
    got = preference_step._sums(pad(chosen, (1, 0)), pad(learnt, (1, 0)), ld_alpha)
    torch.testing.assert_close(got, expected)
    assert torch.equal(learnt.sum(-1), lengths)


@pytest.mark.parametrize("name", CASES)
def test_selected_rows_show_their_own_media(name: str, model: Any) -> None:
    rows, _, _ = CASES[name](model)
    whole = batch_of(rows, model, "right")
    tokens = {"image": model.config.image_token_id, "video": model.config.video_token_id}
    for number in range(len(rows)):
        part = preference_step.select_rows(whole, [number], tokens)
        alone = {key: value for key, value in part.items() if key != "labels"}
        inputs = {key: value for key, value in whole.items() if key != "labels"}
        torch.testing.assert_close(model(**alone).logits[0], model(**inputs).logits[number], rtol=1e-5, atol=1e-5)
