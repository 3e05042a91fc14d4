"""Builds the demo's folder: tokenizer, clips, data and, given a function for it, the model.

::

    demo/
      build.json              what was built, from which parameters; written last
      tokenizer/              tokenizer.model and its two JSON files
      clips/                  *.mp4 and *.png; the records name them relative to this folder (`media_dir`)
      data/                   dataset_info.json and the JSONL files (`dataset_dir`)
      model/                  only with `write_model`
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from hound_plugin.demo import clips, curriculum, questions, records, tokenizer
from hound_plugin.demo.clips import FAMILIES, Family, Scene
from hound_plugin.demo.records import Item
from hound_plugin.errors import SettingsError
from hound_plugin.records.files import hold, write_json, write_rows

WriteModel = Callable[[Path, Path, int], None]
"""``(tokenizer folder, model folder to write, seed)``."""

SHARES: dict[Family, float] = {"still": 0.25, "motion": 0.4, "order": 0.3, "image": 0.05}
TRAIN_CLIPS = 3000
HELD_OUT_CLIPS = 240
_STAMP = "build.json"
_LOCK = ".demo.lock"
_FOLDERS = ("tokenizer", "clips", "data", "model")
_HELD_OUT_SEED = 1_000_003  # added to the seed, so that held-out scenes do not depend on the number of training clips


@dataclass(frozen=True)
class DemoPaths:
    """Where the parts of a built demo lie."""

    folder: Path

    @property
    def tokenizer(self) -> Path:
        """Folder of the tokenizer's files."""
        return self.folder / "tokenizer"

    @property
    def clips(self) -> Path:
        """Folder of clips and images: the host's ``media_dir``."""
        return self.folder / "clips"

    @property
    def data(self) -> Path:
        """Folder of ``dataset_info.json`` and the records: the host's ``dataset_dir``."""
        return self.folder / "data"

    @property
    def model(self) -> Path:
        """Folder of the model; there only if the demo was built with one."""
        return self.folder / "model"

    @property
    def runs(self) -> Path:
        """Folder of what ``hound demo --run`` trains: checkpoints, logs, report."""
        return self.folder / "runs"

    @property
    def held_out_questions(self) -> Path:
        """The questions to score, with kind and accepted answers."""
        return self.data / "held_out_questions.jsonl"

    @property
    def stamp(self) -> Path:
        """What was built from what."""
        return self.folder / _STAMP

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Lock the folder for a block: two builds would mix their clips, and two trainings their checkpoints.

        Raises:
            InUseError: another process builds or trains this demo.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = hold(
            self.folder / _LOCK,
            f"Another process builds or trains the demo in {self.folder}. Wait for it, end it, or name another folder.",
        )
        try:
            yield
        finally:
            lock.release(remove=True)


def build_demo(
    folder: str | os.PathLike[str] = "demo",
    *,
    seed: int = 0,
    train_clips: int = TRAIN_CLIPS,
    held_out_clips: int = HELD_OUT_CLIPS,
    force: bool = False,
    progress: bool = True,
    write_model: WriteModel | None = None,
    is_alone: bool = False,
) -> DemoPaths:
    """Write the whole demo under ``folder``, or do nothing if the same one is there already.

    A build that was interrupted, or was made from other parameters or by another version of this code, is built again:
    only the sub-folders named at the top of this module are replaced.

    Args:
        folder: made if missing.
        seed: equal seeds give equal files on one machine.
        train_clips, held_out_clips: how many clips (images included) of each split; no scene is in both.
        force: build even if it is there.
        progress: show a progress bar.
        write_model: writes the model's folder.
        is_alone: the caller is in :meth:`DemoPaths.alone`.

    Raises:
        InUseError: another process builds or trains a demo there.
        SettingsError: a number of clips is not positive, or ``folder`` holds sub-folders of these names which this
            function did not make.
    """
    if seed < 0:
        raise SettingsError(f"expected a seed of at least 0, got {seed}")
    if train_clips < 1 or held_out_clips < 1:
        raise SettingsError(f"expected one clip or more in each split, got {train_clips} and {held_out_clips}")
    paths = DemoPaths(Path(folder))
    parameters = {
        "seed": seed,
        "train_clips": train_clips,
        "held_out_clips": held_out_clips,
        "code": _digest_of_code(write_model),
    }
    if not force and is_built(paths, parameters):
        return paths
    with contextlib.nullcontext() if is_alone else paths.alone():
        if force or not is_built(paths, parameters):  # another process may just have finished it
            _build(paths, parameters, progress, write_model)
    return paths


def _build(paths: DemoPaths, parameters: Mapping[str, Any], progress: bool, write_model: WriteModel | None) -> None:
    seed = parameters["seed"]
    _clear(paths, parameters)
    tokenizer.write_tokenizer(paths.tokenizer)
    train, held_out = draw_split(seed, parameters["train_clips"], parameters["held_out_clips"])
    for item in tqdm([*train, *held_out], desc="clips", unit="clip", disable=not progress):
        _write_media(paths.clips / item.file, item.scene)
    _write_data(paths, train, held_out, seed)
    if write_model is not None:
        write_model(paths.tokenizer, paths.model, seed)
    _write_stamp(paths, parameters, complete=True)


def is_built(paths: DemoPaths, parameters: Mapping[str, Any]) -> bool:
    """Whether a finished build of these parameters is there, with every file in its size."""
    stamp = _read_stamp(paths)
    if not stamp or not stamp.get("complete") or stamp.get("parameters") != dict(parameters):
        return False
    for name, size in stamp["files"].items():
        file = paths.folder / name
        if not file.is_file() or file.stat().st_size != size:
            return False
    return True


def draw_split(seed: int, train: int, held_out: int) -> tuple[list[Item], list[Item]]:
    """The items of both splits. No held-out scene occurs in training: positions, speeds, times and sizes are new.

    The *combinations* of colour, shape and direction are the same in both splits.
    """
    split: list[list[Item]] = []
    for name, number, salt in (("train", train, 0), ("held_out", held_out, _HELD_OUT_SEED)):
        rng = np.random.default_rng(seed + salt)
        taken = {item.scene for items in split for item in items}
        scenes = [scene for family in FAMILIES for scene in clips.draw_scenes(family, _part(family, number), rng)]
        fresh = [scene for scene in scenes if scene not in taken]  # a repetition has probability zero, in effect
        split.append([_item(name, index, fresh[place]) for index, place in enumerate(rng.permutation(len(fresh)))])
    return split[0], split[1]


def _part(family: Family, number: int) -> int:
    """How many of ``number`` clips are of a family; the parts add up to ``number``."""
    bounds = np.floor(np.cumsum([0.0, *SHARES.values()]) * number + 0.5).astype(int)
    place = list(SHARES).index(family)
    return int(bounds[place + 1] - bounds[place])


def _item(split: str, index: int, scene: Scene) -> Item:
    suffix = "png" if scene.family == "image" else "mp4"
    return Item(f"{split}-{index:05d}", f"{split}_{index:05d}.{suffix}", scene)


def _write_media(path: Path, scene: Scene) -> None:
    frames = clips.render(scene)
    if scene.family == "image":
        clips.write_image(path, frames[0])
    else:
        clips.write_clip(path, frames)


def _write_data(paths: DemoPaths, train: list[Item], held_out: list[Item], seed: int) -> None:
    rng = np.random.default_rng([seed, 1])
    asked = records.held_out_questions(held_out)
    rows = {
        "demo_sft": curriculum.sft_records(train, rng),
        "demo_sft_held_out": records.held_out_sft_records(asked, rng),
        "demo_dpo": records.dpo_records(train, rng),
        "demo_dpo_held_out": records.dpo_records(held_out, rng),
        "reward_questions": records.reward_records(train, np.random.default_rng([seed, 2])),
        "held_out_questions": [records.question_record(item, question) for item, question in asked],
    }
    for name, lines in rows.items():
        write_rows(paths.data / f"{name}.jsonl", lines)
    info = {name: _dataset_info(name) for name in rows if name.startswith("demo_")}
    write_json(paths.data / "dataset_info.json", info)


def _dataset_info(name: str) -> dict[str, Any]:
    info: dict[str, Any] = {"file_name": f"{name}.jsonl", "formatting": "hound"}
    return {**info, "ranking": True} if name.startswith("demo_dpo") else info


def _clear(paths: DemoPaths, parameters: Mapping[str, Any]) -> None:
    """Mark the build as begun and remove an earlier one; never what this module did not write."""
    present = [name for name in _FOLDERS if (paths.folder / name).exists()]
    if present and _read_stamp(paths) is None:
        raise SettingsError(
            f"expected an empty folder or an earlier demo in {paths.folder}, found {', '.join(present)} and no "
            f"{_STAMP}; name another folder, or remove these"
        )
    paths.folder.mkdir(parents=True, exist_ok=True)
    _write_stamp(paths, parameters, complete=False)
    for name in present:
        shutil.rmtree(paths.folder / name)
    for folder in (paths.tokenizer, paths.clips, paths.data):
        folder.mkdir()


def _write_stamp(paths: DemoPaths, parameters: Mapping[str, Any], complete: bool) -> None:
    files: dict[str, int] = {}
    if complete:
        found = (file for name in _FOLDERS for file in sorted((paths.folder / name).rglob("*")) if file.is_file())
        files = {file.relative_to(paths.folder).as_posix(): file.stat().st_size for file in found}
    stamp = {"complete": complete, "parameters": dict(parameters), "files": files}
    write_json(paths.stamp, stamp)


def _read_stamp(paths: DemoPaths) -> dict[str, Any] | None:
    """The stamp; an empty one if it is damaged; None if there is none."""
    try:
        stamp = json.loads(paths.stamp.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return stamp if isinstance(stamp, dict) and isinstance(stamp.get("files"), dict) else {}


def _digest_of_code(write_model: WriteModel | None) -> str:
    """Hash of the code that decides what is built: a demo made by another version is not up to date."""
    digest = hashlib.sha256()
    for module in (clips, curriculum, questions, records, tokenizer):
        digest.update(inspect.getsource(module).encode())
    digest.update(Path(__file__).read_bytes())
    if write_model is not None:
        digest.update(Path(inspect.getsourcefile(write_model) or "").read_bytes())
    return digest.hexdigest()
