"""Which rows of a data set are read together, and what that does not go with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from llamafactory.hparams import get_train_args
from transformers import AutoModelForImageTextToText

import hound_plugin  # noqa: F401  (activates)
from hound_plugin.errors import SettingsError, TrainingError
from hound_plugin.host import settings_state
from hound_plugin.host.clip_groups import ClipGroups, flat_rows, groups_of
from hound_plugin.host.grouped_step import GroupedStep
from hound_plugin.model import shared_attention
from tests.goldens import SFT
from tests.model.test_grouped_questions import BATCHES
from tests.model.test_shared_prompts import batch_of


def dataset(*shown: tuple[list[Any] | None, list[Any] | None]) -> Dataset:
    """Rows with these clips and images."""
    columns = {"videos": [videos for videos, _ in shown], "images": [images for _, images in shown]}
    return Dataset.from_dict({**columns, "input_ids": [[number] for number in range(len(shown))]})


A, B = ["a.mp4"], ["b.mp4"]


@pytest.mark.parametrize(
    ("rows", "most", "groups"),
    [
        ([(A, []), (B, []), (A, []), (B, []), (A, [])], 3, [[0, 2, 4], [1, 3]]),
        ([(A, []), (A, []), (A, []), (A, []), (A, [])], 2, [[0, 1], [2, 3], [4]]),
        ([(None, None), (A, None), ([], []), (A, [])], 3, [[0], [1, 3], [2]]),
        ([(A, ["x.jpg"]), (A, []), ([], ["x.jpg"]), (A, ["x.jpg"]), ([], ["x.jpg"])], 3, [[0, 3], [1], [2, 4]]),
        ([([*A, *B], []), ([*B, *A], []), ([*A, *B], [])], 3, [[0, 2], [1]]),
        ([(["a.mp4#t=1,2"], []), (["a.mp4#t=3,4"], []), (["a.mp4#t=1,2"], [])], 3, [[0, 2], [1]]),
        ([], 3, []),
    ],
)
def test_rows_with_the_same_media_are_a_group(rows: list[Any], most: int, groups: list[list[int]]) -> None:
    assert groups_of(dataset(*rows), most) == groups


def test_frames_and_embedded_media() -> None:
    frames = [[["1.jpg", "2.jpg"]], [["1.jpg", "3.jpg"]], [["1.jpg", "2.jpg"]]]
    assert groups_of(Dataset.from_dict({"videos": frames}), 4) == [[0, 2], [1]]
    embedded = [[{"path": None, "bytes": b"1"}]] * 2 + [[{"path": "c.jpg", "bytes": None}]] * 2
    assert groups_of(Dataset.from_dict({"images": embedded}), 4) == [[0], [1], [2, 3]]


def test_every_row_is_read_once() -> None:
    rows = dataset((A, []), (B, []), (A, []), ([], []), (B, []), (A, []))
    grouped = ClipGroups(rows, groups_of(rows, 2))
    assert len(grouped) == 4
    read = flat_rows([grouped[number] for number in range(4)])
    assert [row["input_ids"] for row in read] == [[0], [2], [1], [4], [3], [5]]
    assert flat_rows(read) == read


def parse(**values: Any) -> None:
    recipe = {"model_name_or_path": str(SFT), "template": "llava_hound", "do_train": True, "report_to": "none"}
    get_train_args({**recipe, "stage": "sft", "dataset": "sft", "output_dir": "unused", **values})


LORA = {"finetuning_type": "lora", "lora_target": "all"}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "dpo": ({"stage": "dpo"}, "is for `stage: sft`; got `stage: dpo`"),
    "kto": ({"stage": "kto"}, "got `stage: kto`"),
    "rm": ({"stage": "rm"}, "got `stage: rm`"),
    "neat_packing": ({"neat_packing": True, "cutoff_len": 2048}, "packing both join rows"),
    "packing": ({"packing": True, "cutoff_len": 2048}, "packing both join rows"),
    "streaming": ({"streaming": True, "max_steps": 3}, "`streaming: true` only reads them in sequence"),
    "by length": ({"train_sampling_strategy": "group_by_length"}, "both decide which rows stand together"),
    "dft": ({"use_dft_loss": True}, "`use_dft_loss` needs all logits"),
    "eaft": ({"use_eaft_loss": True}, "`use_eaft_loss` needs all logits"),
    "asft": ({"use_asft_loss": True, "finetuning_type": "full"}, "`use_asft_loss` needs all logits"),
    "smoothing": ({"label_smoothing_factor": 0.1}, r"`label_smoothing_factor: 0\.1` needs all logits"),
    "all logits": ({"hound": {"group_questions": 3, "answers_only": "off"}}, r"`hound\.answers_only: off` forbids"),
    "dropout": ({**LORA, "lora_dropout": 0.05}, r"random zeros of `lora_dropout: 0\.05`"),
    "noise": ({"neftune_noise_alpha": 5}, "same noise of `neftune_noise_alpha`"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_does_not_go_with_is_refused_by_name(name: str) -> None:
    values, message = REFUSED[name]
    with pytest.raises(SettingsError, match=rf"^hound\.group_questions: 3 .*{message}"):
        parse(**{"hound": {"group_questions": 3}, **values})
    if name not in ("packing", "all logits"):  # the same without it is the host's business
        parse(**{**values, "hound": {"group_questions": "off"}})


def test_what_it_goes_with() -> None:
    parse(hound={"group_questions": "3"})
    assert settings_state.settings().group_questions == 3
    parse(**LORA, train_on_prompt=True, disable_shuffling=True, hound={"group_questions": 2})
    assert settings_state.run()["hound.group_questions"] == 2
    parse()
    assert settings_state.run()["hound.group_questions"] is None


@pytest.mark.parametrize("value", [1, 0, -3, 2.5, "many", True])
def test_a_group_has_two_rows_or_more(value: Any) -> None:
    with pytest.raises(SettingsError, match=r"group_questions: expected a whole number of at least 2 or off"):
        parse(hound={"group_questions": value})


@pytest.fixture
def model() -> Any:
    return AutoModelForImageTextToText.from_pretrained(SFT, dtype=torch.float32)


def test_the_first_group_is_compared_with_separate_rows(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = model.config
    batch = batch_of(BATCHES["two clips, a picture and a text"](config)[0], model, "right")
    step = GroupedStep(model, 3)
    step.inputs(model, batch_of(BATCHES["two clips, a picture and a text"](config)[0][2:5], model, "right"))
    assert not step._checked, "no rows of these share a clip"
    loss = model(**step.inputs(model, batch)).loss
    torch.testing.assert_close(loss, model(**batch).loss, rtol=1e-6, atol=1e-6)
    assert step._checked
    right = shared_attention.answers_mask
    monkeypatch.setattr(shared_attention, "answers_mask", lambda *args: right(*args).roll(1, dims=-1))
    step.inputs(model, batch)
    with pytest.raises(TrainingError, match=r"The first group of rows about one clip gives .*group_questions: off"):
        GroupedStep(model, 3).inputs(model, batch)


def test_a_model_that_drops_attention_weights_is_refused(model: Any) -> None:
    model.config.text_config.attention_dropout = 0.1
    with pytest.raises(SettingsError, match=r"group_questions: 3 .* `attention_dropout: 0\.1`"):
        GroupedStep(SimpleNamespace(modules=model.modules), 3)
