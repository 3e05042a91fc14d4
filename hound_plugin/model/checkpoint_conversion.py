"""Whole checkpoints from the original layout to ours and back, one shard in memory at a time.

Tensors are renamed and never changed, so that original -> ours -> original gives the same bits. Towers need care: a
checkpoint saved in bfloat16 holds them rounded, and their own repositories hold them whole. The repository's are
taken where the checkpoint's copy is exactly their rounding; the way back rounds them again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import AutoTokenizer
from transformers.utils import PROCESSOR_NAME

from hound_plugin.errors import CheckpointError, SettingsError
from hound_plugin.model.checkpoint import find_tower, read_tower
from hound_plugin.model.checkpoint_files import (
    check_architecture,
    check_files,
    fetch,
    key_names,
    stored_dtypes,
    stored_shapes,
    stored_tensors,
    weight_files,
)
from hound_plugin.model.checkpoint_writer import CheckpointWriter, parse_size
from hound_plugin.model.completeness import check_complete, expected_shapes, tensor_shapes
from hound_plugin.model.configuration import (
    ORIGINAL_KEYS,
    ORIGINAL_MODEL_TYPE,
    LlavaHoundConfig,
)
from hound_plugin.model.key_mapping import is_original, to_original, to_ours
from hound_plugin.model.modeling import LlavaHoundForConditionalGeneration
from hound_plugin.processing.processor import LlavaHoundProcessor, changed_settings, saved_settings

TOWERS = ("image_tower", "video_tower")
_TOKENIZER_FILES = ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_KEPT = "original_tokenizer"  # where our layout keeps the original's tokenizer files for the way back


@dataclass
class Report:
    """What a conversion did, or would do.

    Attributes:
        keys: ``(name in the source, name in the target)`` in writing order.
        towers: for each tower where its weights came from.
        written: the folder, or None for a dry run.
        warnings: what the user should know.
    """

    keys: list[tuple[str, str]] = field(default_factory=list)
    towers: dict[str, str] = field(default_factory=dict)
    written: Path | None = None
    warnings: list[str] = field(default_factory=list)


def convert(
    source: str,
    target: str | os.PathLike[str],
    to: str = "hf",
    towers: str = "auto",
    tokenizer: str | None = None,
    shard_size: str = "5GB",
    dry_run: bool = False,
    progress: bool = True,
) -> Report:
    """Convert a checkpoint.

    Args:
        source: folder or hub id.
        target: a new or an empty folder.
        to: ``hf`` (from the original LLaVA-Hound or Video-LLaVA layout) or ``original`` (back).
        towers: ``auto``, ``repository`` (the files that config.json names) or ``checkpoint`` (its own copy).
        tokenizer: for ``original``: a folder with the original's ``tokenizer.model``, if the source has none.
        shard_size: largest file.
        dry_run: write nothing; the report tells the key mapping.
        progress: show a bar.

    Raises:
        SettingsError: an argument is off, or the target holds files.
        CheckpointError: the source is not of the layout, incomplete or damaged; keys are listed.
    """
    if to not in ("hf", "original") or towers not in ("auto", "repository", "checkpoint"):
        raise SettingsError(
            f"Expected to=hf or original and towers=auto, repository or checkpoint; got {to}, {towers}."
        )
    folder = Path(source)
    if not folder.is_dir():
        folder = fetch(source)
    check_architecture(folder)
    check_files(folder, with_tokenizer=tokenizer is None)
    config = LlavaHoundConfig.from_pretrained(folder)
    files = weight_files(folder)
    if is_original(key_names(files)) == (to == "original"):
        raise CheckpointError(
            f"{source} is in the {'Hugging Face' if to == 'hf' else 'original'} layout already; nothing is to be done. "
            f"Use `--to {'original' if to == 'hf' else 'hf'}` for the other direction."
        )
    job = _ToOurs(config, folder, files, towers) if to == "hf" else _ToOriginal(config, folder, files, tokenizer)
    report = job.plan()
    check_complete(_expected(config), job.shapes(), source)
    if dry_run:
        return report
    with CheckpointWriter(Path(target), parse_size(shard_size)) as writer:
        for _, name, tensor in tqdm(job.tensors(), total=len(report.keys), unit="tensor", disable=not progress):
            writer.add(name, tensor)
        job.write_files(writer, report)
    report.written = Path(target)
    return report


def _expected(config: LlavaHoundConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return expected_shapes(LlavaHoundForConditionalGeneration(config))


def keep_tokenizer(source: Path, target: Path) -> None:
    """Copy the files of the original's tokenizer into a checkpoint in our layout, for the way back."""
    kept = target / _KEPT
    kept.mkdir()
    for name in _TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, kept / name)


# --- the two directions


class _ToOurs:
    """Original layout to ours."""

    def __init__(self, config: LlavaHoundConfig, folder: Path, files: list[Path], towers: str) -> None:
        self.config = config
        self.folder = folder
        self.files = files
        self.names = to_ours(key_names(files))
        self.towers = {tower: self._choose(tower, towers) for tower in TOWERS}

    def _choose(self, tower: str, choice: str) -> str | None:
        """The repository's file for a tower, or None for the checkpoint's own copy."""
        inside = any(name.startswith(f"model.{tower}.") for name in self.names.values())
        name = getattr(self.config, f"mm_{tower}")
        file = find_tower(name, str(self.folder), {}) if name and choice != "checkpoint" else None
        if file is None and (not inside or choice == "repository"):
            raise CheckpointError(
                f"The {tower.replace('_', ' ')} {name!r} cannot be found as a folder or on the hub"
                + (", and the checkpoint holds no copy of it." if not inside else ".")
                + f" Download it once (`hf download {name}`), or put the path of a local copy into config.json."
            )
        if file is not None and inside and choice == "auto" and not self._is_rounding(tower, file):
            return None
        return file

    def _is_rounding(self, tower: str, file: str) -> bool:
        """Whether the checkpoint's copy is the repository's tower in the checkpoint's dtype."""
        with contextlib.ExitStack() as stack:
            whole = read_tower(file, getattr(self.config, f"{tower}_config"), stack)
            prefix = f"model.{tower}."
            for name, tensor in stored_tensors(self.files, lambda name: self.names.get(name, "").startswith(prefix)):
                other = whole.get(self.names[name].removeprefix(prefix))
                if other is None:
                    return False
                other = other if torch.is_tensor(other) else other[...]
                if not torch.equal(other.to(tensor.dtype), tensor):
                    return False
        return True

    def plan(self) -> Report:
        report = Report(keys=[(old, new) for old, new, _ in self._order(names_only=True)])
        for tower, file in self.towers.items():
            name = getattr(self.config, f"mm_{tower}")
            report.towers[tower] = f"{name} ({file})" if file else "the checkpoint's own copy"
        return report

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """What will be written."""
        shapes = {self.names[name]: shape for name, shape in stored_shapes(self.files).items() if name in self.names}
        for tower, file in self.towers.items():
            if file is not None:
                prefix = f"model.{tower}."
                with contextlib.ExitStack() as stack:
                    held = tensor_shapes(read_tower(file, getattr(self.config, f"{tower}_config"), stack))
                shapes = {name: shape for name, shape in shapes.items() if not name.startswith(prefix)}
                shapes |= {prefix + name: shape for name, shape in held.items()}
        return shapes

    def tensors(self) -> Iterator[tuple[str, str, torch.Tensor]]:
        return self._order(names_only=False)

    def _order(self, names_only: bool) -> Iterator[tuple[str, str, Any]]:
        replaced = tuple(f"model.{tower}." for tower, file in self.towers.items() if file)
        kept = {name: ours for name, ours in self.names.items() if not ours.startswith(replaced)}
        source = ((name, None) for name in kept) if names_only else stored_tensors(self.files, kept.__contains__)
        for name, tensor in source:
            yield name, kept[name], tensor
        for tower, file in self.towers.items():
            if file is None:
                continue
            with contextlib.ExitStack() as stack:
                held = read_tower(file, getattr(self.config, f"{tower}_config"), stack)
                for name, value in held.items():
                    tensor = None if names_only else (value if torch.is_tensor(value) else value[...])
                    yield f"{getattr(self.config, f'mm_{tower}')}: {name}", f"model.{tower}.{name}", tensor

    def write_files(self, writer: CheckpointWriter, report: Report) -> None:
        self.config.original_towers = self._tower_dtypes()
        self.config.architectures = ["LlavaHoundForConditionalGeneration"]
        self.config.save_pretrained(writer.part)
        tokenizer = AutoTokenizer.from_pretrained(self.folder)
        settings = saved_settings(self.folder)
        LlavaHoundProcessor.from_config(self.config, tokenizer, **settings).save_pretrained(writer.part)
        keep_tokenizer(self.folder, writer.part)
        if (self.folder / "generation_config.json").is_file():
            shutil.copyfile(self.folder / "generation_config.json", writer.part / "generation_config.json")

    def _tower_dtypes(self) -> dict[str, str | None]:
        """How the original held its towers, for the way back: a dtype's name, or None if it did not."""
        dtypes: dict[str, str | None] = dict.fromkeys(TOWERS)
        for name, dtype in stored_dtypes(self.files).items():
            for tower in TOWERS:
                if self.names.get(name, "").startswith(f"model.{tower}."):
                    dtypes[tower] = str(dtype).removeprefix("torch.")
        return dtypes


class _ToOriginal:
    """Our layout to the original's."""

    def __init__(self, config: LlavaHoundConfig, folder: Path, files: list[Path], tokenizer: str | None) -> None:
        self.config = config
        self.folder = folder
        self.files = files
        self.names = to_original(key_names(files))
        places = [Path(tokenizer)] if tokenizer else [folder / _KEPT, folder]
        self.tokenizer = next((place for place in places if (place / "tokenizer.model").is_file()), None)
        if tokenizer and self.tokenizer is None:
            raise SettingsError(f"Expected tokenizer.model in {tokenizer}, found none.")

    def _dtype(self, name: str) -> tuple[bool, torch.dtype | None]:
        """Whether a tensor is written, and the dtype that a tower had."""
        held = getattr(self.config, "original_towers", None)
        for tower in TOWERS:
            if held is not None and name.startswith(f"model.{tower}."):
                return held[tower] is not None, getattr(torch, held[tower]) if held[tower] else None
        return True, None

    def plan(self) -> Report:
        report = Report(keys=[(old, new) for old, new in self.names.items() if self._dtype(old)[0]])
        for tower in TOWERS:
            inside = any(f".{tower}.{tower}." in new for _, new in report.keys)
            report.towers[tower] = "in the checkpoint" if inside else "left out, as in the original checkpoint"
        if self.tokenizer is None:
            report.warnings.append(
                "The source has no tokenizer.model, which the original code needs; tokenizer.json is copied. Name a "
                "folder that has the file (`--tokenizer`), such as the original checkpoint's."
            )
        if self._unnamed():
            report.warnings.append(
                f"The source names no repository for its {' and '.join(self._unnamed())}: the checkpoint holds their "
                "weights, and config.json names folders beside it that hold their configurations."
            )
        if changed := changed_settings(self.folder, self.config):
            report.warnings.append(
                f"The original layout has no place for {', '.join(changed)} of this model. {PROCESSOR_NAME} is copied "
                "for the way back and for this package; the original code uses its own values."
            )
        return report

    def _unnamed(self) -> list[str]:
        """Towers of a model that was assembled or made here, which come from no repository."""
        return [tower for tower in TOWERS if not getattr(self.config, f"mm_{tower}")]

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """What the source holds."""
        return stored_shapes(self.files)

    def tensors(self) -> Iterator[tuple[str, str, torch.Tensor]]:
        for name, tensor in stored_tensors(self.files, lambda name: name in self.names and self._dtype(name)[0]):
            dtype = self._dtype(name)[1]
            yield name, self.names[name], tensor if dtype is None else tensor.to(dtype)

    def write_files(self, writer: CheckpointWriter, report: Report) -> None:
        values = original_config(self.config)
        for tower in self._unnamed():
            values[f"mm_{tower}"] = tower
            (writer.part / tower).mkdir()
            getattr(self.config, f"{tower}_config").save_pretrained(writer.part / tower)
        writer.write_json("config.json", values)
        place = self.tokenizer or self.folder
        for name in _TOKENIZER_FILES if self.tokenizer else ("tokenizer.json", *_TOKENIZER_FILES):
            if (place / name).is_file():
                shutil.copyfile(place / name, writer.part / name)
        if (self.folder / "generation_config.json").is_file():
            shutil.copyfile(self.folder / "generation_config.json", writer.part / "generation_config.json")
        if changed_settings(self.folder, self.config):
            shutil.copyfile(self.folder / PROCESSOR_NAME, writer.part / PROCESSOR_NAME)


def original_config(config: LlavaHoundConfig) -> dict[str, Any]:
    """The original ``config.json`` of a model: the one that it came with, or one of the same keys."""
    if config.original_config is not None:
        return dict(config.original_config)
    text = config.text_config.to_dict()
    rope = text.pop("rope_parameters", None) or {}
    values = {key: value for key, value in text.items() if key not in ("model_type", "dtype", "transformers_version")}
    dtype = getattr(config, "dtype", None) or config.text_config.dtype or torch.float32
    return {
        **values,
        **dict.fromkeys((key for key in ORIGINAL_KEYS if key.startswith(("mm_use", "tune_"))), False),
        "X": ["Image", "Video"],
        "architectures": ["LlavaLlamaForCausalLM"],
        "freeze_mm_mlp_adapter": False,
        "image_aspect_ratio": config.image_aspect_ratio,
        "image_grid_pinpoints": None,
        "mm_hidden_size": config.video_tower_config.hidden_size,
        "mm_image_tower": config.mm_image_tower,
        "mm_projector_type": config.mm_projector_type,
        "mm_video_tower": config.mm_video_tower,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": config.mm_vision_select_layer,
        "model_type": ORIGINAL_MODEL_TYPE,
        "rope_scaling": None if rope.get("rope_type", "default") == "default" else rope,
        "rope_theta": rope.get("rope_theta", 10000.0),
        "torch_dtype": str(dtype).removeprefix("torch."),
        "use_mm_proj": True,
    }
