"""``__all__`` is the public surface of the package, and every name in it can be imported."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

import hound_plugin
from hound_plugin import errors

SOURCE = Path(hound_plugin.__file__).read_text(encoding="utf-8")


def typed_names() -> set[str]:
    """What type checkers see: the imports under ``if TYPE_CHECKING``."""
    blocks = [node for node in ast.parse(SOURCE).body if isinstance(node, ast.If)]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name for node in imports for alias in node.names}


def test_all_is_what_dir_shows() -> None:
    assert sorted(hound_plugin.__all__) == sorted(name for name in dir(hound_plugin) if name != "__doc__")
    assert len(set(hound_plugin.__all__)) == len(hound_plugin.__all__)


def test_type_checkers_see_the_same_names() -> None:
    assert typed_names() == set(hound_plugin.__all__) - {"__version__"}


@pytest.mark.parametrize("name", hound_plugin.__all__)
def test_a_public_name_comes_from_its_home(name: str) -> None:
    value = getattr(hound_plugin, name)
    if name != "__version__":
        assert value.__module__ == hound_plugin._HOME[name]
        assert inspect.getdoc(value)


def test_every_error_is_public_and_one_of_ours() -> None:
    raised = {
        name: value
        for name, value in vars(errors).items()
        if isinstance(value, type) and value.__module__ == errors.__name__
    }
    for name, value in raised.items():
        assert issubclass(value, hound_plugin.HoundError), name
        assert name in (errors.__doc__ or ""), f"{name} is missing in the tree at the top of errors.py"
    assert set(raised) <= set(hound_plugin.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        hound_plugin.lod  # noqa: B018
