"""What the trainers' forward passes return is what the host's own return, shared or not, for every loss and for KTO."""

from __future__ import annotations

from types import MethodType, SimpleNamespace
from typing import Any

import pytest
import torch
from llamafactory.train.dpo.trainer import CustomDPOTrainer
from llamafactory.train.kto.trainer import CustomKTOTrainer
from transformers import AutoModelForImageTextToText

import hound_plugin  # noqa: F401  (activates)
from hound_plugin.host import labelled_step, preference_step, settings_state
from hound_plugin.host.labelled_step import labelled_forward
from hound_plugin.host.preference_step import preference_forward
from hound_plugin.settings import HoundSettings
from tests.goldens import SFT
from tests.model.test_shared_prompts import CLIP, PICTURE, batch_of, conversation, zip_pairs

WAYS = {"shared": {}, "separate": {"prefix_sharing": "off"}}
EXACT = {"rtol": 2e-6, "atol": 2e-6}


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForImageTextToText.from_pretrained(SFT, dtype=torch.float32)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    chosen = HoundSettings.build(WAYS[request.param], {})
    for module in (preference_step, labelled_step):
        monkeypatch.setattr(module, "settings", lambda: chosen)
    monkeypatch.setattr(settings_state, "_template", "llava_hound")
    return str(request.param)


def own(method: Any) -> Any:
    """The host's method under ours."""
    return method.__wrapped__


def gradients(model: Any, total: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    total.backward()
    return {key: value.grad.clone() for key, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("loss", ["sigmoid", "ipo", "orpo", "simpo"])
def test_pairs(loss: str, way: str, model: Any) -> None:
    arguments = SimpleNamespace(use_ref_model=loss not in ("orpo", "simpo"))
    trainer = SimpleNamespace(loss_type=loss, ld_alpha=None, finetuning_args=arguments, ref_model=None)
    rows = zip_pairs(conversation(1, 9, (5, 7), [CLIP], model), conversation(2, 4, (3, 1), [PICTURE], model))
    batch = batch_of(list(rows), model, "right")
    results = []
    host = own(CustomDPOTrainer.concatenated_forward)
    for forward in (host, lambda *args: preference_forward(host, *args)):
        result = forward(trainer, model, dict(batch))
        names = ("chosen_logps", "rejected_logps", "chosen_logps_avg")
        logps = {name: result[name] for name in names}
        results.append((logps, gradients(model, (logps["chosen_logps"] - 0.3 * logps["rejected_logps"]).sum())))
    torch.testing.assert_close(results[1][0], results[0][0], **EXACT)
    torch.testing.assert_close(results[1][1], results[0][1], rtol=1e-4, atol=2e-5)


def labelled_batch(model: Any, tags: list[bool]) -> dict[str, Any]:
    """Three rows, two of them about a clip; each with its answer, and another one for the KL term."""
    rows = [
        conversation(1, 9, (5, 8), [CLIP], model),
        conversation(2, 4, (3, 1), [PICTURE], model),
        conversation(3, 6, (2, 6), [CLIP], model),
    ]
    batch = batch_of([answer for answer, _ in rows], model, "right")
    kl_batch = batch_of([kl_answer for _, kl_answer in rows], model, "right")
    names = ("input_ids", "attention_mask", "labels")
    return {**batch, **{f"kl_{name}": kl_batch[name] for name in names}, "kto_tags": torch.tensor(tags)}


@pytest.mark.parametrize("tags", [[True, False, True], [False, False, False], [True, True, True]])
def test_labelled_answers(tags: list[bool], way: str, model: Any) -> None:
    trainer = SimpleNamespace(finetuning_args=SimpleNamespace(use_ref_model=False), ref_model=None)
    trainer.forward = MethodType(CustomKTOTrainer.forward, trainer)
    batch = labelled_batch(model, tags)
    host = own(CustomKTOTrainer.concatenated_forward)
    expected = host(trainer, model, dict(batch))
    got = labelled_forward(host, trainer, model, batch)
    assert trainer._hound_step.step.shares_prompts is (way == "shared")
    for number in (0, 1, 4, 5):  # 2 and 3 are logits
        torch.testing.assert_close(got[number], expected[number], **EXACT)
    assert not got[4].requires_grad
    before, after = (
        gradients(model, result[0].sum() - 0.3 * result[1].sum() + result[4].sum()) for result in (expected, got)
    )
    torch.testing.assert_close(after, before, rtol=1e-4, atol=2e-5)


def test_sums_of_logits_leave_padding_out(way: str, model: Any) -> None:
    trainer = SimpleNamespace(finetuning_args=SimpleNamespace(use_ref_model=False), ref_model=None)
    batch = labelled_batch(model, [True, False, True])
    got = labelled_forward(own(CustomKTOTrainer.concatenated_forward), trainer, model, batch)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    media = {name: value for name, value in batch.items() if name.startswith(("pixel", "image", "video"))}
    with torch.no_grad():
        logits = model(**inputs, **media).logits * batch["attention_mask"].unsqueeze(-1)
    sums = logits.sum((1, 2))
    torch.testing.assert_close(torch.stack(got[2:4]), torch.stack([sums[0] + sums[2], sums[1]]), rtol=1e-3, atol=1e-2)


def test_the_reference_takes_the_features_of_the_policy(way: str, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = SimpleNamespace(finetuning_args=SimpleNamespace(use_ref_model=False), ref_model=None)
    batch = labelled_batch(model, [True, False, True])
    host = own(CustomKTOTrainer.concatenated_forward)
    policy = labelled_forward(host, trainer, model, batch)
    monkeypatch.setattr(type(model.model.video_tower), "features", None)  # no tower may run
    with torch.no_grad():
        reference = labelled_forward(host, trainer, model, batch)
    for number in (0, 1, 4):
        assert torch.equal(reference[number], policy[number])
