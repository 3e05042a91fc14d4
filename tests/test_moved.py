"""Imports by earlier names still work, say what is new, and are in the changelog."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec

import pytest

from hound_plugin import moved
from tests.host.hosting import REPO


def test_every_new_place_exists() -> None:
    for module in {*moved.MODULES.values(), *(name.rpartition(".")[0] for name in moved.NAMES.values())}:
        assert find_spec(module) is not None, module
    for name in moved.NAMES.values():
        module, _, attribute = name.rpartition(".")
        assert hasattr(import_module(module), attribute), name


@pytest.mark.parametrize("earlier", moved.MODULES)
def test_no_file_of_the_earlier_name_is_left(earlier: str) -> None:
    file = REPO / earlier.replace(".", "/")
    assert not file.with_suffix(".py").exists()
    assert not (file / "__init__.py").exists() or any(name.startswith(f"{earlier}.") for name in moved.MODULES)


def test_every_earlier_name_is_in_the_changelog() -> None:
    changelog = (REPO / "CHANGELOG.md").read_text(encoding="utf-8")
    missing = [name for name in moved.MODULES if f"`{name.removeprefix('hound_plugin.')}`" not in changelog]
    assert missing == []


@pytest.mark.parametrize("name", ["PixelCache", "MediaMemory"])
def test_an_earlier_import_gives_the_same_object_and_a_warning(name: str) -> None:
    sys.modules.pop("hound_plugin.media.pixel_memory", None)
    earlier = import_module("hound_plugin.media.pixel_memory")
    with pytest.warns(DeprecationWarning, match=r"is now hound_plugin\.media\.pixel_cache\.PixelCache"):
        value = getattr(earlier, name)
    assert value is import_module("hound_plugin.media.pixel_cache").PixelCache


def test_names_that_never_were_are_refused() -> None:
    with pytest.raises(ImportError):
        from hound_plugin.model.convert import never  # noqa: F401
    with pytest.raises(ModuleNotFoundError):
        import_module("hound_plugin.model.never")
