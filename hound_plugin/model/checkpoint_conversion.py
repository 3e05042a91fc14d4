"""Convert full checkpoints from the original layout to ours and back, with one shard in memory at a time.

Tensors are renamed and never changed, so that original -> ours -> original reproduces the same bits. Towers need care:
a checkpoint saved in bfloat16 contains them rounded, and their own repositories in full precision. The repository's are
used if the checkpoint's copy is exactly their rounding; converting back rounds them again.
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
from hound_plugin.model.configuration import LlavaHoundConfig, read_tower_config
from hound_plugin.model.key_mapping import is_original, to_original, to_ours
from hound_plugin.model.modeling import LlavaHoundForConditionalGeneration
from hound_plugin.model.original_layout import has_the_shape, has_the_tokens, is_repository_tower, original_config
from hound_plugin.processing.processor import LlavaHoundProcessor
from hound_plugin.processing.saved_settings import changed_settings, saved_settings

TOWERS = ("image_tower", "video_tower")
_TOKENIZER_FILES = ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_TOKENIZER_FOLDER = "original_tokenizer"  # where our layout keeps the original's tokenizer files for converting back


@dataclass
class ConversionReport:
    """What a conversion did, or would do.

    Attributes:
        keys: ``(name in the source, name in the target)``, in writing order.
        towers: for each tower, the source of its weights.
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
) -> ConversionReport:
    """Convert a checkpoint.

    Args:
        source: folder or hub id.
        target: a new or an empty folder.
        to: ``hf`` (from the original LLaVA-Hound or Video-LLaVA layout) or ``original`` (back).
        towers: ``auto``, ``repository`` (the files that config.json names) or ``checkpoint`` (its own copy). For
            ``original``, ``auto`` compares with the repositories, and ``repository`` names them where they cannot be
            found either.
        tokenizer: for ``original``: a folder with the original's ``tokenizer.model``, if the source has none.
        shard_size: largest file.
        dry_run: write nothing; the report contains the key mapping.
        progress: show a bar.

    Raises:
        SettingsError: an argument is invalid, or the target folder is not empty.
        CheckpointError: the source is in another layout, incomplete or damaged; keys are listed.
        InUseError: another process is writing the target.
        DiskFullError: there is too little space; nothing is left.
    """
    if to not in ("hf", "original") or towers not in ("auto", "repository", "checkpoint"):
        raise SettingsError(
            f"Expected to=hf or original, and towers=auto, repository or checkpoint; got {to}, {towers}."
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
            f"{source} is already in the {'Hugging Face' if to == 'hf' else 'original'} layout; nothing to do. Use "
            f"`--to {'original' if to == 'hf' else 'hf'}` for the other direction."
        )
    conversion = (
        _ToOurs(config, folder, files, towers) if to == "hf" else _ToOriginal(config, folder, files, tokenizer, towers)
    )
    report = conversion.plan()
    check_complete(model_shapes(config), conversion.shapes(), source)
    if dry_run:
        return report
    with CheckpointWriter(Path(target), parse_size(shard_size), f"the checkpoint {source}") as writer:
        for _, name, tensor in tqdm(conversion.tensors(), total=len(report.keys), unit="tensor", disable=not progress):
            writer.add(name, tensor)
        conversion.write_files(writer, report)
    report.written = Path(target)
    return report


def model_shapes(config: LlavaHoundConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a model, in our layout."""
    with torch.device("meta"):
        return expected_shapes(LlavaHoundForConditionalGeneration(config))


def keep_tokenizer(source: Path, target: Path) -> None:
    """Copy the files of the original's tokenizer into a checkpoint in our layout, for converting back."""
    copies = target / _TOKENIZER_FOLDER
    copies.mkdir()
    for name in _TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, copies / name)


# --- the two directions


class _ToOurs:
    """From the original layout to ours."""

    def __init__(self, config: LlavaHoundConfig, folder: Path, files: list[Path], towers: str) -> None:
        self.config = config
        self.folder = folder
        self.files = files
        self.names = to_ours(key_names(files))
        self.towers = {tower: self._choose(tower, towers) for tower in TOWERS}

    def _choose(self, tower: str, choice: str) -> str | None:
        """The repository's file for a tower, or None for the checkpoint's own copy."""
        in_checkpoint = any(name.startswith(f"model.{tower}.") for name in self.names.values())
        name = getattr(self.config, f"mm_{tower}")
        file = find_tower(name, str(self.folder), {}) if name and choice != "checkpoint" else None
        if file is None and (not in_checkpoint or choice == "repository"):
            raise CheckpointError(
                f"The {tower.replace('_', ' ')} {name!r} cannot be found as a folder or on the hub"
                + (", and the checkpoint has no copy of it." if not in_checkpoint else ".")
                + f" Download it once (`hf download {name}`), or put the path of a local copy into config.json."
            )
        if file is not None and in_checkpoint and choice == "auto" and not self._is_rounding(tower, file):
            return None
        return file

    def _is_rounding(self, tower: str, file: str) -> bool:
        """Whether the checkpoint's copy is the repository's tower in the checkpoint's dtype."""
        prefix = f"model.{tower}."
        copy = stored_tensors(self.files, lambda name: self.names.get(name, "").startswith(prefix))
        named = ((self.names[name].removeprefix(prefix), tensor) for name, tensor in copy)
        return is_repository_tower(file, getattr(self.config, f"{tower}_config"), named)

    def plan(self) -> ConversionReport:
        report = ConversionReport(keys=[(old, new) for old, new, _ in self._order(names_only=True)])
        for tower, file in self.towers.items():
            name = getattr(self.config, f"mm_{tower}")
            report.towers[tower] = f"{name} ({file})" if file else "the checkpoint's own copy"
        return report

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the tensors to be written."""
        shapes = {self.names[name]: shape for name, shape in stored_shapes(self.files).items() if name in self.names}
        for tower, file in self.towers.items():
            if file is not None:
                prefix = f"model.{tower}."
                with contextlib.ExitStack() as stack:
                    tower_shapes = tensor_shapes(read_tower(file, getattr(self.config, f"{tower}_config"), stack))
                shapes = {name: shape for name, shape in shapes.items() if not name.startswith(prefix)}
                shapes |= {prefix + name: shape for name, shape in tower_shapes.items()}
        return shapes

    def tensors(self) -> Iterator[tuple[str, str, torch.Tensor]]:
        return self._order(names_only=False)

    def _order(self, names_only: bool) -> Iterator[tuple[str, str, Any]]:
        replaced = tuple(f"model.{tower}." for tower, file in self.towers.items() if file)
        remaining = {name: ours for name, ours in self.names.items() if not ours.startswith(replaced)}
        source = (
            ((name, None) for name in remaining) if names_only else stored_tensors(self.files, remaining.__contains__)
        )
        for name, tensor in source:
            yield name, remaining[name], tensor
        for tower, file in self.towers.items():
            if file is None:
                continue
            with contextlib.ExitStack() as stack:
                tensors = read_tower(file, getattr(self.config, f"{tower}_config"), stack)
                for name, value in tensors.items():
                    tensor = None if names_only else (value if torch.is_tensor(value) else value[...])
                    yield f"{getattr(self.config, f'mm_{tower}')}: {name}", f"model.{tower}.{name}", tensor

    def write_files(self, writer: CheckpointWriter, report: ConversionReport) -> None:
        self.config.original_towers = self._tower_dtypes()
        self.config.architectures = ["LlavaHoundForConditionalGeneration"]
        self.config.save_pretrained(writer.part)
        tokenizer = AutoTokenizer.from_pretrained(self.folder, trust_remote_code=False)
        settings = saved_settings(self.folder)
        LlavaHoundProcessor.from_config(self.config, tokenizer, **settings).save_pretrained(writer.part)
        keep_tokenizer(self.folder, writer.part)
        if (self.folder / "generation_config.json").is_file():
            shutil.copyfile(self.folder / "generation_config.json", writer.part / "generation_config.json")

    def _tower_dtypes(self) -> dict[str, str | None]:
        """Dtypes of the original's towers, for converting back; None for a tower that it did not include."""
        dtypes: dict[str, str | None] = dict.fromkeys(TOWERS)
        for name, dtype in stored_dtypes(self.files).items():
            for tower in TOWERS:
                if self.names.get(name, "").startswith(f"model.{tower}."):
                    dtypes[tower] = str(dtype).removeprefix("torch.")
        return dtypes


class _ToOriginal:
    """From our layout to the original's."""

    def __init__(
        self, config: LlavaHoundConfig, folder: Path, files: list[Path], tokenizer: str | None, towers: str = "auto"
    ) -> None:
        self.towers = towers
        self.config = config
        self.folder = folder
        self.files = files
        self.names = to_original(key_names(files))
        folders = [Path(tokenizer)] if tokenizer else [folder / _TOKENIZER_FOLDER, folder]
        self.tokenizer = next((folder for folder in folders if (folder / "tokenizer.model").is_file()), None)
        if tokenizer and self.tokenizer is None:
            raise SettingsError(f"Expected tokenizer.model in {tokenizer}, found none. Name another folder.")
        self.has_new_tokens = self.tokenizer not in (None, folder) and not has_the_tokens(self.tokenizer, folder)
        if tokenizer and self.has_new_tokens:
            raise SettingsError(
                f"Expected the tokens of {folder} in the tokenizer {tokenizer}; it has others, or other ids for them. "
                "Leave it out: the checkpoint's own tokenizer.json is copied then."
            )
        if self.has_new_tokens:
            self.tokenizer = None
        self.unverified: list[str] = []
        self.own_towers: list[str] = []
        self.own_towers = [tower for tower in TOWERS if self._is_own(tower)]

    def _is_own(self, tower: str) -> bool:
        """Whether a tower is not the repository's, which whoever reads the original layout would prefer."""
        name, prefix = getattr(self.config, f"mm_{tower}"), f"model.{tower}."
        if not name or self.towers == "checkpoint":
            return True
        file = find_tower(name, str(self.folder), {})
        if file is None:
            if not self._dtype(prefix)[0] or self.towers == "auto":
                raise CheckpointError(
                    f"Cannot compare the {tower.replace('_', ' ')} of {self.folder} with {name!r}, which the original "
                    "code takes instead of the checkpoint's: it cannot be found. Download it once (`hf download "
                    f"{name}`); or say what it is: `--towers repository` if the tower was never trained, `--towers "
                    "checkpoint` to keep the weights here."
                )
            self.unverified.append(tower)
            return False
        if not has_the_shape(read_tower_config(name, str(self.folder)), getattr(self.config, f"{tower}_config")):
            return True
        copy = stored_tensors(self.files, lambda key: key.startswith(prefix))
        named = ((key.removeprefix(prefix), tensor) for key, tensor in copy)
        return not is_repository_tower(file, getattr(self.config, f"{tower}_config"), named)

    def _dtype(self, name: str) -> tuple[bool, torch.dtype | None]:
        """Whether a tensor is written, and for towers the original dtype."""
        dtypes = getattr(self.config, "original_towers", None)
        for tower in TOWERS:
            if dtypes is not None and name.startswith(f"model.{tower}.") and tower not in self.own_towers:
                return dtypes[tower] is not None, getattr(torch, dtypes[tower]) if dtypes[tower] else None
        return True, None

    def plan(self) -> ConversionReport:
        report = ConversionReport(keys=[(old, new) for old, new in self.names.items() if self._dtype(old)[0]])
        for tower in TOWERS:
            is_included = any(f".{tower}.{tower}." in new for _, new in report.keys)
            report.towers[tower] = "in the checkpoint" if is_included else "left out, as in the original checkpoint"
        if self.has_new_tokens:
            report.warnings.append(
                "The source has other tokens than the original tokenizer.model that it keeps, which is left out; "
                "tokenizer.json is copied."
            )
        elif self.tokenizer is None:
            report.warnings.append(
                "The source has no tokenizer.model, which the original code needs; tokenizer.json is copied. Name a "
                "folder that has the file with `--tokenizer`, such as the original checkpoint."
            )
        for tower in self.own_towers:
            name = getattr(self.config, f"mm_{tower}")
            reason = f"is no longer the one of {name}" if name else "names no repository"
            reason = "is kept as it is" if name and self.towers == "checkpoint" else reason
            report.warnings.append(
                f"The source's {tower} {reason}: the checkpoint has its weights, and config.json names a subfolder "
                "with its configuration. This package reads that; the original code does not, as it builds its towers "
                "only from folders or hub ids that end in LanguageBind_Image and LanguageBind_Video_merge."
            )
        if self.unverified:
            report.warnings.append(
                f"The repositories of {' and '.join(self.unverified)} cannot be found, so it was not compared whether "
                "the source still has their weights. The original code needs them, and takes them instead of the "
                "checkpoint's."
            )
        if changed := changed_settings(self.folder, self.config):
            report.warnings.append(
                f"The original layout cannot store {', '.join(changed)} of this model. {PROCESSOR_NAME} is copied for "
                "converting back and for this package; the original code uses its own values."
            )
        return report

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the source's tensors."""
        return stored_shapes(self.files)

    def tensors(self) -> Iterator[tuple[str, str, torch.Tensor]]:
        for name, tensor in stored_tensors(self.files, lambda name: name in self.names and self._dtype(name)[0]):
            dtype = self._dtype(name)[1]
            yield name, self.names[name], tensor if dtype is None else tensor.to(dtype)

    def write_files(self, writer: CheckpointWriter, report: ConversionReport) -> None:
        values = original_config(self.config)
        for tower in self.own_towers:
            values[f"mm_{tower}"] = tower
            (writer.part / tower).mkdir()
            getattr(self.config, f"{tower}_config").save_pretrained(writer.part / tower)
        writer.write_json("config.json", values)
        folder = self.tokenizer or self.folder
        for name in _TOKENIZER_FILES if self.tokenizer else ("tokenizer.json", *_TOKENIZER_FILES):
            if (folder / name).is_file():
                shutil.copyfile(folder / name, writer.part / name)
        if (self.folder / "generation_config.json").is_file():
            shutil.copyfile(self.folder / "generation_config.json", writer.part / "generation_config.json")
        if changed_settings(self.folder, self.config):
            shutil.copyfile(self.folder / PROCESSOR_NAME, writer.part / PROCESSOR_NAME)
