"""Values of a recipe, converted to the types of the host's arguments; the host accepts any value from YAML.

``cutoff_len: "1024"`` fails deep inside, and ``freeze_vision_tower: "false"`` means true. A text that is such a number
or truth value is converted; everything else is refused by name.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import types
import typing
from collections.abc import Iterable
from typing import Any, Literal

from hound_plugin.errors import SettingsError

_PLAIN = (bool, int, float, str, types.NoneType)
_TRUTH = {"true": True, "false": False, "1": True, "0": False}
_EITHER = ("resume_from_checkpoint",)
"""Annotated as text, and a truth value for the trainer too."""
_COMMAS = "comma"
"""In the help of a key whose text is a list, separated by commas."""


def typed_values(classes: Iterable[type], values: dict[str, Any]) -> dict[str, Any]:
    """The values of a recipe, each of its argument's type.

    Args:
        classes: the host's dataclasses.
        values: what the recipe says; keys that are in no class stay as they are.

    Returns:
        A copy.

    Raises:
        SettingsError: lists every value that is of another type, or none of those that its argument allows.
    """
    fields: dict[str, tuple[dataclasses.Field[Any], Any]] = {}
    for kind in classes:
        hints = _hints(kind)
        fields |= {field.name: (field, hints.get(field.name)) for field in dataclasses.fields(kind) if field.init}
    typed, problems = dict(values), []
    for name, value in values.items():
        field, hint = fields.get(name, (None, None))
        if field is None or hint is None or value is field.default or name in _EITHER:
            continue
        try:
            typed[name] = _as(value, _members(hint), str(field.metadata.get("help", "")))
        except ValueError as error:
            problems.append(f"`{name}`: expected {error}, got {'null' if value is None else repr(value)}")
    if problems:
        raise SettingsError(f"{'; '.join(problems)}. Correct the recipe.")
    return typed


def _hints(kind: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(kind)
    except (NameError, TypeError):  # an annotation that only type checkers can read
        return {}


def _members(hint: Any) -> list[Any]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [member for part in typing.get_args(hint) for member in _members(part)]
    return _members(typing.get_args(hint)[0]) if typing.get_origin(hint) is typing.Annotated else [hint]


def _as(value: Any, members: list[Any], advice: str) -> Any:
    """The value as one of the types.

    Raises:
        ValueError: it is none of them; says which were expected.
    """
    choices = [
        choice for member in members if typing.get_origin(member) is Literal for choice in typing.get_args(member)
    ]
    plain = {member for member in members if member in _PLAIN}
    if choices:
        if value not in choices and not (value is None and types.NoneType in plain):
            raise ValueError(f"one of {', '.join(map(str, choices))}")
        return value
    if len(plain) < len(members):  # dictionaries, lists and enumerations are the trainer's own to read
        if isinstance(value, bool) and any(isinstance(m, type) and issubclass(m, enum.Enum) for m in members):
            raise ValueError('text (YAML reads no and yes as false and true: write "no")')
        return value
    if type(value) in plain or (value is None and plain == {bool}):
        return _finite(value)
    if str in plain:
        return _text(value, advice)
    return _truth(value) if bool in plain else _number(value, whole=float not in plain)


def _text(value: Any, advice: str) -> str:
    separated = _COMMAS in advice
    if isinstance(value, list) and separated and value and all(isinstance(item, str) for item in value):
        return ",".join(value)
    raise ValueError("text" + (", or several separated by commas" if separated else ""))


def _truth(value: Any) -> bool:
    text = str(value).strip().lower()
    if text not in _TRUTH:
        raise ValueError("true or false")
    return _TRUTH[text]


def _number(value: Any, whole: bool) -> float:
    expected = "a whole number" if whole else "a number"
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(expected)
    try:
        number = int(value) if whole and isinstance(value, str) else float(value)
    except ValueError:
        raise ValueError(expected) from None
    if not math.isfinite(number) or (whole and number != int(number)):
        raise ValueError(expected)
    return int(number) if whole else number


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number")
    return value
