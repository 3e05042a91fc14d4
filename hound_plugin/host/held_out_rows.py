"""Rows that a run is evaluated on: each of them once, and none of them in its training."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from llamafactory.extras import logging

from hound_plugin.errors import SettingsError
from hound_plugin.host import settings_state

logger = logging.get_logger(__name__)
_SOME = 1e-6  # the least `val_size` for which the host holds rows out


def holds_out(data_args: Any) -> bool:
    """Whether `val_size` takes rows away from the training."""
    return bool(data_args.val_size > _SOME)


def unmixed(names: Any, data_args: Any) -> Any:
    """The host's options for reading the data sets ``names``: those of an evaluation are joined, not mixed.

    `mix_strategy` is for training: it would evaluate some rows several times, and others not at all.
    """
    if names is None or names is not data_args.eval_dataset or data_args.mix_strategy == "concat":
        return data_args
    logger.info_rank0("`mix_strategy` is for training: each row of `eval_dataset` is evaluated once.")
    joined = copy.copy(data_args)
    joined.mix_strategy, joined.interleave_probs = "concat", None
    return joined


def check_mixture(data_args: Any) -> None:
    """Refuse mixtures that never end, and those that would train on rows that are held out.

    Raises:
        SettingsError: says what to do.
    """
    if data_args.mix_strategy != "interleave_over" or len(data_args.dataset or []) < 2:
        return
    if any(not share > 0 for share in data_args.interleave_probs or []):
        raise SettingsError(
            "`mix_strategy: interleave_over` reads until every data set has been read once, which a share of 0 in "
            f"`interleave_probs` prevents; got {data_args.interleave_probs}. Leave that data set out of `dataset`."
        )
    if holds_out(data_args):
        raise SettingsError(
            "`mix_strategy: interleave_over` repeats rows, and `val_size` would hold out some that are trained on too. "
            "Name held-out rows as `eval_dataset` (`hound corpus convert FILE OUT --split 0.05` makes them)."
        )


def split(original: Callable[..., Any], dataset: Any, eval_dataset: Any, data_args: Any, seed: int) -> Any:
    """The host's ``split_dataset``; of a stream, the same rows are held out in every epoch.

    The host takes them from the shuffled stream, which is shuffled in another way in the next epoch: then they are
    trained on.

    Raises:
        SettingsError: there are not more rows than `val_size`.
    """
    is_split = dataset is not None and eval_dataset is None and data_args.streaming and holds_out(data_args)
    if not (is_split and settings_state.is_ours()):
        return original(dataset, eval_dataset, data_args, seed=seed)
    count, buffer = int(data_args.val_size), data_args.buffer_size
    mixed = dataset.shuffle(buffer_size=buffer, seed=seed)
    mixed._shuffling = None  # one order in every epoch: what follows it does not shuffle it again
    rest = mixed.skip(count)
    if next(iter(rest), None) is None:
        raise SettingsError(
            f"Expected a `val_size` below the number of rows; got {count}, which leaves none to train on. Lower it."
        )
    return {"train": rest.shuffle(buffer_size=buffer, seed=seed)}, {"validation": mixed.take(count)}
