"""Log-probabilities of all rows under the reference, before the policy is loaded, shared out to the processes.

Each process holds the whole reference, as the host loads it, and no other model. Batches are made from the order of the
rows alone, so that neither the number of processes nor a stop in between changes them. With ``hound.feature_cache``,
clips and images whose features are on disk are not decoded, and what the towers make of the others is stored: the
policy's frozen towers are the reference's, unless it is another model.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from llamafactory.data import KTODataCollatorWithPadding, PairwiseDataCollatorWithPadding
from llamafactory.extras import logging
from llamafactory.extras.constants import IGNORE_INDEX
from tqdm import tqdm
from transformers.integrations import deepspeed

from hound_plugin.errors import DataError
from hound_plugin.host import ranks, tower_cache
from hound_plugin.host.labelled_step import joined_rows
from hound_plugin.host.preference_step import PreferenceStep, composite_of
from hound_plugin.host.reference.file import PartialFile, Rows, Stored
from hound_plugin.host.reference.state import Arguments
from hound_plugin.host.tower_step import WholeTowers, encoded_batch

logger = logging.get_logger(f"llamafactory.{__name__}")

Place = tuple[Any, int]
"""A data set and the number of a row in it."""
_COLLATORS = {"dpo": PairwiseDataCollatorWithPadding, "kto": KTODataCollatorWithPadding}


def compute_rows(
    arguments: Arguments, template: Any, tokens: dict[str, Any], places: dict[str, Place], done: Rows, part: PartialFile
) -> Rows:
    """Compute the rows that are not done, each process its share.

    Args:
        arguments: of the training.
        template, tokens: of the host: its template, and ``tokenizer`` and ``processor``.
        places: all rows of the training by their keys.
        done: rows that are known.
        part: where this process notes what it has computed.

    Returns:
        All rows, in the order of ``places``.

    Raises:
        DataError: a log-probability is not finite, or a row was left out.
    """
    keys = list(places)
    size = arguments.training.per_device_train_batch_size
    batches = [keys[start : start + size] for start in range(0, len(keys), size)]
    batches = [batch for batch in batches if any(key not in done for key in batch)]
    rank, world = ranks.rank_and_size()
    share = batches[rank::world]
    is_cast = bool(arguments.training.deepspeed or os.environ.get("ACCELERATE_USE_FSDP"))
    with _plain_reference(arguments) as model, _feature_cache(model, arguments, is_cast) as with_features:
        sums_of = RowSums(model, arguments.finetuning.stage)
        progress = tqdm(total=len(keys), desc="Reference log-probabilities", unit="row", disable=rank != 0)
        progress.update(len(keys) - sum(map(len, batches)))
        own: Rows = {}
        for number, batch in enumerate(_batches(arguments, template, tokens, places, share)):
            rows = _checked(share[number], sums_of(with_features(batch)), places)
            part.append(rows)
            own |= rows
            progress.update(sum(map(len, batches[number * world : (number + 1) * world])))
        progress.close()
    computed = {key: row for rows in ranks.gathered(own) for key, row in rows.items()}
    return {key: done.get(key) or computed[key] for key in keys}


def _batches(
    arguments: Arguments, template: Any, tokens: dict[str, Any], places: dict[str, Place], keys: list[list[str]]
) -> Iterator[dict[str, Any]]:
    """Batches of the rows with these keys, as the training's collator makes them, on its device."""
    pad = tokens["tokenizer"].pad_token_id
    collate = _COLLATORS[arguments.finetuning.stage](
        template=template,
        pad_to_multiple_of=8,
        label_pad_token_id=IGNORE_INDEX if arguments.data.ignore_pad_token_for_loss else pad,
        **tokens,
    )
    loader: Any = torch.utils.data.DataLoader(
        _Rows(places),  # type: ignore[arg-type]
        batch_sampler=keys,
        collate_fn=collate,
        num_workers=arguments.training.dataloader_num_workers,
        generator=torch.Generator(),
    )
    for batch in loader:
        yield {name: value.to(arguments.training.device) for name, value in batch.items()}


@contextlib.contextmanager
def _feature_cache(model: Any, arguments: Arguments, is_cast: bool) -> Iterator[Callable[[Any], Any]]:
    """What gives a batch features instead of pixels, while the feature cache is the reference's.

    Args:
        model: the reference.
        arguments: of the training.
        is_cast: the training's engine casts its batches.
    """
    tower_cache.begin(composite_of(model), arguments.finetuning.stage, arguments.model.compute_dtype)
    cache = tower_cache.active()
    mixed = arguments.training.bf16 or arguments.training.fp16
    encode = WholeTowers(model, arguments.model.compute_dtype if mixed else None, is_cast)
    try:
        yield (lambda batch: batch) if cache is None else (lambda batch: encoded_batch(cache, batch, encode))
    finally:
        tower_cache.reset()  # the policy opens its own


class _Rows:
    """Rows of several data sets by their keys."""

    def __init__(self, places: dict[str, Place]) -> None:
        self._places = places

    def __getitem__(self, key: str) -> dict[str, Any]:
        dataset, number = self._places[key]
        row: dict[str, Any] = dataset[number]
        return row


class RowSums:
    """Sums of log-probabilities and numbers of labelled tokens of a batch: ``[2, B]`` each."""

    def __init__(self, model: Any, stage: str) -> None:
        self._model, self._stage = model, stage
        self._step = PreferenceStep(None, model, has_reference=False)

    @torch.no_grad()
    def __call__(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        rows = batch if self._stage == "dpo" else joined_rows(batch)
        _, log_probs, labelled = self._step.log_probs(self._model, rows, is_reference=False)
        return log_probs.sum(-1).view(2, -1), labelled.sum(-1).view(2, -1)


def _checked(keys: list[str], values: tuple[torch.Tensor, torch.Tensor], places: dict[str, Place]) -> Rows:
    sums, tokens = (value.T.tolist() for value in values)
    if len(sums) != len(keys):
        raise DataError(
            f"hound.reference_log_probs: {len(keys) - len(sums)} of the rows "
            f"{', '.join(str(places[key][1]) for key in keys)} cannot be used, because their media went bad after they "
            "were checked. Start the training again."
        )
    for key, pair in zip(keys, sums, strict=True):
        if not np.isfinite(pair).all():
            raise DataError(
                f"hound.reference_log_probs: the reference gives row {places[key][1]} the log-probabilities {pair}. "
                "Check that its weights are finite, and use bf16 or fp32 instead of fp16."
            )
    return {
        key: Stored((pair[0], pair[1]), (count[0], count[1]))
        for key, pair, count in zip(keys, sums, tokens, strict=True)
    }


@contextlib.contextmanager
def _plain_reference(arguments: Arguments) -> Iterator[Any]:
    """The reference as the host loads it, whole, in this process alone; random numbers go on as if it had not been."""
    from llamafactory.train.trainer_utils import create_ref_model

    finetuning = copy.copy(arguments.finetuning)
    if finetuning.ref_model is None:
        finetuning.finetuning_type = "full"  # for LoRA, the host would take the policy without its adapter
    with _without_sharding(), _same_random_numbers():
        model = create_ref_model(copy.copy(arguments.model), finetuning)
        if not any(getattr(model, f"is_loaded_in_{bits}bit", False) for bits in (4, 8)):
            model.to(arguments.training.device)
        model.eval()
        for module in model.modules():
            if type(module).__module__.startswith("bitsandbytes"):
                module.training = True  # in evaluation, these change their weights on a CPU for good
        yield model
        del model
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@contextlib.contextmanager
def _without_sharding() -> Iterator[None]:
    """Load and run as if neither ZeRO-3 nor FSDP were asked for: a forward pass alone needs no sharded model."""
    weak = deepspeed._hf_deepspeed_config_weak_ref
    config = weak() if weak is not None else None
    fsdp = os.environ.pop("ACCELERATE_USE_FSDP", None)
    deepspeed.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        if config is not None:
            deepspeed.set_hf_deepspeed_config(config)
        if fsdp is not None:
            os.environ["ACCELERATE_USE_FSDP"] = fsdp


@contextlib.contextmanager
def _same_random_numbers() -> Iterator[None]:
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
