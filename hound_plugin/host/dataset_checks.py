"""Checks of tokenised rows: no visual token is cut, and there is something to learn. :mod:`media_checks` follows."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import Any

from llamafactory.extras import logging

from hound_plugin.errors import DataError, SettingsError
from hound_plugin.host import (
    alignment,
    media_checks,
    resume,
    run_identity,
    sequence_length,
    settings_state,
    token_notes,
)
from hound_plugin.host.mm_plugin import is_ours
from hound_plugin.host.reference import stored
from hound_plugin.host.settings_state import settings
from hound_plugin.model.labels import IGNORED_LABEL
from hound_plugin.records.parse import REPEATED
from hound_plugin.records.placeholders import token_of

logger = logging.get_logger(__name__)

_UNLIMITED = 1 << 40


def check_encoding(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    """Run a dataset processor's ``_encode_data_example`` and check what ``cutoff_len`` leaves of the row.

    Raises:
        DataError: visual tokens were cut (the message names the ``cutoff_len`` that is needed), or nothing is left to
            learn.
        SettingsError: the row has more tokens than the language model has positions.
    """
    result = original(self, *args, **kwargs)
    if not is_ours(self.template):
        return result
    videos, images = kwargs.get("videos") or [], kwargs.get("images") or []
    _say_repeated(kwargs.get("prompt") or [], {"video": len(videos), "image": len(images)})
    expected = len(videos) * self.processor.tokens_per_video + len(images) * self.processor.tokens_per_image
    visual = {self.processor.image_token_id, self.processor.video_token_id}
    sequences = [ids for ids in result if isinstance(ids, list)]
    # (input_ids, labels), (chosen ids, labels, rejected ids, labels) or (ids, labels, kl ids, kl labels, tag)
    cut = any(sum(token in visual for token in ids) != expected for ids in sequences[0::2])
    masked = any(all(label == IGNORED_LABEL for label in labels) for labels in sequences[1::2])
    generating = type(self).__name__ == "UnsupervisedDatasetProcessor"  # its labels are for scoring and may be empty
    full = sequences
    if cut or masked or max(map(len, sequences)) >= self.data_args.cutoff_len:
        full = _uncut(original, self, args, kwargs)
    if cut or (masked and not generating):
        _explain(self, full, kwargs, "visual tokens" if cut else "the whole answer")
    pairs = zip(sequences[0::2], full[0::2], strict=True)
    if not all(short == (whole if generating else whole[: len(short)]) for short, whole in pairs):
        _explain(self, full, kwargs, "the conversation")
    if max(map(len, full)) > max(map(len, sequences)):
        sequence_length.note_cut(self, max(map(len, full)))
    sequence_length.check_positions(self.processor, max(map(len, sequences)), _named(kwargs))
    if self.data_args.train_on_prompt:  # no model says a placeholder
        for ids, labels in zip(sequences[0::2], sequences[1::2], strict=True):
            labels[:] = [IGNORED_LABEL if token in visual else label for token, label in zip(ids, labels, strict=True)]
    return result


def _say_repeated(prompt: list[dict[str, str]], counts: dict[str, int]) -> None:
    """In the host's formats; rows of ours are counted when they are parsed, and have one placeholder for each item."""
    for kind, count in counts.items():
        written = sum(turn["content"].count(token_of(kind)) for turn in prompt if turn["role"] == "user")
        if count and written > count:
            logger.warning_rank0_once(f"{REPEATED[kind]}.")


def _named(kwargs: Any) -> str:
    media = [item if isinstance(item, str) else "" for item in (kwargs.get("videos") or kwargs.get("images") or [])]
    return f"{media[0]!r}" if media else repr((kwargs.get("prompt") or [{}])[-1].get("content", ""))[:200]


def _uncut(original: Callable[..., Any], self: Any, args: Any, kwargs: Any) -> list[list[int]]:
    unlimited = copy.copy(self)
    unlimited.data_args = copy.copy(self.data_args)
    unlimited.data_args.cutoff_len = _UNLIMITED
    return [ids for ids in original(unlimited, *args, **kwargs) if isinstance(ids, list)]


def _explain(self: Any, full: list[list[int]], kwargs: Any, what: str) -> None:
    limit = sequence_length.as_written(self.data_args, self.data_args.cutoff_len)
    needed = sequence_length.as_written(self.data_args, max(len(ids) for ids in full[0::2]), enough=True)
    where = _named(kwargs)
    if needed <= limit:
        raise DataError(f"Expected something to learn in the row of {where}, but its answer is empty. Remove the row.")
    raise DataError(
        f"`cutoff_len: {limit}` cuts {what} of the row of {where}, which has {needed} tokens. Set `cutoff_len` to at "
        f"least {needed}: one clip takes {self.processor.tokens_per_video} tokens."
    )


def check_datasets(
    original: Callable[..., Any],
    template: Any,
    model_args: Any,
    data_args: Any,
    training_args: Any,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Run the host's ``get_dataset`` and check the media of what it returns (setting ``check_media``).

    Raises:
        DataError: a tokenised data set on disk was made for other settings, rows or another model.
        SettingsError: the checkpoint to resume from was trained on other rows or weights; `packing` without
            `neat_packing`, or a `cutoff_len` that packing cannot use.
        MediaError: a clip or an image cannot be used.
        InUseError: another run computes the file of `reference_log_probs`.
    """
    if is_ours(template):
        _check_packing(data_args)
        template.settle_system(data_args.default_system, kwargs["processor"])
    if is_ours(template) and data_args.streaming and training_args.accelerator_config.dispatch_batches is None:
        # accelerate would split one process's batch by rows for the others; clips are not rows
        training_args.accelerator_config.dispatch_batches = False
    workers = training_args.dataloader_num_workers
    if is_ours(template) and data_args.streaming and not workers:
        training_args.dataloader_num_workers = (
            1  # the host splits a stream into that many shards, and none may be empty
        )
    alignment.begin(training_args)
    if is_ours(template) and training_args.do_train:
        _check_resumed(data_args, training_args)
    made_for: dict[str, Any] | None = None
    if is_ours(template) and data_args.tokenized_path is not None:
        made_for = token_notes.made_for(template, kwargs["processor"], data_args, training_args)
        if os.path.isdir(data_args.tokenized_path) and os.listdir(data_args.tokenized_path):
            token_notes.check(data_args.tokenized_path, made_for)
            made_for = None  # nothing is tokenised
    try:
        module = original(template, model_args, data_args, training_args, *args, **kwargs)
    except DataError:
        raise
    except Exception:
        alignment.settle(training_args)  # the host may have failed because bad rows were taken out
        raise
    finally:
        training_args.dataloader_num_workers = workers
    if not is_ours(template):
        return module
    if made_for is not None:
        if training_args.should_save:
            token_notes.write(data_args.tokenized_path, made_for)
        settings_state.record_rows(token_notes.rows_of(data_args))
    for dataset in (module.get("train_dataset"), module.get("eval_dataset")):
        _check_tokens(dataset, kwargs.get("processor"))
    if settings().check_media != "off":
        module = media_checks.check(module, training_args)
    return stored.attach(module, template, {name: kwargs[name] for name in ("tokenizer", "processor")})


def _check_resumed(data_args: Any, training_args: Any) -> None:
    """Compare rows and models with those of the run that a checkpoint belongs to, and note them."""
    run, output_dir = settings_state.run(), training_args.output_dir
    rows = token_notes.rows_of(data_args)
    models, files = run_identity.models_of(run, output_dir), run_identity.model_files_of(run, output_dir)
    resume.check_content(rows, models, files, training_args.resume_from_checkpoint)
    settings_state.record_rows(rows)
    settings_state.record_models(models, files)


def _check_packing(data_args: Any) -> None:
    """Packing must keep rows apart, and the host's padding must fit its position ids."""
    if data_args.packing and not data_args.neat_packing:
        raise SettingsError(
            "`packing: true` lets the rows of a pack attend to one another: an answer would see other rows' clips. "
            + (
                "Set `packing: false`; the host turns packing on in `stage: pt` unless told otherwise."
                if settings_state.stage() == "pt"
                else "Use `neat_packing: true`, which keeps them apart and gives the losses of single rows."
            )
        )
    multiple, length = sequence_length.PACKED_MULTIPLE, sequence_length.as_written(data_args, data_args.cutoff_len)
    if data_args.neat_packing and length % multiple:
        raise SettingsError(
            f"Expected a `cutoff_len` that is a multiple of {multiple} with `neat_packing`, because the host pads to "
            f"it; got {length}. Set it to {-(-length // multiple) * multiple}."
        )


def _check_tokens(dataset: Any, processor: Any) -> None:
    """Compare the first row's visual tokens with what the processor would make now."""
    if processor is None or not hasattr(dataset, "__len__") or isinstance(dataset, dict) or not len(dataset):
        return
    row = dataset[0]
    ids = row.get("input_ids") or row.get("chosen_input_ids") or []
    expected = len(row.get("videos") or []) * processor.tokens_per_video
    expected += len(row.get("images") or []) * processor.tokens_per_image
    present = sum(token in (processor.image_token_id, processor.video_token_id) for token in ids)
    if present and settings_state.stage() == "pt":
        raise DataError(
            "`stage: pt` trains on text alone, and the first row has a clip or an image. Use `stage: sft`, as "
            "examples/yaml/hound_pretrain.yaml does."
        )
    if present != expected:
        raise DataError(
            f"Expected {expected} visual tokens in the first row of the tokenised data set, found {present}: it was "
            "made for another `num_frames` or another model. Delete the folder of `tokenized_path`, or choose another."
        )
