"""What a stopped training says of its step, where the gradients are not finite and every loss is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from hound_plugin.errors import TrainingError
from hound_plugin.host import finite_steps
from hound_plugin.settings import HoundSettings
from tests.goldens import SFT


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(SFT)
    config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(vocab_size=len(tokenizer)))
    monkeypatch.setattr(finite_steps, "settings", HoundSettings)
    return SimpleNamespace(
        is_deepspeed_enabled=False,
        processing_class=tokenizer,
        model=SimpleNamespace(config=config),
        state=SimpleNamespace(global_step=6),
        args=SimpleNamespace(output_dir="out"),
    )


def ids(trainer: Any, *texts: str) -> torch.Tensor:
    rows = trainer.processing_class(list(texts), padding=True, return_tensors="pt")["input_ids"]
    return torch.cat([rows, torch.full((len(texts), 1), -200)], 1)  # a placeholder is not text


def test_gradients_that_are_not_finite_name_all_rows_of_their_step(trainer: Any) -> None:
    watch = finite_steps._StepWatch(trainer)
    watch.check_loss(torch.tensor(1.0), ids(trainer, "An earlier step"))
    watch.check_norm(2.0)
    watch.check_loss(torch.tensor(1.0), ids(trainer, "A red ball", "A blue box"))
    watch.check_loss(torch.tensor(0.5), ids(trainer, "A green cat"))
    rows = "Rows of the batch: 'A red ball'; 'A blue box'; 'A green cat'. Nothing"
    with pytest.raises(TrainingError, match=f"at step 7: the gradients have the norm nan. {rows}") as caught:
        watch.check_norm(float("nan"))
    assert "earlier" not in str(caught.value)


def test_of_many_rows_the_first_are_named(trainer: Any) -> None:
    watch = finite_steps._StepWatch(trainer)
    for number in range(12):
        watch.check_loss(torch.tensor(1.0), ids(trainer, f"Row {number}"))
    with pytest.raises(TrainingError, match=r"'Row 7' and 4 more\. Nothing"):
        watch.check_norm(float("inf"))


def test_a_loss_that_is_not_finite_names_its_own_rows(trainer: Any) -> None:
    watch = finite_steps._StepWatch(trainer)
    watch.check_loss(torch.tensor(1.0), ids(trainer, "A red ball"))
    with pytest.raises(TrainingError, match=r"the loss is nan\. Rows of the batch: 'A blue box'\. Nothing"):
        watch.check_loss(torch.tensor(float("nan")), ids(trainer, "A blue box"))
