"""``hound.group_questions``: the loss of rows that share their clip's tokens, to the same numbers as separate rows."""

from __future__ import annotations

from typing import Any

import torch

from hound_plugin.errors import SettingsError
from hound_plugin.host.preference_step import compare_with_separate, composite_of
from hound_plugin.host.settings_state import settings
from hound_plugin.model.packed_rows import LabelledTokens, groups_about_one_clip, pack, select_rows

_ROWS = ("input_ids", "attention_mask", "labels", "image_index", "video_index")


class GroupedStep:
    """How a trainer's batches are packed. The first batch with rows that share a clip is compared with separate rows.

    Raises:
        SettingsError: the language model drops attention weights at random.
    """

    def __init__(self, model: Any, most: int) -> None:
        self.model = composite_of(model)
        self.most = most
        config = self.model.config
        self.media_tokens = {"image": config.image_token_id, "video": config.video_token_id}
        dropout = getattr(config.text_config, "attention_dropout", 0.0)
        if dropout:
            raise SettingsError(
                f"hound.group_questions: {most} would give all rows of a clip the same random zeros, and the language "
                f"model has `attention_dropout: {dropout}`. Set it to 0 in `text_config` of the checkpoint's "
                "config.json, or `hound.group_questions: off`.",
                "hound.group_questions",
            )
        self._checked = False

    def inputs(self, model: Any, batch: dict[str, Any]) -> dict[str, Any]:
        """What the model takes to give the loss of a batch.

        Args:
            model: as the trainer has it, wrapped.
            batch: from the collator; rows of a clip are next to each other.

        Raises:
            TrainingError: rows that share a clip give other numbers than separate ones.
        """
        groups = groups_about_one_clip(batch, self.media_tokens, self.most)
        self._check_once(model, batch, groups)
        packed, labelled = self._packed(batch, groups)
        rest = {name: value for name, value in batch.items() if name not in _ROWS}
        answers = {name: value for name, value in labelled.inputs().items() if name != "averages"}
        return {**rest, **packed, "answers": answers, "answers_only": True, "use_cache": False}

    def _packed(self, batch: dict[str, Any], groups: list[list[int]]) -> tuple[dict[str, Any], LabelledTokens]:
        rows = pack(batch, groups, self.media_tokens, pad=0)
        return rows.inputs, rows.labelled

    def _check_once(self, model: Any, batch: dict[str, Any], groups: list[list[int]]) -> None:
        """All ranks compare in the same step, the first in which one of them has rows that share a clip."""
        if self._checked:
            return
        largest = max(groups, key=len)
        vote = torch.tensor([float(len(largest) > 1)], device=batch["input_ids"].device)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(vote, op=torch.distributed.ReduceOp.MAX)
        if not bool(vote):
            return
        self._checked = True
        group = select_rows(batch, largest, self.media_tokens)
        packed = self._packed(group, [list(range(len(largest)))])
        compare_with_separate(model, group, packed, "The first group of rows about one clip", "group_questions")


def grouped_inputs(trainer: Any, model: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs of a training step with ``hound.group_questions``; without it as they are, the loss from labels alone.

    Args:
        trainer: the host's; its :class:`GroupedStep` is kept on it.
        model, inputs: of its ``compute_loss``.
    """
    most = settings().group_questions
    if most is None:
        return {**inputs, "answers_only": True}
    step = getattr(trainer, "_hound_step", None)
    if step is None:
        step = trainer._hound_step = GroupedStep(model, most)
    return step.inputs(model, inputs)
