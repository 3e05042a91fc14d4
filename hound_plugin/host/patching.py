"""Applies the catalogue of :mod:`hound_plugin.host.patches`, after probing each place: is it there, as expected?

What has moved, or takes other arguments, is left alone and remembered. Where LLaVA-Hound is trained or served, it is an
error if the run depends on it, else a warning.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

from hound_plugin.errors import EnvironmentMismatchError
from hound_plugin.host import settings_state
from hound_plugin.host.patches import EVERY_RUN, KNOWN, Entry, Patch, entries_of

_MARK = "_hound_plugin"


@dataclass(frozen=True)
class Missing:
    """An entry of the catalogue that does not fit the installed host.

    Attributes:
        entry: what was not applied.
        problem: what is not as expected, in words.
    """

    entry: Entry
    problem: str

    @property
    def blocks(self) -> bool:
        """Whether the run that this process parsed depends on it."""
        return self.entry.essential_for in (EVERY_RUN, settings_state.stage())

    def __str__(self) -> str:
        return f"{self.problem}; without it, {self.entry.without}"


_missing: dict[Entry, Missing] = {}
_warned: set[Entry] = set()


def apply_to(module: ModuleType, patches_only: bool = False) -> None:
    """Apply what the catalogue has for a host module that has just been executed; repeating it is harmless.

    Args:
        module: the host's.
        patches_only: wrap functions, whose bodies are imported at their first call, and call nothing of ours.

    Raises:
        EnvironmentMismatchError: LLaVA-Hound is trained or served, and cannot be without something that is missing.
    """
    for entry in entries_of(module.__name__):
        if patches_only and not isinstance(entry, Patch):
            continue
        problem = probe(entry)
        if problem is not None:
            _missing[entry] = Missing(entry, problem)
        elif isinstance(entry, Patch):
            _wrap(entry, module)
        else:
            _body(entry.body)()
    if settings_state.is_ours():
        check_missing()
    elif any(_missing[entry].blocks for entry in _missing if entry.module == module.__name__ and _reads(entry)):
        raise _error()


def missing() -> list[Missing]:
    """What was not applied in this process so far."""
    return list(_missing.values())


def is_missing(target: str) -> bool:
    """Whether a method of the host, by its name, was not as expected."""
    return any(name.endswith(f".{target}") for entry in _missing for name in entry.names)


def check_missing() -> None:
    """Called where LLaVA-Hound is trained or served: refuse the run, or warn, for what was not applied.

    Raises:
        EnvironmentMismatchError: the run depends on it.
    """
    if any(item.blocks for item in _missing.values()):
        raise _error()
    new = [item for item in _missing.values() if item.entry not in _warned]
    _warned.update(item.entry for item in new)
    if new:
        from llamafactory.extras import logging

        logging.get_logger(__name__).warning_rank0(f"{_introduction()} {_listed(new)}. {_advice()}")


def _reads(entry: Entry) -> bool:
    """Whether the entry is the one that learns what is trained; without it no later check would be made."""
    return isinstance(entry, Patch) and entry.target == "_parse_args"


def _error() -> EnvironmentMismatchError:
    blocking = [item for item in _missing.values() if item.blocks]
    return EnvironmentMismatchError(f"{_introduction()} {_listed(blocking)}. {_advice()}")


def _introduction() -> str:
    return f"The installed llamafactory {host_version() or '(version unknown)'} does not fit hound_plugin:"


def _listed(items: list[Missing]) -> str:
    return "; ".join(map(str, items))


def _advice() -> str:
    return f"Run: pip install 'llamafactory=={KNOWN}', or upgrade hound-plugin. `hound doctor` lists every such place."


def host_version() -> str | None:
    """The version of the host: its own word once it is imported, else its metadata; None if it has neither."""
    own: str | None = getattr(sys.modules.get("llamafactory.extras.env"), "VERSION", None)
    if own is not None:
        return own
    try:
        return version("llamafactory")
    except PackageNotFoundError:
        return None


# --- probes


def probe(entry: Entry) -> str | None:
    """What is not as the entry expects, or None. Nothing is changed.

    A host module that was not imported yet is imported.
    """
    for need in entry.needs:
        name, parenthesis, takes = need.partition("(")
        module, _, target = name.partition(":")
        problem = _problem_of(module, target, takes.removesuffix(")") if parenthesis else None)
        if problem is not None:
            return problem
    return _problem_of(entry.module, entry.target, entry.takes) if isinstance(entry, Patch) else None


def _problem_of(module: str, target: str, takes: str | None) -> str | None:
    place = f"`{module}.{target}`"
    try:
        loaded = import_module(module)
    except Exception as error:  # an optional package of the host's may be broken in any way
        return f"`{module}` cannot be imported ({type(error).__name__}: {error})"
    try:
        owner, name = _locate(loaded, target)
        value = getattr(owner, name)
    except AttributeError:
        return f"{place} is not there"
    if takes is None:
        return None
    if not callable(value):
        return f"{place} is not a function"
    expected = [part.strip() for part in takes.split(",") if part.strip()]
    found = _parameters(owner, name)
    if found is None or _fits(found, expected):
        return None
    return f"{place} takes ({', '.join(found)}), expected ({', '.join(expected)})"


def _locate(module: Any, target: str) -> tuple[Any, str]:
    """The object that has ``target`` as an attribute, and the attribute's name."""
    *path, name = target.split(".")
    return functools.reduce(getattr, path, module), name


def _parameters(owner: Any, name: str) -> list[str] | None:
    """Names of a function's parameters without ``self``, with ``*`` and ``**``; None if Python does not know them."""
    static = inspect.getattr_static(owner, name)
    try:
        parameters = list(inspect.signature(_unwrapped(getattr(owner, name))).parameters.values())
    except (TypeError, ValueError):
        return None
    if inspect.isclass(owner) and not isinstance(static, staticmethod | classmethod):
        parameters = parameters[1:]
    stars: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    return [stars.get(parameter.kind, "") + parameter.name for parameter in parameters]


def _unwrapped(function: Any) -> Any:
    """The host's function under ours."""
    return inspect.unwrap(function, stop=lambda f: not getattr(f, _MARK, False))


def _fits(found: list[str], expected: list[str]) -> bool:
    """Whether parameters are the expected ones: leading names in order, ``name=`` anywhere, ``...`` for more."""
    leading = [part for part in expected if part != "..." and not part.endswith("=")]
    named = {part.removesuffix("=") for part in expected if part.endswith("=")}
    ordinary = [name for name in found if not name.startswith("*")]
    takes_any = any(name.startswith("**") for name in found)
    takes_all = any(name.startswith("*") and not name.startswith("**") for name in found)
    if takes_all and ordinary == leading[: len(ordinary)]:
        return True  # another package's wrapper, which passes everything on
    if ordinary[: len(leading)] != leading or not (takes_any or named <= set(ordinary)):
        return False
    return "..." in expected or set(ordinary) <= {*leading, *named}


# --- applying


def _wrap(patch: Patch, module: ModuleType) -> None:
    """Put the patch's body around the host's function, once; a static method or a generator stays one."""
    owner, name = _locate(module, patch.target)
    original = getattr(owner, name)
    if getattr(original, _MARK, False):
        return
    make = _generator if inspect.isgeneratorfunction(original) else _function
    wrapped: Any = functools.wraps(original)(make(patch, original))
    setattr(wrapped, _MARK, True)
    static = isinstance(inspect.getattr_static(owner, name), staticmethod)
    setattr(owner, name, staticmethod(wrapped) if static else wrapped)


def _function(patch: Patch, original: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if patch.ours_only and not settings_state.is_ours():
            return original(*args, **kwargs)
        return _body(patch.body)(original, *args, **kwargs)

    return wrapped


def _generator(patch: Patch, original: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Iterator[Any]:
        if patch.ours_only and not settings_state.is_ours():
            return (yield from original(*args, **kwargs))
        return (yield from _body(patch.body)(original, *args, **kwargs))

    return wrapped


@functools.cache
def _body(path: str) -> Callable[..., Any]:
    """A function of ours, imported at its first call: its module may import host modules that are not ready yet."""
    module, _, name = path.partition(":")
    function: Callable[..., Any] = getattr(import_module(f"hound_plugin.host.{module}"), name)
    return function
