"""Identity of a model's weights without reading them whole: is this the model that it was before?

A training may change a few small tensors in the middle of a large file, such as the projector; so each of them counts.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from hound_plugin.records.media_identity import sampled_digest

_SAMPLE = 512  # bytes of a tensor
_LONGEST_HEADER = 100 << 20  # bytes, as the library has it
_END = 1 << 20  # bytes


def checkpoint_fingerprint(path: str) -> str:
    """A short hash of a checkpoint folder: names, sizes, both ends of every file, and samples of every tensor of large
    safetensors files; of the name itself for a hub id.
    """
    digest = hashlib.sha256()
    if not os.path.isdir(path):
        return hashlib.sha256(path.encode()).hexdigest()[:12]
    for file in sorted(Path(path).iterdir()):
        if file.is_file() and file.suffix in (".safetensors", ".bin", ".json", ".model") and file.name != "run.json":
            size = file.stat().st_size
            digest.update(f"{file.name}\x00{size}\x00".encode())
            with file.open("rb") as data:
                digest.update(data.read(_END))
                if size > _END:
                    data.seek(max(_END, size - _END))
                    digest.update(data.read(_END))
            if size > 2 * _END:
                digest.update("".join(_tensors(str(file))).encode())
    return digest.hexdigest()[:12]


def weights_of(folder: str | os.PathLike[str], every_tensor: bool = True) -> dict[str, list[Any]]:
    """Identity of a model's weight files: by name, their size and a digest of samples.

    Args:
        folder: of the model.
        every_tensor: samples are of each tensor of safetensors files, as trainings may change a few small ones; False:
            of head, middle and tail of each file, as earlier versions noted them.
    """
    names = sorted(name for name in os.listdir(folder) if name.endswith((".safetensors", ".bin")))
    files = {name: os.path.join(folder, name) for name in names if not name.startswith("training_args")}
    return {
        name: [os.path.getsize(path), *(_tensors(path) if every_tensor else []), sampled_digest(path)]
        for name, path in files.items()
    }


def _tensors(path: str) -> list[str]:
    """A digest of the beginning and the middle of each tensor of a safetensors file; nothing of another file.

    Files of torch end with a checksum of each tensor, which :func:`sampled_digest` reads.
    """
    if not path.endswith(".safetensors"):
        return []
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(length if length < _LONGEST_HEADER else 0))
            spans = sorted(entry["data_offsets"] for name, entry in header.items() if name != "__metadata__")
        except (ValueError, KeyError, TypeError, AttributeError):
            return []  # damaged: whoever loads it says so
        for start, end in spans:
            for place in (start, (start + end) // 2):
                file.seek(8 + length + place)
                digest.update(file.read(min(_SAMPLE, end - place)))
    return [digest.hexdigest()]
