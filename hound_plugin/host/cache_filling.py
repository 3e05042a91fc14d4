"""``hound corpus prepare``: fill the caches of a training's media ahead, in parallel.

It reads what the training reads: the YAML file, the data sets it names, and, for features, the model. What is in a
cache is kept, so a run that was stopped continues.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
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

from hound_plugin.engines.work import LOCAL, Engine, Work
from hound_plugin.errors import MediaError, SettingsError
from hound_plugin.host import alignment, tower_cache
from hound_plugin.host.settings_state import is_ours, settings, split_arguments
from hound_plugin.host.tower_step import WholeTowers
from hound_plugin.media.array_folder import ArrayFolder
from hound_plugin.media.frame_cache import FrameCache
from hound_plugin.records.files import write_rows
from hound_plugin.settings import HoundSettings

REPORT = "bad_media.jsonl"
_SHOWN = 20
_BAR: dict[str, Any] = {"unit": "clip", "desc": "Filling the cache", "smoothing": 0.05}
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
        lost: how many could be read, but are not in the cache in the end.
    """

    folder: Path
    media: int
    kept: int = 0
    uncached: int = 0
    lost: int = 0
    bad: dict[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        """Lines for people: the numbers, and the first bad media."""
        lines = [f"{self.media:,} clips and images: {self.kept:,} were in the cache, {len(self.bad):,} cannot be read"]
        if self.uncached:
            lines.append(f"{self.uncached:,} changed while they were read, and are not in the cache")
        if self.lost:
            lines.append(
                f"{self.lost:,} of those that can be read are not in the cache: the disk is full or not writable, "
                "or the limit (`frame_cache_limit`, `feature_cache_limit`) is below what they need. Free space or "
                "raise the limit, and run the command again."
            )
        lines += [text if path in text else f"{path}: {text}" for path, text in list(self.bad.items())[:_SHOWN]]
        if self.bad:
            lines.append(f"listed in {self.folder / REPORT}")
        return "\n".join(lines)


@dataclass(frozen=True)
class _Item:
    """One medium as a loader worker gives it.

    Attributes:
        number: in the list.
        key: in the cache.
        kept: its features were in the cache.
        media: pixels to encode, if there are any.
        problem: why it cannot be read.
    """

    number: int
    key: str | None = None
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
                return _Item(number, key, kept)
            media = tower_cache.read_media(self.processor, kind, item)
        except MediaError as error:
            return _Item(number, problem=str(error))
        kept = media.tensor.dim() == 2
        return _Item(number, media.key, kept, None if kept else media)


def fill(
    recipe: str,
    overrides: Sequence[str],
    processes: int | None = None,
    part: tuple[int, int] = (1, 1),
    engine: Engine = LOCAL,
) -> Filled:
    """Fill the feature cache that a training's YAML file names, or else its frame cache.

    Args:
        recipe: the YAML file of the training.
        overrides: ``key=value`` for the host or for ``hound.key``.
        processes: that decode; the number of cores, at most 16, if None. With another engine than this process, its
            processes decode.
        part: number of a part and number of parts, for several machines or GPUs.
        engine: where clips are decoded and encoded. All its machines see recipe, clips, cache and model under the same
            paths.

    Raises:
        SettingsError: the file names no cache, or is of a stage or a template without media of ours.
        HoundError: the training itself would be refused.
    """
    values, sharded = _values(recipe, overrides)
    filling = _Filling(values, sharded)
    media = filling.media(part)
    filled = Filled(filling.folder, len(media))
    done: Iterable[tuple[int, _Outcome]]
    if engine is LOCAL:
        workers = min(16, os.cpu_count() or 1) if processes is None else processes
        items = _read(_Reading(filling.processor, media, filling.frames_only), workers)
        done = ((item.number, filling.finish(media[item.number][0], item)) for item in items)
    else:
        done = tqdm(engine.run(Work(_FillOne(values, sharded)), media), total=len(media), **_BAR)
    bad: dict[int, str] = {}
    keys = []
    for number, outcome in done:
        keys += [outcome.key] if outcome.key is not None else []
        filled.kept += outcome.kept
        filled.uncached += outcome.changed
        if outcome.problem is not None:
            bad[number] = outcome.problem
    cache = ArrayFolder(str(settings().feature_cache or settings().frame_cache), "prepare")
    filled.lost = sum(key not in cache for key in keys)
    filled.bad = {str(media[number][1]): bad[number] for number in sorted(bad)}
    report = filled.folder / REPORT
    report.unlink(missing_ok=True)
    if filled.bad:
        write_rows(report, [{"media": path, "problem": problem} for path, problem in filled.bad.items()])
    return filled


@dataclass(frozen=True)
class _Outcome:
    """What became of one medium: its key, and whether it was there, changed while it was read, or cannot be read."""

    key: str | None = None
    kept: bool = False
    changed: bool = False
    problem: str | None = None


class _Filling:
    """A process that fills the cache: it reads media, and encodes them where features are cached."""

    def __init__(self, values: dict[str, Any], sharded: bool) -> None:
        self._model_args, self._data_args, self._training_args, self._finetuning_args, _ = get_train_args(values)
        self._tokens = load_tokenizer(self._model_args)
        self._sharded = sharded
        self.folder = Path(self._training_args.output_dir)
        self.frames_only = settings().feature_cache is None

    def media(self, part: tuple[int, int]) -> list[tuple[str, Any]]:
        """Kind and path (or paths of frames) of each distinct medium."""
        media = _media(self._model_args, self._data_args, self._training_args, self._finetuning_args.stage)
        return [entry for entry in media if entry[0] == "video" or not self.frames_only][part[0] - 1 :: part[1]]

    @cached_property
    def processor(self) -> Any:
        """The model's. Where features are cached the model is loaded too: their keys contain its towers' digest."""
        _ = self._encoder
        return self._tokens["processor"]

    @cached_property
    def _encoder(self) -> _Encoder | None:
        if self.frames_only:
            return None
        model = load_model(self._tokens["tokenizer"], self._model_args, self._finetuning_args, is_trainable=True)
        mixed = self._training_args.bf16 or self._training_args.fp16
        return _Encoder(model, self._model_args.compute_dtype if mixed else None, self._sharded)

    def finish(self, kind: str, item: _Item) -> _Outcome:
        """Encode and store what was read, if that is needed."""
        if item.media is not None and item.media.key is None:
            return _Outcome(kept=item.kept, changed=True)
        if item.media is not None and self._encoder is not None:
            self._encoder(kind, item.media)
        return _Outcome(item.key, item.kept, problem=item.problem)


class _FillOne:
    """Reads and encodes one medium in whichever process; the model is loaded there at the first one."""

    def __init__(self, values: dict[str, Any], sharded: bool) -> None:
        self._arguments = (values, sharded)
        self._filling: _Filling | None = None

    def __call__(self, medium: tuple[str, Any]) -> _Outcome:
        if self._filling is None:
            self._filling = _Filling(*self._arguments)
        filling = self._filling
        return filling.finish(medium[0], _Reading(filling.processor, [medium], filling.frames_only)[0])


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
        yield from tqdm(batches, total=len(reading), **_BAR)
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
