"""What must hold before the first step: nothing visual is cut, something is learnt, and the media can be read."""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from logging import Filter
from typing import Any

import torch
from llamafactory.extras import logging
from tqdm import tqdm

from hound_plugin.errors import DataError, MediaDecodeError, MediaError, SettingsError
from hound_plugin.host import alignment, sequence_length, settings_state
from hound_plugin.host.settings_state import settings
from hound_plugin.media.decode import probe
from hound_plugin.processing.processor import open_image

logger = logging.get_logger(__name__)

SAMPLE = 20000
_TEMPLATE = "llava_hound"
_UNLIMITED = 1 << 40


def _is_ours(template: Any) -> bool:
    from hound_plugin.host.template import LlavaHoundTemplate

    return isinstance(template, LlavaHoundTemplate)


class OnePreferenceFilter(Filter):
    """Drop the host's warning of one preference type for our template: it looks at each batch of rows alone.

    :mod:`hound_plugin.host.alignment` looks at all labels.
    """

    def filter(self, record: Any) -> bool:
        return settings_state.template() != _TEMPLATE or "only has one preference type" not in record.getMessage()


def checked_encoding(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    """Run a dataset processor's ``_encode_data_example`` and check what ``cutoff_len`` left of the row.

    Raises:
        DataError: visual tokens were cut (the message names the ``cutoff_len`` that is needed), or nothing is left
            to learn.
        SettingsError: the row has more tokens than the language model has positions.
    """
    result = original(self, *args, **kwargs)
    if not _is_ours(self.template):
        return result
    videos, images = kwargs.get("videos") or [], kwargs.get("images") or []
    expected = len(videos) * self.processor.tokens_per_video + len(images) * self.processor.tokens_per_image
    visual = {self.processor.image_token_id, self.processor.video_token_id}
    sequences = [ids for ids in result if isinstance(ids, list)]
    # (input_ids, labels), (chosen ids, labels, rejected ids, labels) or (ids, labels, kl ids, kl labels, tag)
    cut = any(sum(token in visual for token in ids) != expected for ids in sequences[0::2])
    masked = any(all(label == -100 for label in labels) for labels in sequences[1::2])
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
            labels[:] = [-100 if token in visual else label for token, label in zip(ids, labels, strict=True)]
    return result


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


def checked_dataset(
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
        DataError: a tokenised data set on disk was made for another number of frames or another model.
        SettingsError: `packing` without `neat_packing`, or a `cutoff_len` that packing cannot use.
        MediaError: a clip or an image cannot be used.
    """
    if _is_ours(template):
        _check_packing(data_args)
        template.settle_system(data_args.default_system, kwargs["processor"])
    if _is_ours(template) and data_args.streaming and training_args.accelerator_config.dispatch_batches is None:
        # accelerate would cut the batch of one process into rows for the others; clips are not rows
        training_args.accelerator_config.dispatch_batches = False
    workers = training_args.dataloader_num_workers
    if _is_ours(template) and data_args.streaming and not workers:
        training_args.dataloader_num_workers = 1  # the host splits a stream into that many shards: none holds no row
    alignment.begin(training_args)
    try:
        module = original(template, model_args, data_args, training_args, *args, **kwargs)
    except DataError:
        raise
    except Exception:
        alignment.settle(training_args)  # the host may have failed for want of rows that were taken out
        raise
    finally:
        training_args.dataloader_num_workers = workers
    if not _is_ours(template):
        return module
    for dataset in (module.get("train_dataset"), module.get("eval_dataset")):
        _check_tokens(dataset, kwargs.get("processor"))
    if settings().check_media == "off":
        return module
    for name in ("train_dataset", "eval_dataset"):
        dataset = module.get(name)
        if isinstance(dataset, dict):
            module[name] = {key: _checked_media(value, f"{name} {key}") for key, value in dataset.items()}
        elif dataset is not None:
            module[name] = _checked_media(dataset, name)
    return module


def _check_packing(data_args: Any) -> None:
    """Packing must keep rows apart, and the host's padding must fit its position ids."""
    if data_args.packing and not data_args.neat_packing:
        raise SettingsError(
            "`packing: true` lets the rows of a pack attend to one another: an answer would see other rows' clips. "
            + (
                "Set `packing: false`; the host turns packing on by itself in `stage: pt`."
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
    """Compare the first row's visual tokens with what the processor would make today."""
    if processor is None or not hasattr(dataset, "__len__") or isinstance(dataset, dict) or not len(dataset):
        return
    row = dataset[0]
    ids = row.get("input_ids") or row.get("chosen_input_ids") or []
    expected = len(row.get("videos") or []) * processor.tokens_per_video
    expected += len(row.get("images") or []) * processor.tokens_per_image
    found = sum(token in (processor.image_token_id, processor.video_token_id) for token in ids)
    if found and settings_state.stage() == "pt":
        raise DataError(
            "`stage: pt` trains on text alone, and the first row has a clip or an image. Use `stage: sft`, as "
            "examples/yaml/hound_pretrain.yaml does."
        )
    if found != expected:
        raise DataError(
            f"Expected {expected} visual tokens in the first row of the tokenised data set, found {found}: it was made "
            "for another `num_frames` or another model. Remove the folder of `tokenized_path`, or name another one."
        )


def _checked_media(dataset: Any, name: str) -> Any:
    if not hasattr(dataset, "__len__"):  # streamed: rows are not known yet; each is checked when it is collated
        return dataset
    media = _distinct_media(dataset)
    names = sorted(media)
    if settings().check_media == "sample" and len(names) > SAMPLE:
        names = random.Random(0).sample(names, SAMPLE)
        logger.warning_rank0(f"check_media: sample: {SAMPLE} of {len(media)} media of {name} are checked.")
    bad = _on_first_rank(lambda: {path: problem for path, problem in _problems(names, media) if problem is not None})
    if not bad:
        return dataset
    path, error = next(iter(sorted(bad.items())))
    if settings().on_bad_media == "error":
        raise MediaDecodeError(
            f"{name}, row {media[path][1] + 1}: {error} ({len(bad)} of {len(names)} checked media are bad; set "
            "`hound: {on_bad_media: skip}` to leave their rows out.)",
            path,
        ) from error
    rows = [row for row, items in enumerate(_paths_by_row(dataset)) if not bad.keys() & set(items)]
    left_out = len(dataset) - len(rows)
    logger.warning_rank0(f"on_bad_media: skip: {left_out} of {len(dataset)} rows of {name} are left out:")
    for path, problem in sorted(bad.items()):
        logger.warning_rank0(json.dumps({"path": path, "problem": str(problem)}, ensure_ascii=False))
    if not rows:
        raise MediaDecodeError(f"{name}: no row is left; all media are bad. The first: {error}", path)
    return dataset.select(rows)


def _on_first_rank(compute: Callable[[], dict[str, MediaError]]) -> dict[str, MediaError]:
    """Compute on rank 0 and tell the others: eight ranks need not read the same files."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return compute()
    box: list[Any] = [compute() if torch.distributed.get_rank() == 0 else None]
    torch.distributed.broadcast_object_list(box)
    found: dict[str, MediaError] = box[0]
    return found


def _paths_by_row(dataset: Any) -> Iterable[list[str]]:
    columns = [column for column in ("videos", "images") if column in dataset.column_names]
    for row in dataset.select_columns(columns):
        yield [item for column in columns for item in _flat(row[column])]


def _flat(items: Any) -> list[str]:
    found: list[str] = []
    for item in items or []:
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, list):
            found += _flat(item)
    return found


def _distinct_media(dataset: Any) -> dict[str, tuple[str, int]]:
    """``path -> (kind, first row)``; the frames of a list count as images."""
    media: dict[str, tuple[str, int]] = {}
    for column in ("videos", "images"):
        if column not in dataset.column_names:
            continue
        for row, values in enumerate(dataset.select_columns([column])):
            for item in values[column] or []:
                kind = "image" if column == "images" or isinstance(item, list) else "video"
                for path in _flat([item]):
                    media.setdefault(path, (kind, row))
    return media


def _problems(names: list[str], media: dict[str, tuple[str, int]]) -> Iterable[tuple[str, MediaError | None]]:
    def check(path: str) -> tuple[str, MediaError | None]:
        try:
            if media[path][0] == "video":
                probe(path)
            else:
                open_image(path)
        except MediaError as error:
            return path, error
        return path, None

    workers = min(16, 2 * (os.cpu_count() or 1))
    with ThreadPoolExecutor(workers) as pool:
        progress = tqdm(total=len(names), desc="Checking media", unit="file", disable=len(names) < 1000)
        for result in pool.map(check, names):
            progress.update()
            yield result
        progress.close()
