"""The content of a checkpoint as digests: is this the model that something was computed with?"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from transformers import AutoConfig
from transformers.utils import cached_file

from hound_plugin.errors import CheckpointError
from hound_plugin.model.checkpoint import find_tower
from hound_plugin.model.checkpoint_files import weight_files
from hound_plugin.model.configuration import LlavaHoundConfig

_THREADS = 8


def checkpoint_digests(name: str, hub: Mapping[str, Any]) -> dict[str, str]:
    """What decides what a model computes, by file: weights, config.json, and towers with files of their own.

    Args:
        name: a folder, whose files are read in full, or a hub id, whose commit names its content.
        hub: ``cache_dir``, ``revision`` and ``token`` for the hub.

    Returns:
        SHA-256 by file name; ``repository`` with ``id@commit`` for a hub id.

    Raises:
        CheckpointError: the folder has no weights, or the repository cannot be reached.
    """
    folder = Path(name) if os.path.isdir(name) else None
    files: dict[str, Path] = {}
    digests: dict[str, str] = {}
    if folder is None:
        digests["repository"] = _commit(name, "config.json", hub)
    else:
        files = {file.name: file for file in (folder / "config.json", *weight_files(folder))}
    config = AutoConfig.from_pretrained(name, **hub, trust_remote_code=False)
    if _model_type(name, hub) != LlavaHoundConfig.model_type:  # the original's layout
        for tower in ("mm_image_tower", "mm_video_tower"):
            at = getattr(config, tower, None)
            found = find_tower(at, str(folder) if folder else None, {"cache_dir": hub.get("cache_dir")}) if at else None
            if found is not None:
                files[tower] = Path(found)
    return {**digests, **file_digests(files)}


def adapter_digests(name: str, hub: Mapping[str, Any]) -> dict[str, str]:
    """The same of an adapter: its weights and adapter_config.json."""
    if not os.path.isdir(name):
        return {"repository": _commit(name, "adapter_config.json", hub)}
    kept = [path for path in sorted(Path(name).iterdir()) if path.name.startswith("adapter_") and path.is_file()]
    return file_digests({path.name: path for path in kept})


def file_digests(files: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 of each file, several at a time."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return dict(zip(files, pool.map(_digest, files.values()), strict=True))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _model_type(name: str, hub: Mapping[str, Any]) -> Any:
    path = os.path.join(name, "config.json") if os.path.isdir(name) else cached_file(name, "config.json", **hub)
    return json.loads(Path(str(path)).read_text(encoding="utf-8")).get("model_type")


def _commit(name: str, file: str, hub: Mapping[str, Any]) -> str:
    try:
        path = cached_file(name, file, **hub)
    except OSError as error:
        raise CheckpointError(f"Expected a folder or a hub id with {file}; got {name!r}: {error}") from error
    return f"{name}@{Path(str(path)).parent.name}"
