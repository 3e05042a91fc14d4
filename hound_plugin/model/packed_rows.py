"""Rows that share a prompt packed into one: ``[prompt | answer 1 | answer 2 ...]``, and where their labels went.

Two answers of a preference pair repeat clip, question and often the first words; several questions about a clip repeat
the clip. Packed, the model reads these once; :mod:`hound_plugin.model.shared_attention` lets each answer see the prompt
and itself only. The prompt has the same width in all packed rows of a batch, so that its attention is one block.

"Answer" is what a row has behind the shared prompt: with several questions about a clip that is the question, its
answer, and all further turns.

Shapes: R rows of S columns before, G packed rows of L columns after, T labelled tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hound_plugin.errors import PlaceholderError
from hound_plugin.model.labels import IGNORED_LABEL, is_learnt, learnt_tokens

PADDING, PROMPT = -1, 0  # segment ids; answers are 1, 2, ...


@dataclass(frozen=True)
class LabelledTokens:
    """The tokens that rows are trained on, and where the model predicts them.

    Attributes:
        positions: ``[T]``, place of the hidden state before each token, in the flattened ``[G * L]``.
        tokens: ``[T]``, the tokens.
        rows, columns: ``[T]``, where each token stood in the rows before packing.
        averages: ``[K, G * L]``, weights of each position in the means of the logits over the rows of each side: of
            two, the first and the second half of the batch, unless it says otherwise (each row's tokens count once;
            padding does not count).
        shape: ``(R, S)``.
    """

    positions: torch.Tensor
    tokens: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor
    averages: torch.Tensor
    shape: tuple[int, int]

    def inputs(self) -> dict[str, torch.Tensor]:
        """What the model's forward takes as ``answers``."""
        return {"positions": self.positions, "tokens": self.tokens, "averages": self.averages}

    def by_row(self, log_probs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities ``[T]`` at their former places: ``[R, S]`` (0 elsewhere), and where labels are."""
        values = log_probs.new_zeros(self.shape).index_put((self.rows, self.columns), log_probs)
        labelled = torch.zeros(self.shape, dtype=torch.bool, device=log_probs.device)
        labelled[self.rows, self.columns] = True
        return values, labelled


@dataclass(frozen=True)
class PackedRows:
    """A batch with shared prompts.

    Attributes:
        inputs: what the model's forward takes: ``input_ids``, ``position_ids`` and ``segment_ids`` ``[G, L]``,
            ``prompt_width``, ``image_index`` and ``video_index`` where there are media.
        labelled: where the labels went.
        shared: number of rows that share their prompt with another one.
    """

    inputs: dict[str, Any]
    labelled: LabelledTokens
    shared: int


@dataclass(frozen=True)
class _Row:
    """The attended tokens of one row, and the media that it shows."""

    number: int
    tokens: np.ndarray
    labels: np.ndarray
    columns: np.ndarray
    is_media: np.ndarray
    media: tuple[tuple[int, ...], ...]

    @property
    def media_end(self) -> int:
        """After the last media token."""
        return int(np.flatnonzero(self.is_media)[-1]) + 1 if self.is_media.any() else 0


def pack(batch: dict[str, Any], groups: Sequence[Sequence[int]], media_tokens: dict[str, int], pad: int) -> PackedRows:
    """Pack the rows of each group that share prompt and media; other rows stay alone.

    Args:
        batch: ``input_ids``, ``attention_mask`` and ``labels`` ``[R, S]`` (padding on either side);
            ``image_index`` / ``video_index`` ``[M]``, which item each occurrence in the text shows; perhaps ``sides``
            ``[R]``: in which mean of logits a row counts, from 0, and -1 in none.
        groups: numbers of the rows that may share; every row once.
        media_tokens: ``image`` and ``video``: their placeholder ids.
        pad: id of the padding token.

    Raises:
        PlaceholderError: a row has a part of a clip's or an image's placeholders.
    """
    rows = _rows(batch, media_tokens)
    packed: list[tuple[int, list[_Row]]] = []  # length of the shared prompt, and the rows that have it
    for group in groups:
        members = [rows[number] for number in group]
        length = _shared_length(members) if len(members) > 1 else 0
        packed += [(length, members)] if length else [(_own_prompt(row), [row]) for row in members]
    return _tensors(batch, packed, rows, pad)


def select_rows(batch: dict[str, Any], numbers: Sequence[int], media_tokens: dict[str, int]) -> dict[str, Any]:
    """Some rows of a batch, with the media that they show.

    Args:
        batch, media_tokens: as for :func:`pack`; ``pixel_values_images`` and ``pixel_values_videos`` too.
        numbers: of the rows.
    """
    picked = {name: batch[name][list(numbers)] for name in ("input_ids", "attention_mask", "labels")}
    ids = batch["input_ids"].cpu().numpy()
    for kind, token in media_tokens.items():
        index = batch.get(f"{kind}_index")
        if index is None:
            continue
        shown = [item for number in numbers for item in _media_by_row(ids, token, index, kind)[number]]
        if shown:
            items = sorted(set(shown))
            picked[f"pixel_values_{kind}s"] = batch[f"pixel_values_{kind}s"][items]
            picked[f"{kind}_index"] = torch.tensor([items.index(item) for item in shown], device=index.device)
    return picked


def unpacked(batch: dict[str, Any], vocab_size: int) -> LabelledTokens:
    """The labelled tokens of rows that stay as they are: ``answers`` of a plain forward pass."""
    mask = batch["attention_mask"]
    number, width = mask.shape
    rows, columns, tokens = learnt_tokens(batch["labels"], vocab_size)
    weights = mask.to(torch.float32).reshape(-1)
    sides = _sides(batch)
    side = torch.as_tensor(sides, device=mask.device).repeat_interleave(width)
    averages = torch.stack([weights * (side == number) for number in range(_number_of(sides))])
    averages = averages / averages.sum(-1, keepdim=True).clamp(min=1)
    return LabelledTokens(rows * width + columns - 1, tokens, rows, columns, averages, (number, width))


def groups_about_one_clip(batch: dict[str, Any], media_tokens: dict[str, int], most: int) -> list[list[int]]:
    """Groups for :func:`pack`: neighbours with the same media and the same tokens up to the last of these.

    Args:
        batch, media_tokens: as for :func:`pack`.
        most: rows of a group.
    """
    groups: list[list[int]] = []
    heads: list[np.ndarray] = []
    rows = _rows(batch, media_tokens)
    for row in rows:
        head = row.tokens[: row.media_end]
        joins = bool(groups) and len(groups[-1]) < most and len(head) > 0
        if joins and row.media == rows[groups[-1][-1]].media and np.array_equal(head, heads[-1]):
            groups[-1].append(row.number)
        else:
            groups.append([row.number])
            heads.append(head)
    return groups


def _sides(batch: dict[str, Any]) -> np.ndarray:
    number = len(batch["input_ids"])
    given = batch.get("sides")
    return np.arange(number) * 2 // max(number, 2) if given is None else given.cpu().numpy()


def _number_of(sides: np.ndarray) -> int:
    """Two at least, of which one may have no row."""
    return max(int(sides.max(initial=0)) + 1, 2)


def _rows(batch: dict[str, Any], media_tokens: dict[str, int]) -> list[_Row]:
    ids, mask, labels = (batch[name].cpu().numpy() for name in ("input_ids", "attention_mask", "labels"))
    media = [_media_by_row(ids, token, batch.get(f"{kind}_index"), kind) for kind, token in media_tokens.items()]
    rows = []
    for number in range(len(ids)):
        columns = np.flatnonzero(mask[number])
        tokens = ids[number, columns]
        is_media = np.isin(tokens, list(media_tokens.values()))
        row_labels = np.where(is_media, IGNORED_LABEL, labels[number, columns])
        rows.append(_Row(number, tokens, row_labels, columns, is_media, tuple(kind[number] for kind in media)))
    return rows


def _media_by_row(ids: np.ndarray, token: int, index: torch.Tensor | None, kind: str) -> list[tuple[int, ...]]:
    """For each row, the numbers of the items of a kind that it shows."""
    counts = (ids == token).sum(-1)
    if index is None:
        return [()] * len(ids)
    shown = index.tolist()
    size = int(counts.sum()) // max(len(shown), 1)
    if not size or (counts % size).any() or counts.sum() != size * len(shown):
        raise PlaceholderError(
            f"Expected each row to hold whole {kind}s; got {counts.tolist()} <{kind}> tokens in the rows for "
            f"{len(shown)} {kind}(s). No truncation may cut them (raise `cutoff_len`)."
        )
    ends = np.cumsum(counts // size)
    return [tuple(shown[end - count // size : end]) for end, count in zip(ends, counts, strict=True)]


def _shared_length(rows: Sequence[_Row]) -> int:
    """How many first tokens all rows have in common, each with at least one more; 0 if their media differ."""
    first = rows[0]
    length = min(len(row.tokens) for row in rows) - 1
    for row in rows[1:]:
        if row.media != first.media:
            return 0
        differs = np.flatnonzero(row.tokens[:length] != first.tokens[:length])
        length = int(differs[0]) if len(differs) else length
    return 0 if any(row.is_media[length:].any() for row in rows) else max(length, 0)


def _own_prompt(row: _Row) -> int:
    """Where the answer of a row begins that shares with none: after all media, before the last token."""
    labelled = np.flatnonzero(is_learnt(row.labels))
    start = int(labelled[0]) if len(labelled) else len(row.tokens) - 1
    return max(min(start, len(row.tokens) - 1), row.media_end)


def _tensors(batch: dict[str, Any], packed: list[tuple[int, list[_Row]]], rows: list[_Row], pad: int) -> PackedRows:
    prompt_width = max(length for length, _ in packed)
    width = prompt_width + max(sum(len(row.tokens) - length for row in members) for length, members in packed)
    ids = np.full((len(packed), width), pad, dtype=np.int64)
    positions, segments = np.zeros_like(ids), np.full_like(ids, PADDING)
    places: dict[int, np.ndarray] = {}  # row -> flat place of each of its tokens
    for number, (length, members) in enumerate(packed):
        start = prompt_width
        for answer, row in enumerate(members, start=1):
            own = len(row.tokens) - length
            columns = np.concatenate([np.arange(length), np.arange(start, start + own)])
            ids[number, columns] = row.tokens
            positions[number, columns] = np.arange(len(row.tokens))
            segments[number, columns] = np.repeat([PROMPT, answer], [length, own])
            places[row.number] = number * width + columns
            start += own
    device = batch["input_ids"].device
    inputs: dict[str, Any] = {
        "input_ids": torch.from_numpy(ids).to(device),
        "position_ids": torch.from_numpy(positions).to(device),
        "segment_ids": torch.from_numpy(segments).to(device),
        "prompt_width": prompt_width,
    }
    for kind, name in enumerate(("image_index", "video_index")):
        if batch.get(name) is not None:
            shown = [item for _, members in packed for item in members[0].media[kind]]
            inputs[name] = torch.tensor(shown, dtype=torch.long, device=batch[name].device)
    labelled = _labelled(rows, places, ids.size, batch)
    return PackedRows(inputs, labelled, sum(len(members) for _, members in packed if len(members) > 1))


def _labelled(rows: list[_Row], places: dict[int, np.ndarray], size: int, batch: dict[str, Any]) -> LabelledTokens:
    positions, tokens, numbers, columns = [], [], [], []
    sides, shape = _sides(batch), batch["labels"].shape
    averages = np.zeros((_number_of(sides), size), dtype=np.float32)
    for row in rows:
        at = np.flatnonzero(is_learnt(row.labels))
        positions.append(places[row.number][at - 1])
        tokens.append(row.labels[at])
        numbers.append(np.full(len(at), row.number))
        columns.append(row.columns[at])
        if sides[row.number] >= 0:
            averages[sides[row.number], places[row.number]] += 1
    averages /= np.maximum(averages.sum(-1, keepdims=True), 1)

    def joined(parts: list[np.ndarray]) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(parts)).to(batch["labels"].device)

    return LabelledTokens(
        positions=joined(positions),
        tokens=joined(tokens),
        rows=joined(numbers),
        columns=joined(columns),
        averages=torch.from_numpy(averages).to(batch["labels"].device),
        shape=(shape[0], shape[1]),
    )
