"""Rows that share a prompt give, packed into one, what separate rows give: log-probabilities and gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText

import hound_plugin  # noqa: F401  (activates)
from hound_plugin.errors import PlaceholderError
from hound_plugin.model.answer_head import answers_loss, token_log_probs
from hound_plugin.model.packed_rows import PackedRows, pack, unpacked
from tests.goldens import SFT

SIDES = ("left", "right")


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForImageTextToText.from_pretrained(SFT, dtype=torch.float32)


def conversation(seed: int, prompt: int, answers: tuple[int, ...], media: list[tuple[str, int]], model: Any) -> Any:
    """Rows with one random prompt of text and media, and several random answers."""
    draw = torch.Generator().manual_seed(seed)
    config = model.config
    tokens = {
        "image": [config.image_token_id] * config.tokens_per_image,
        "video": [config.video_token_id] * config.tokens_per_video(8),
    }
    text = torch.randint(3, config.text_config.vocab_size, (prompt,), generator=draw).tolist()
    head = [token for kind, _ in media for token in tokens[kind]]
    rows = []
    for length in answers:
        answer = torch.randint(3, config.text_config.vocab_size, (length,), generator=draw).tolist()
        rows.append((text[:1] + head + text[1:] + answer, [-100] * (len(head) + prompt) + answer, media))
    return rows


def batch_of(rows: list[Any], model: Any, side: str) -> dict[str, torch.Tensor]:
    longest = max(len(ids) for ids, _, _ in rows) + 2
    batch: dict[str, Any] = {"input_ids": [], "attention_mask": [], "labels": []}
    for ids, labels, _ in rows:
        gap = longest - len(ids)
        for name, values, filler in (
            ("input_ids", ids, 0), ("attention_mask", [1] * len(ids), 0), ("labels", labels, -100),
        ):  # fmt: skip
            batch[name].append([filler] * gap + values if side == "left" else values + [filler] * gap)
    batch = {name: torch.tensor(values) for name, values in batch.items()}
    tower = model.config.video_tower_config
    shapes = {"image": (3, tower.image_size, tower.image_size), "video": (8, 3, tower.image_size, tower.image_size)}
    for kind, shape in shapes.items():
        shown = [number for _, _, media in rows for name, number in media if name == kind]
        if shown:
            items = torch.randn((max(shown) + 1, *shape), generator=torch.Generator().manual_seed(1))
            batch[f"pixel_values_{kind}s"], batch[f"{kind}_index"] = items, torch.tensor(shown)
    return batch


def packed(batch: dict[str, Any], groups: list[list[int]], model: Any) -> PackedRows:
    tokens = {"image": model.config.image_token_id, "video": model.config.video_token_id}
    return pack(batch, groups, tokens, 0)


def pixels(batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in batch.items() if name.startswith("pixel_values")}


def separate(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Log-probabilities of labels at their places ``[R, S]``, from all logits of plain rows."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    logits = model(**inputs).logits.float()
    labels = batch["labels"][:, 1:]
    learnt = labels != -100
    chosen = logits[:, :-1].log_softmax(-1).gather(2, labels.masked_fill(~learnt, 0).unsqueeze(2)).squeeze(2)
    return torch.nn.functional.pad(chosen * learnt, (1, 0))


def shared(model: Any, batch: dict[str, Any], groups: list[list[int]]) -> torch.Tensor:
    rows = packed(batch, groups, model)
    output = model(**rows.inputs, **pixels(batch), answers=rows.labelled.inputs())
    assert output.logits is None
    return rows.labelled.by_row(output.log_probs)[0]


CLIP, OTHER, PICTURE = ("video", 0), ("video", 1), ("image", 0)
CASES: dict[str, Callable[[Any], tuple[list[Any], list[list[int]], int]]] = {
    "a pair": lambda m: (conversation(1, 9, (5, 7), [CLIP], m), [[0, 1]], 2),
    "one token each": lambda m: (conversation(2, 4, (1, 1), [CLIP], m), [[0, 1]], 2),
    "without media": lambda m: (conversation(3, 12, (3, 9), [], m), [[0, 1]], 2),
    "a picture and two clips": lambda m: (conversation(4, 6, (4, 2), [PICTURE, OTHER, CLIP], m), [[0, 1]], 2),
    "four answers": lambda m: (conversation(5, 6, (4, 2, 9, 1), [CLIP], m), [[0, 1, 2, 3]], 4),
    "pairs of unequal prompts": lambda m: (
        [*zip_pairs(conversation(6, 30, (5, 2), [CLIP], m), conversation(7, 3, (1, 11), [], m))],
        [[0, 2], [1, 3]],
        4,
    ),
    "other media, no sharing": lambda m: (
        [conversation(8, 9, (5,), [CLIP], m)[0], conversation(8, 9, (6,), [OTHER], m)[0]],
        [[0, 1]],
        0,
    ),
    "a pair beside a row alone": lambda m: (
        [*conversation(9, 9, (5, 3), [CLIP], m), *conversation(10, 20, (4,), [PICTURE], m)],
        [[0, 1], [2]],
        2,
    ),
}


def zip_pairs(*pairs: list[Any]) -> list[Any]:
    """Chosen rows, then rejected ones, as the host collates them."""
    return [row for side in zip(*pairs, strict=True) for row in side]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", CASES)
def test_shared_prompts_give_the_same_log_probs_and_gradients(name: str, side: str, model: Any) -> None:
    rows, groups, number = CASES[name](model)
    batch = batch_of(rows, model, side)
    assert packed(batch, groups, model).shared == number
    expected = separate(model, batch)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    model.zero_grad()
    (expected * weights).sum().backward()
    before = {key: value.grad.clone() for key, value in model.named_parameters() if value.grad is not None}
    model.zero_grad()
    got = shared(model, batch, groups)
    (got * weights).sum().backward()
    torch.testing.assert_close(got, expected, rtol=2e-6, atol=2e-6)
    for key, value in model.named_parameters():
        if value.grad is not None:
            torch.testing.assert_close(
                value.grad, before[key], rtol=1e-4, atol=2e-5, msg=lambda text, key=key: key + text
            )


def test_first_words_that_both_answers_have_are_shared_too(model: Any) -> None:
    ids, labels, media = conversation(11, 9, (8,), [CLIP], model)[0]
    rows = [(ids, labels, media), ([*ids[:-3], 7, 9], [*labels[:-3], 7, 9], media)]
    batch = batch_of(rows, model, "right")
    result = packed(batch, [[0, 1]], model)
    assert result.inputs["prompt_width"] == len(ids) - 3
    torch.testing.assert_close(shared(model, batch, [[0, 1]]), separate(model, batch), rtol=2e-6, atol=2e-6)


def test_earlier_turns_that_are_learnt_count_for_each_answer(model: Any) -> None:
    rows = conversation(12, 9, (5, 7), [CLIP], model)
    end = len(rows[0][0]) - 5  # of the prompt, whose last 8 tokens are text
    for ids, labels, _ in rows:
        labels[end - 6 : end - 2] = ids[end - 6 : end - 2]
    batch = batch_of(rows, model, "right")
    torch.testing.assert_close(shared(model, batch, [[0, 1]]), separate(model, batch), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_runs_the_shared_attention_again(reentrant: bool, model: Any) -> None:
    """Also where a call without sharing comes between forward and backward."""
    rows, groups, _ = CASES["a pair"](model)
    batch = batch_of(rows, model, "right")
    model = copy.deepcopy(model).train()
    weights = model.lm_head.weight, model.model.language_model.layers[0].self_attn.q_proj.weight
    shared(model, batch, groups).sum().backward()
    before = [weight.grad.clone() for weight in weights]
    model.zero_grad()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    total = shared(model, batch, groups).sum()
    with torch.no_grad():
        separate(model, batch)
    total.backward()
    torch.testing.assert_close([weight.grad for weight in weights], before, rtol=1e-5, atol=1e-6)


def test_calls_without_sharing_are_left_alone(model: Any) -> None:
    rows, groups, _ = CASES["a pair"](model)
    batch = batch_of(rows, model, "right")
    fresh = AutoModelForImageTextToText.from_pretrained(SFT, dtype=torch.float32)
    expected = separate(fresh, batch)
    shared(fresh, batch, groups)
    assert torch.equal(separate(fresh, batch), expected)


def test_tower_features_of_one_call_serve_another(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, groups, _ = CASES["a picture and two clips"](model)
    batch = batch_of(rows, model, "right")
    result = packed(batch, groups, model)
    how = {**result.inputs, "answers": result.labelled.inputs()}
    first = model(**how, **pixels(batch), keep_tower_features=True)
    assert set(first.tower_features) == {"image", "video"}
    monkeypatch.setattr(type(model.model.video_tower), "features", None)  # no tower may run
    second = model(**how, tower_features=first.tower_features)
    assert torch.equal(first.log_probs, second.log_probs)


def test_means_of_logits_are_those_of_all_positions(model: Any) -> None:
    rows, groups, _ = CASES["pairs of unequal prompts"](model)
    batch = batch_of(rows, model, "right")
    logits = model(**{name: value for name, value in batch.items() if name != "labels"}).logits
    attended = batch["attention_mask"].bool()
    expected = torch.stack([logits[rows][attended[rows]].mean() for rows in (slice(0, 2), slice(2, 4))])
    result = packed(batch, groups, model)
    plain = unpacked(batch, model.config.text_config.vocab_size)
    for inputs, labelled in ((result.inputs, result.labelled), (plain_inputs(batch), plain)):
        got = model(**inputs, **pixels(batch), answers=labelled.inputs()).mean_logits
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)


def plain_inputs(batch: dict[str, Any]) -> dict[str, Any]:
    return {name: batch[name] for name in ("input_ids", "attention_mask", "video_index") if name in batch}


def test_the_loss_of_answers_is_the_loss_of_all_positions(model: Any) -> None:
    batch = batch_of(CASES["pairs of unequal prompts"](model)[0], model, "right")
    expected = model(**batch)
    got = model(**batch, answers_only=True)
    assert got.logits is None
    torch.testing.assert_close(got.loss, expected.loss, rtol=1e-6, atol=1e-6)
    for items in (7, torch.tensor(7)):
        expected = model(**batch, num_items_in_batch=items).loss
        torch.testing.assert_close(model(**batch, answers_only=True, num_items_in_batch=items).loss, expected)
    none = {**batch, "labels": torch.full_like(batch["labels"], -100)}
    loss = model(**none, answers_only=True).loss
    assert loss == 0
    loss.backward()


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(50, 11, requires_grad=True)
    tokens = torch.randint(11, (50,))
    whole = token_log_probs(logits, tokens)
    (expected,) = torch.autograd.grad((whole * torch.arange(50)).sum(), logits)
    monkeypatch.setattr("hound_plugin.model.answer_head._CHUNK", 7)
    parts = token_log_probs(logits, tokens)
    (got,) = torch.autograd.grad((parts * torch.arange(50)).sum(), logits)
    assert torch.equal(parts, whole)
    torch.testing.assert_close(got, expected)
    with torch.no_grad():
        assert torch.equal(token_log_probs(logits, tokens), whole)


def test_part_of_a_clip_is_refused(model: Any) -> None:
    batch = batch_of(conversation(1, 9, (5, 7), [CLIP], model), model, "right")
    batch["input_ids"][0, 3] = 5
    with pytest.raises(PlaceholderError, match=r"whole videos.*raise `cutoff_len`"):
        packed(batch, [[0, 1]], model)


def test_the_head_alone_reads_labelled_positions(model: Any) -> None:
    """As many rows as labels, and two for the means."""
    batch = batch_of(CASES["a pair"](model)[0], model, "right")
    sizes = []
    hook = model.lm_head.register_forward_pre_hook(lambda module, args: sizes.append(args[0].shape[:-1]))
    try:
        shared(model, batch, [[0, 1]])
        answers_loss(
            model.lm_head, torch.zeros(2, 9, model.config.text_config.hidden_size), torch.full((2, 9), -100), 9
        )
    finally:
        hook.remove()
    assert sizes == [(12 + 2,), (0,)]


def test_the_configuration_of_a_layer_is_restored(model: Any) -> None:
    batch = batch_of(CASES["a pair"](model)[0], model, "right")
    shared(model, batch, [[0, 1]])
    layer = model.model.language_model.layers[0].self_attn
    assert layer.config is model.model.language_model.config
    assert layer.config._attn_implementation == "sdpa"
