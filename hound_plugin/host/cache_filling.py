"""``hound corpus prepare``: fill the caches of a training's media ahead, in parallel.

It reads what the training reads: the YAML file, the data sets it names, and, for features, the model. What is in a
cache is kept, so a run that was stopped continues.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from llamafactory.data import loader
from llamafactory.extras.misc import get_current_device
from llamafactory.hparams import get_train_args
from llamafactory.model import load_model, load_tokenizer
from omegaconf import OmegaConf
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from hound_plugin.errors import MediaError, SettingsError
from hound_plugin.host import alignment, tower_cache
from hound_plugin.host.settings_state import is_ours, settings, split_arguments
from hound_plugin.host.tower_step import WholeTowers
from hound_plugin.media.frame_cache import FrameCache
from hound_plugin.records.files import write_rows
from hound_plugin.settings import HoundSettings

REPORT = "bad_media.jsonl"
_SHOWN = 20
_STAGES = {"dpo": "rm", "rm": "rm", "kto": "kto", "sft": "sft"}  # as the host's loader calls them
_SHARDED = ("deepspeed", "fsdp", "fsdp_config")


@dataclass
class Filled:
    """What became of the media.

    Attributes:
        folder: where the list of bad media is.
        media: number of distinct clips and images.
        kept: how many of them were in the cache.
        bad: path and reason of those that cannot be read.
        uncached: how many changed while they were read, and are not in the cache.
    """

    folder: Path
    media: int
    kept: int = 0
    uncached: int = 0
    bad: dict[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        """Lines for people: the numbers, and the first bad media."""
        lines = [f"{self.media:,} clips and images: {self.kept:,} were in the cache, {len(self.bad):,} cannot be read"]
        if self.uncached:
            lines.append(f"{self.uncached:,} changed while they were read, and are not in the cache")
        lines += [text if path in text else f"{path}: {text}" for path, text in list(self.bad.items())[:_SHOWN]]
        if self.bad:
            lines.append(f"listed in {self.folder / REPORT}")
        return "\n".join(lines)


@dataclass(frozen=True)
class _Item:
    """One medium as a loader worker gives it.

    Attributes:
        number: in the list.
        kept: its features were in the cache.
        media: pixels to encode, if there are any.
        problem: why it cannot be read.
    """

    number: int
    kept: bool = False
    media: tower_cache.ReadMedia | None = None
    problem: str | None = None


class _Reading(Dataset[_Item]):
    """Media by number; what is bad is told, not raised."""

    def __init__(self, processor: Any, media: Sequence[tuple[str, Any]], frames_only: bool) -> None:
        self.processor, self.media, self.frames_only = processor, media, frames_only

    def __len__(self) -> int:
        return len(self.media)

    def __getitem__(self, number: int) -> _Item:
        kind, item = self.media[number]
        try:
            if self.frames_only:
                key = self.processor.video_processor.content_key(item)
                kept = key is not None and key in FrameCache(self.processor.frame_cache)
                self.processor.read_video(item)
                return _Item(number, kept)
            media = tower_cache.read_media(self.processor, kind, item)
        except MediaError as error:
            return _Item(number, problem=str(error))
        kept = media.tensor.dim() == 2
        return _Item(number, kept, None if kept else media)


def fill(recipe: str, overrides: Sequence[str], processes: int | None = None, part: tuple[int, int] = (1, 1)) -> Filled:
    """Fill the feature cache that a training's YAML file names, or else its frame cache.

    Args:
        recipe: the YAML file of the training.
        overrides: ``key=value`` for the host or for ``hound.key``.
        processes: that decode; the number of cores, at most 16, if None.
        part: number of a part and number of parts, for several machines or GPUs.

    Raises:
        SettingsError: the file names no cache, or is of a stage or a template without media of ours.
        HoundError: the training itself would be refused.
    """
    values, sharded = _values(recipe, overrides)
    model_args, data_args, training_args, finetuning_args, _ = get_train_args(values)
    tokens = load_tokenizer(model_args)
    media = _media(model_args, data_args, training_args, finetuning_args.stage)
    frames_only = settings().feature_cache is None
    media = [entry for entry in media if entry[0] == "video" or not frames_only][part[0] - 1 :: part[1]]
    encode = None
    if not frames_only:
        model = load_model(tokens["tokenizer"], model_args, finetuning_args, is_trainable=True)
        encode = _Encoder(
            model, model_args.compute_dtype if training_args.bf16 or training_args.fp16 else None, sharded
        )
    filled = Filled(Path(training_args.output_dir), len(media))
    workers = min(16, os.cpu_count() or 1) if processes is None else processes
    for item in _read(_Reading(tokens["processor"], media, frames_only), workers):
        kind, path = media[item.number]
        filled.kept += item.kept
        if item.problem is not None:
            filled.bad[str(path)] = item.problem
        elif item.media is not None and item.media.key is None:
            filled.uncached += 1
        elif item.media is not None and encode is not None:
            encode(kind, item.media)
    report = filled.folder / REPORT
    report.unlink(missing_ok=True)
    if filled.bad:
        write_rows(report, [{"media": path, "problem": problem} for path, problem in filled.bad.items()])
    return filled


def _values(recipe: str, overrides: Sequence[str]) -> tuple[dict[str, Any], bool]:
    """The host's arguments for reading what a training reads, in one process; and whether an engine shards it."""
    try:
        merged = OmegaConf.merge(OmegaConf.load(recipe), OmegaConf.from_cli(list(overrides)))
    except OSError as error:
        raise SettingsError(f"Expected the YAML file of a training, got {recipe!r}: {error}.") from error
    values: Any = OmegaConf.to_container(merged)
    chosen = HoundSettings.build(split_arguments(values)[1])
    cache = chosen.feature_cache or chosen.frame_cache
    if cache is None:
        raise SettingsError(
            f"Expected `hound: {{feature_cache: FOLDER}}` or `hound: {{frame_cache: FOLDER}}` in {recipe}; it names "
            "neither. Add the one that the training shall use, or write hound.feature_cache=FOLDER behind the file.",
            "feature_cache",
        )
    sharded = any(values.pop(name, None) for name in _SHARDED)
    folder = str(Path(cache) / "prepare")
    return {**values, "do_train": True, "output_dir": folder, "streaming": False, "report_to": "none"}, sharded


def _media(model_args: Any, data_args: Any, training_args: Any, stage: str) -> list[tuple[str, Any]]:
    """Kind and path (or paths of frames) of each distinct medium of the usable rows."""
    if not is_ours() or stage not in _STAGES or not data_args.dataset:
        raise SettingsError(
            f"Expected a training with `template: llava_hound`, a `dataset` and a stage of {', '.join(_STAGES)}; got "
            f"template {data_args.template!r}, dataset {data_args.dataset!r}, stage {stage!r}."
        )
    alignment.begin(training_args)
    media: dict[Any, tuple[str, Any]] = {}
    read = [
        loader._get_merged_dataset(names, model_args, data_args, training_args, _STAGES[stage])
        for names in (data_args.dataset, data_args.eval_dataset)
    ]
    alignment.settle(training_args)
    for dataset in read:
        for kind in tower_cache.KINDS if dataset is not None else ():
            for items in dataset[f"_{kind}s"]:
                for item in items or ():
                    media.setdefault((kind, str(item)), (kind, item))
    return list(media.values())


def _read(reading: _Reading, processes: int) -> Iterator[_Item]:
    """Items in order, read by worker processes, with a progress bar."""
    cores = torch.get_num_threads()
    if not processes:
        torch.set_num_threads(1)  # as in a worker
    try:
        batches: DataLoader[_Item] = DataLoader(reading, None, num_workers=processes, collate_fn=_as_it_is)
        yield from tqdm(batches, total=len(reading), unit="clip", desc="Filling the cache", smoothing=0.05)
    finally:
        torch.set_num_threads(cores)


def _as_it_is(item: Any) -> Any:
    return item


class _Encoder:
    """The towers of a model, which encode one medium at a time and store it, as the training does."""

    def __init__(self, model: Any, compute_dtype: torch.dtype | None, sharded: bool) -> None:
        self.towers = WholeTowers(model, compute_dtype, is_cast=sharded)
        self.device = torch.device(get_current_device())
        self.towers.composite.image_tower.to(self.device)
        self.towers.composite.video_tower.to(self.device)

    def __call__(self, kind: str, media: tower_cache.ReadMedia) -> None:
        cache = tower_cache.active()
        assert cache is not None
        assert media.key is not None
        features = self.towers({kind: media.tensor[None].to(self.device)})
        cache.folders[kind].store(media.key, features[kind][0])
