"""What ``cutoff_len`` does to rows, and what the model's positions allow.

A prompt is never cut: such a row is an error (see :mod:`hound_plugin.host.dataset_checks`). Answers that are cut are
counted over all rows and reported once. The counts travel from the processes that tokenise as two columns, which are
taken out again before the data set is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from datasets import Dataset
from llamafactory.extras import logging

from hound_plugin.errors import DataError, SettingsError
from hound_plugin.host import column_types
from hound_plugin.host.settings_state import settings

logger = logging.get_logger(__name__)

PACKED_MULTIPLE = 8
"""The host's collator pads to it."""
CUT, NEEDED = "hound_cut_answers", "hound_needed_tokens"


def note_cut(encoder: Any, needed: int) -> None:
    """Remember that ``encoder`` (a dataset processor of the host's) cut the answer of a row of ``needed`` tokens."""
    encoder.__dict__.setdefault("_hound_cut", []).append(needed)


def count_cut_answers(original: Callable[..., Any], self: Any, examples: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """``preprocess_dataset`` of a dataset processor, with the two columns added (not for streams)."""
    self.__dict__.pop("_hound_cut", None)
    columns = original(self, examples)
    cut: list[int] = self.__dict__.pop("_hound_cut", [])  # what is left would change the cache's fingerprint
    rows = len(next(iter(columns.values()), []))
    if self.data_args.streaming:
        if cut:
            _report(len(cut), max(cut), None, self.data_args)
    elif rows:
        columns[CUT] = [len(cut)] + [0] * (rows - 1)
        columns[NEEDED] = [max(cut, default=0)] + [0] * (rows - 1)
    return columns


def tokenise_and_report(original: Callable[..., Any], dataset: Any, data_args: Any, *args: Any, **kwargs: Any) -> Any:
    """The host's ``_get_preprocessed_dataset``: types of media columns, and the report of cut answers.

    Raises:
        DataError: answers were cut, and ``on_cut_answers`` is ``error``.
    """
    result = column_types.tokenise_with_types(original, dataset, data_args, *args, **kwargs)
    if not isinstance(result, Dataset) or CUT not in result.column_names:
        return result
    cut, needed = sum(result[CUT]), max(result[NEEDED])
    result = result.remove_columns([CUT, NEEDED])
    if cut:
        _report(cut, needed, len(dataset), data_args)
    return result


def keep_prompt(original: Callable[..., Any], source_len: int, target_len: int, cutoff_len: int) -> tuple[int, int]:
    """The host's ``infer_seqlen``, which cuts the prompt first; here the answer is cut, or the turn is dropped.

    Args:
        original: the host's function.
        source_len, target_len: tokens of a turn's prompt and answer.
        cutoff_len: tokens that are left for the turn.

    Returns:
        How many tokens of each remain.
    """
    if source_len >= cutoff_len:
        return 0, 0
    return source_len, min(target_len, cutoff_len - source_len)


def as_written(data_args: Any, tokens: int, enough: bool = False) -> int:
    """The ``cutoff_len`` of a recipe for a number of tokens; with packing, the host's parser subtracts one.

    Args:
        data_args: the host's.
        tokens: of a row.
        enough: round up to what packing accepts.
    """
    written = tokens + (1 if data_args.packing else 0)
    return -(-written // PACKED_MULTIPLE) * PACKED_MULTIPLE if enough and data_args.neat_packing else written


def _report(cut: int, needed: int, rows: int | None, data_args: Any) -> None:
    message = (
        f"`cutoff_len: {as_written(data_args, data_args.cutoff_len)}` cuts the end of a conversation in {cut} of "
        f"{rows} rows: the model never sees how those answers end. `cutoff_len: "
        f"{as_written(data_args, needed, True)}` cuts none."
        if rows is not None
        else f"`cutoff_len: {data_args.cutoff_len}` cuts the end of a conversation in {cut} rows so far; these need up "
        f"to {needed} tokens."
    )
    if settings().on_cut_answers == "error":
        raise DataError(f"{message} Raise it, shorten the answers, or set `hound.on_cut_answers: warn`.")
    logger.warning_rank0(message)


def check_positions(processor: Any, tokens: int, where: str) -> None:
    """Compare a row with the positions that the language model was trained on.

    Args:
        processor: the model's; ``context_length`` is the number of positions.
        tokens: of the row, visual ones included.
        where: names the row.

    Raises:
        SettingsError: there are too few; the message has the arithmetic.
    """
    limit = getattr(processor, "context_length", None)
    if limit is not None and tokens > limit:
        frames, clip = processor.num_frames, processor.tokens_per_video
        raise SettingsError(
            f"Expected rows of at most {limit} tokens, the positions that this language model was trained on "
            f"(`max_position_embeddings`); the row of {where} has {tokens}, and a clip takes {frames} frames x "
            f"{clip // frames} tokens = {clip}. Lower `hound.num_frames` or `cutoff_len`, or extend the positions by "
            "`rope_parameters` in `text_config` of the checkpoint's config.json."
        )
