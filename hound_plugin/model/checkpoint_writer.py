"""Write a checkpoint shard by shard: memory stays near one shard, and the final name never shows half a checkpoint."""

from __future__ import annotations

import contextlib
import json
import os
import types
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from hound_plugin.errors import SettingsError
from hound_plugin.model.completeness import check_finite
from hound_plugin.records.files import clear_leftovers, hold, rename, whole_path

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_size(text: str) -> int:
    """Bytes of a size such as ``5GB`` or ``500MB``.

    Raises:
        SettingsError: the text is not a size.
    """
    upper = text.strip().upper()
    for unit in sorted(_UNITS, key=len, reverse=True):
        number = upper.removesuffix(unit).strip()
        if upper.endswith(unit) and number.replace(".", "", 1).isdigit() and float(number) > 0:
            return int(float(number) * _UNITS[unit])
    raise SettingsError(f"Expected a size such as 5GB or 500MB, got {text!r}.")


class CheckpointWriter:
    """Writes tensors into ``folder`` as safetensors shards with an index.

    Everything goes into ``part``, which takes the final name when the block ends without an exception; otherwise it is
    removed. Use it as a context manager; it locks the final name, so that two processes never write one checkpoint.

    Args:
        folder: must not exist, or be empty.
        shard_size: largest size of one file in bytes; a larger tensor gets its own file.
        source: where the tensors come from, for messages.

    Raises:
        SettingsError: ``folder`` is not empty.
        InUseError: another process is writing it.
        DiskFullError: there is too little space; nothing is left.
    """

    part: Path

    def __init__(self, folder: Path, shard_size: int, source: str) -> None:
        self.folder = Path(os.path.abspath(folder))
        self._check_empty()
        self._open = contextlib.ExitStack()
        self._shard_size = shard_size
        self._source = source
        self._pending: dict[str, torch.Tensor] = {}
        self._pending_bytes = 0
        self._shards: list[list[str]] = []
        self._total = 0

    def __enter__(self) -> CheckpointWriter:
        parent, name = self.folder.parent, self.folder.name
        parent.mkdir(parents=True, exist_ok=True)
        lock = hold(parent / f".{name}.lock", f"Another process is writing {self.folder}. Wait for it, or end it.")
        self._open.callback(lock.release, remove=True)
        try:
            self._check_empty()  # its last holder may have finished in the meantime
            clear_leftovers(parent, name)
            self.part = self._open.enter_context(whole_path(self.folder))
            self.part.mkdir()
        except BaseException:
            self._open.close()
            raise
        return self

    def _check_empty(self) -> None:
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise SettingsError(f"Expected a new or an empty folder, found files in {self.folder}. Name another one.")

    def add(self, name: str, tensor: torch.Tensor) -> None:
        """Add a tensor; it is written and released when its shard is full.

        Raises:
            CheckpointError: a tensor of the full shard has NaN or infinity.
        """
        size = tensor.numel() * tensor.element_size()
        if self._pending and self._pending_bytes + size > self._shard_size:
            self._flush()
        self._pending[name] = tensor.contiguous()
        self._pending_bytes += size
        self._total += size

    def write_json(self, name: str, values: Any) -> None:
        """Write a JSON file next to the weights."""
        text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
        (self.part / name).write_text(text, encoding="utf-8")

    def _flush(self) -> None:
        check_finite(self._pending.items(), self._source)
        save_file(self._pending, self._shard(len(self._shards)), metadata={"format": "pt"})
        self._shards.append(list(self._pending))
        self._pending = {}
        self._pending_bytes = 0

    def _shard(self, number: int) -> Path:
        return self.part / f"shard-{number:05d}.safetensors"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self._open.push(self._finish_unless_failed)
        self._open.__exit__(kind, error, trace)

    def _finish_unless_failed(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._finish()

    def _finish(self) -> None:
        if self._pending:
            self._flush()
        self._name_shards()
        umask = os.umask(0)
        os.umask(umask)
        for file in self.part.iterdir():
            if file.is_file():
                file.chmod(0o666 & ~umask)  # safetensors makes them readable only by their owner

    def _name_shards(self) -> None:
        count = len(self._shards)
        if count == 1:
            rename(self._shard(0), self.part / SAFE_WEIGHTS_NAME)
            return
        weight_map: dict[str, str] = {}
        for number, names in enumerate(self._shards):
            file = f"model-{number + 1:05d}-of-{count:05d}.safetensors"
            rename(self._shard(number), self.part / file)
            weight_map.update(dict.fromkeys(names, file))
        self.write_json(SAFE_WEIGHTS_INDEX_NAME, {"metadata": {"total_size": self._total}, "weight_map": weight_map})
