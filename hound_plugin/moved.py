"""Modules and names that have moved: earlier imports work, with a ``DeprecationWarning`` that names the new ones."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_P = __package__
MODULES: dict[str, str] = {  # earlier module -> module that holds its names now
    f"{_P}.corpus.convert": f"{_P}.corpus.dataset_conversion",
    f"{_P}.corpus.records": f"{_P}.corpus.checking",
    f"{_P}.corpus.shapes": f"{_P}.corpus.dataset_conversion",
    f"{_P}.media.cache": f"{_P}.media.frame_cache",
    f"{_P}.media.memory": f"{_P}.media.pixel_cache",
    f"{_P}.media.pixel_memory": f"{_P}.media.pixel_cache",
    f"{_P}.media.sampling": f"{_P}.media.frame_sampling",
    f"{_P}.model.conversion": f"{_P}.model.checkpoint_conversion",
    f"{_P}.model.convert": f"{_P}.model.key_mapping",
    f"{_P}.model.features": f"{_P}.model.feature_cache",
    f"{_P}.model.sampling": f"{_P}.model.answer_sampling",
    f"{_P}.model.shards": f"{_P}.model.checkpoint_writer",
}
NAMES: dict[str, str] = {  # earlier name -> new one, where more than the module has changed
    f"{_P}.corpus.convert.Converted": f"{_P}.corpus.dataset_conversion.ConversionResult",
    f"{_P}.corpus.records.IMAGE_TOKEN": f"{_P}.records.placeholders.IMAGE_TOKEN",
    f"{_P}.corpus.records.VIDEO_TOKEN": f"{_P}.records.placeholders.VIDEO_TOKEN",
    f"{_P}.corpus.records.Problem": f"{_P}.records.record.Problem",
    f"{_P}.media.memory.BoundedMemory": f"{_P}.media.pixel_cache.MemoryCache",
    f"{_P}.media.memory.MediaMemory": f"{_P}.media.pixel_cache.PixelCache",
    f"{_P}.media.pixel_memory.BoundedMemory": f"{_P}.media.pixel_cache.MemoryCache",
    f"{_P}.media.pixel_memory.MediaMemory": f"{_P}.media.pixel_cache.PixelCache",
    f"{_P}.model.conversion.Report": f"{_P}.model.checkpoint_conversion.ConversionReport",
    f"{_P}.model.features.FeatureMemory": f"{_P}.model.feature_cache.FeatureCache",
}


class _MovedModule(ModuleType):
    """An earlier module, whose names are looked up where they are now."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # looked up by the import system and inspect
            raise AttributeError(name)
        earlier = f"{self.__name__}.{name}"
        module, _, now = NAMES.get(earlier, f"{MODULES[self.__name__]}.{name}").rpartition(".")
        value = getattr(import_module(module), now)
        warnings.warn(f"{earlier} is now {module}.{now}; change the import.", DeprecationWarning, stacklevel=2)
        return value


class _MovedFinder(MetaPathFinder, Loader):
    """The last of all finders, so that it is asked only for modules that no longer exist."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MODULES else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _MovedModule(spec.name, f"The earlier name of :mod:`{MODULES[spec.name]}`.")

    def exec_module(self, module: ModuleType) -> None:
        """Execute nothing: names are looked up on access."""


def install() -> None:
    """Make earlier imports work; harmless if repeated."""
    if not any(isinstance(finder, _MovedFinder) for finder in sys.meta_path):
        sys.meta_path.append(_MovedFinder())
