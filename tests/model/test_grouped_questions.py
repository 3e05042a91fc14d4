"""Several questions about a clip in one row: the loss and the gradients of separate rows in one batch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from hound_plugin.model.packed_rows import groups_about_one_clip, pack
from tests.model.test_shared_prompts import CLIP, OTHER, PICTURE, SIDES, batch_of, model  # noqa: F401  (a fixture)

Row = tuple[list[int], list[int], list[tuple[str, int]]]


def conversation(seed: int, turns: list[tuple[int, int]], media: list[tuple[str, int]], config: Any) -> Row:
    """A row of random questions and answers, with all of its media behind the first token."""
    draw = torch.Generator().manual_seed(seed)
    ids, labels = [1], [-100]
    for kind, _ in media:
        number = config.tokens_per_image if kind == "image" else config.tokens_per_video(8)
        ids += [config.image_token_id if kind == "image" else config.video_token_id] * number
    labels += [-100] * (len(ids) - 1)
    for question, answer in turns:
        text = torch.randint(3, config.text_config.vocab_size, (question + answer,), generator=draw).tolist()
        ids += text
        labels += [-100] * question + text[question:]
    return ids, labels, media


def later_clip(seed: int, config: Any) -> Row:
    """A conversation that is about nothing at first, and about a clip in its second question."""
    ids, labels, _ = conversation(seed, [(4, 5), (3, 4)], [], config)
    clip = [config.video_token_id] * config.tokens_per_video(8)
    return ids[:10] + clip + ids[10:], labels[:10] + [-100] * len(clip) + labels[10:], [CLIP]


BATCHES: dict[str, Callable[[Any], tuple[list[Row], list[list[int]]]]] = {
    "three questions": lambda c: (
        [conversation(n, [(4 + n, 3 * n)], [CLIP], c) for n in (1, 2, 3)],
        [[0, 1, 2]],
    ),
    "several turns": lambda c: (
        [
            conversation(1, [(4, 6), (3, 2), (5, 1)], [CLIP], c),
            conversation(2, [(9, 3)], [CLIP], c),
            conversation(3, [(2, 1), (2, 8)], [CLIP], c),
        ],
        [[0, 1, 2]],
    ),
    "one question answered twice": lambda c: (
        [conversation(1, [(4, 6), (3, 2)], [CLIP], c), conversation(1, [(4, 6), (3, 2), (4, 1)], [CLIP], c)],
        [[0, 1]],
    ),
    "two clips, a picture and a text": lambda c: (
        [
            conversation(1, [(4, 6)], [CLIP], c),
            conversation(2, [(7, 2)], [CLIP], c),
            conversation(3, [(30, 9)], [], c),
            conversation(4, [(4, 2)], [], c),
            conversation(5, [(4, 6)], [OTHER], c),
            conversation(6, [(2, 6)], [PICTURE], c),
            conversation(7, [(5, 1)], [PICTURE], c),
        ],
        [[0, 1], [2], [3], [4], [5, 6]],
    ),
    "more than fit": lambda c: (
        [conversation(n, [(4, n)], [CLIP], c) for n in range(1, 6)],
        [[0, 1, 2], [3, 4]],
    ),
    "two clips a row": lambda c: (
        [conversation(n, [(4, n)], [CLIP, OTHER], c) for n in (2, 5)]
        + [conversation(n, [(4, n)], [OTHER, CLIP], c) for n in (3, 1)],
        [[0, 1], [2, 3]],
    ),
    "the clip comes later in one": lambda c: (
        [conversation(1, [(4, 6)], [CLIP], c), conversation(2, [(4, 5)], [CLIP], c), later_clip(3, c)],
        [[0, 1], [2]],
    ),
}


def media_tokens(config: Any) -> dict[str, int]:
    return {"image": config.image_token_id, "video": config.video_token_id}


def grouped_loss(model: Any, batch: dict[str, Any], **more: Any) -> torch.Tensor:  # noqa: F811
    tokens = media_tokens(model.config)
    rows = pack(batch, groups_about_one_clip(batch, tokens, 3), tokens, 0)
    pixels = {name: value for name, value in batch.items() if name.startswith("pixel_values")}
    output = model(**rows.inputs, **pixels, answers=rows.labelled.inputs(), answers_only=True, **more)
    assert "loss" in output
    return output.loss


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:  # noqa: F811
    model.zero_grad()
    loss.backward()
    return {key: value.grad.clone() for key, value in model.named_parameters() if value.grad is not None}


def assert_same(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Within 1e-6 of the largest gradient of each parameter."""
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        assert (got[key] - value).abs().max() <= 1e-6 * max(value.abs().max().item(), 1.0), key


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", BATCHES)
def test_loss_and_gradients_are_those_of_separate_rows(name: str, side: str, model: Any) -> None:  # noqa: F811
    rows, groups = BATCHES[name](model.config)
    batch = batch_of(rows, model, side)
    assert groups_about_one_clip(batch, media_tokens(model.config), 3) == groups
    expected = model(**batch).loss
    before = gradients(model, expected)
    got = grouped_loss(model, batch)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-6)
    assert_same(gradients(model, got), before)


def test_a_number_of_items_divides_the_sum(model: Any) -> None:  # noqa: F811
    batch = batch_of(BATCHES["several turns"](model.config)[0], model, "right")
    for items in (7, torch.tensor(7)):
        expected = model(**batch, num_items_in_batch=items).loss
        torch.testing.assert_close(grouped_loss(model, batch, num_items_in_batch=items), expected)


def test_rows_without_labels_have_no_loss(model: Any) -> None:  # noqa: F811
    """As rows have whose clips cannot be read, with `on_bad_media: skip`."""
    batch = batch_of(BATCHES["three questions"](model.config)[0], model, "right")
    batch["labels"] = torch.full_like(batch["labels"], -100)
    loss = grouped_loss(model, batch)
    assert loss == 0
    loss.backward()


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing(reentrant: bool, model: Any) -> None:  # noqa: F811
    batch = batch_of(BATCHES["several turns"](model.config)[0], model, "right")
    model = copy.deepcopy(model).train()
    before = gradients(model, grouped_loss(model, batch))
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    assert_same(gradients(model, grouped_loss(model, batch)), before)


def test_a_group_takes_no_more_columns_than_its_tokens(model: Any) -> None:  # noqa: F811
    rows, _ = BATCHES["three questions"](model.config)
    batch, tokens = batch_of(rows, model, "right"), media_tokens(model.config)
    packed = pack(batch, [[0, 1, 2]], tokens, 0)
    own = sum(len(ids) for ids, _, _ in rows) - 2 * (1 + model.config.tokens_per_video(8))
    assert packed.inputs["input_ids"].shape == (1, own)
