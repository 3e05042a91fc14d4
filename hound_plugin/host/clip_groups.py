"""``hound.group_questions``: the rows of a data set that show the same clip are read together.

A group is what a batch counts: ``per_device_train_batch_size: 2`` takes two groups, as it takes two packs with the
host's ``neat_packing``. Groups are shuffled, shared out among processes and skipped on resuming as rows are otherwise.
:mod:`hound_plugin.host.grouped_step` lets the rows of a group share their clip's tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llamafactory.extras import logging
from torch.utils.data import Dataset

from hound_plugin.errors import SettingsError
from hound_plugin.host.mm_plugin import media_key
from hound_plugin.host.settings_state import settings

logger = logging.get_logger(f"llamafactory.{__name__}")  # shown as the host's own messages are

_MEDIA = ("videos", "images")


class ClipGroups(Dataset[list[dict[str, Any]]]):
    """A data set of the host's whose items are groups of its rows.

    Attributes:
        rows: the data set.
        groups: numbers of rows: each once, in the data set's order within a group, groups in the order of their first
            rows.
    """

    def __init__(self, rows: Any, groups: Sequence[Sequence[int]]) -> None:
        self.rows = rows
        self.groups = groups

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, number: int) -> list[dict[str, Any]]:
        return [self.rows[row] for row in self.groups[number]]


def groups_of(rows: Any, most: int) -> list[list[int]]:
    """Groups of up to ``most`` rows with the same clips and images.

    Rows without media, and rows whose media have no path to compare them by, are groups of their own.

    Args:
        rows: a data set with columns ``videos`` and ``images``; nothing else of it is read.
        most: rows of a group.
    """
    media = rows.select_columns([name for name in _MEDIA if name in rows.column_names])
    groups: list[list[int]] = []
    filling: dict[Any, list[int]] = {}
    for number, row in enumerate(media):
        shown = tuple(tuple(map(media_key, row.get(name) or [])) for name in _MEDIA)
        group = filling.get(shown)
        if group is None or len(group) == most:
            group = []
            groups.append(group)
            if any(shown) and not any(isinstance(key, int) for kind in shown for key in kind):
                filling[shown] = group
        group.append(number)
    return groups


def grouped_loader(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    """``CustomSeq2SeqTrainer.get_train_dataloader``, whose batches count groups."""
    most = settings().group_questions
    if most is not None and not isinstance(self.train_dataset, ClipGroups):
        rows = self.train_dataset
        self.train_dataset = ClipGroups(rows, groups_of(rows, most))
        _log(self.train_dataset, self.args, most)
    return original(self, *args, **kwargs)


def flat_rows(features: Sequence[Any]) -> list[dict[str, Any]]:
    """The rows of a batch of groups, or of rows."""
    return [row for item in features for row in (item if isinstance(item, list) else [item])]


def _log(dataset: ClipGroups, training: Any, most: int) -> None:
    rows, groups = sum(map(len, dataset.groups)), len(dataset)
    shared = sum(len(group) for group in dataset.groups if len(group) > 1)
    size = training.per_device_train_batch_size
    logger.info_rank0(
        f"hound.group_questions: {most}: {rows} rows in {groups} groups about one clip each; {shared} rows share "
        "theirs. Rows of a clip stand together, every row once an epoch. "
        f"`per_device_train_batch_size: {size}` is {size} group(s): up to {size * most} rows, "
        f"{size * rows / max(groups, 1):.1f} on average. The examples that the trainer counts are groups."
    )
    if not shared:
        logger.warning_rank0(
            f"hound.group_questions: {most} has no effect: no two rows of the data set show the same clip."
        )


def check_grouping(finetuning: Any, training: Any, data: Any) -> None:
    """Refuse what rows that share a clip's tokens cannot be trained with.

    Args:
        finetuning, training, data: the host's arguments of a training.

    Raises:
        SettingsError: an option contradicts ``group_questions``; the message names it.
    """
    most = settings().group_questions
    if most is None:
        return
    for problem, advice in _contradictions(finetuning, training, data):
        if problem:
            raise SettingsError(f"hound.group_questions: {most} {advice}", "hound.group_questions")


def _contradictions(finetuning: Any, training: Any, data: Any) -> list[tuple[Any, str]]:
    """Whether an option is set, and what it does not go with."""
    reads_logits = [name for name in ("use_dft_loss", "use_eaft_loss", "use_asft_loss") if getattr(finetuning, name)]
    strategy = training.train_sampling_strategy
    dropout = finetuning.finetuning_type == "lora" and finetuning.lora_dropout
    return [
        (
            finetuning.stage != "sft",
            f"is for `stage: sft`; got `stage: {finetuning.stage}`, in which the answers to a prompt share it by "
            "themselves (`hound.prefix_sharing`). Remove it.",
        ),
        (
            data.packing or data.neat_packing,
            "and packing both join rows. Remove `packing` and `neat_packing`, or set `hound.group_questions: off`.",
        ),
        (
            data.streaming,
            "needs a data set whose rows can be looked up, and `streaming: true` only reads them in sequence. "
            "Remove one of the two.",
        ),
        (
            strategy == "group_by_length",
            f"and `train_sampling_strategy: {strategy}` both decide which rows stand together. Remove one of the two.",
        ),
        (
            reads_logits,
            f"computes log-probabilities of labels alone, and `{', '.join(reads_logits)}` needs all logits. Remove one "
            "of the two.",
        ),
        (
            training.label_smoothing_factor,
            f"computes log-probabilities of labels alone, and `label_smoothing_factor: "
            f"{training.label_smoothing_factor}` needs all logits. Remove one of the two.",
        ),
        (
            settings().answers_only == "off",
            "computes log-probabilities of labels alone, which `hound.answers_only: off` forbids. Remove one of them.",
        ),
        (
            dropout,
            f"would give all rows of a clip the same random zeros of `lora_dropout: {finetuning.lora_dropout}`. Set "
            "`lora_dropout: 0`, or `hound.group_questions: off`.",
        ),
        (
            getattr(training, "neftune_noise_alpha", None),
            "would give all rows of a clip the same noise of `neftune_noise_alpha`. Remove one of the two.",
        ),
    ]
