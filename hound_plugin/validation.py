"""Settings as pydantic models: strict, frozen, with errors that say what to do.

A block of settings derives from :class:`Settings`. All its bad values raise one
:class:`~hound_plugin.errors.SettingsError` that names each key, what it accepts and what it got. What a key
accepts (:func:`accepts`) is read from its type, so that messages and ``docs/settings.md`` cannot disagree.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined

from hound_plugin.errors import SettingsError

_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
_OFF = {"off", "none", "null", ""}


def _null_if_off(value: Any) -> Any:
    return None if value is False or (isinstance(value, str) and value.lower() in _OFF) else value


def _word_of_switch(value: Any) -> Any:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


def _number_of_text(value: Any) -> Any:
    """``"16"`` as 16 and 16.0 as 16; anything else unchanged, to be refused by its type."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return value
    return int(value) if isinstance(value, float) and value.is_integer() else value


OFF = BeforeValidator(_null_if_off)
"""``off``, ``none``, ``null``, an empty text and YAML's false mean null."""
SWITCH = BeforeValidator(_word_of_switch)
"""Restores ``on`` and ``off``, which YAML 1.1 reads as true and false."""
NUMBER = BeforeValidator(_number_of_text)
"""Accepts numbers as text, as in environment variables and web forms."""


class Settings(BaseModel):
    """Base of every block of settings: values are strict, unknown keys are refused.

    Raises:
        SettingsError: all unknown keys, missing keys and bad values at once, one per line.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            problems = error.errors(include_url=False)
            lines = [line for problem in problems for line in _lines(type(self), problem)]
            raise SettingsError("\n".join(dict.fromkeys(lines)), _key(problems[0])) from None

    def changed(self, **changes: Any) -> Self:
        """A checked copy with other values; blocks as mappings or models."""
        return type(self)(**{**dict(self), **changes})

    @model_validator(mode="before")
    @classmethod
    def _empty_block(cls, values: Any) -> Any:
        """A block whose lines are all commented out is null in YAML: its defaults."""
        return {} if values is None else values


Model = TypeVar("Model", bound=Settings)


def build(model: type[Model], values: Any, where: str = "") -> Model:
    """``values`` as a ``model``.

    Args:
        model: the block's class.
        values: a mapping, as from YAML or JSON.
        where: prefix of each key in messages, such as ``hound.``.

    Raises:
        SettingsError: as :class:`Settings`; or ``values`` is not a mapping.
    """
    if not isinstance(values, Mapping):
        keys = ", ".join(keys_of(model))
        name = where.rstrip(".: ") or "settings"
        raise SettingsError(f"{name}: expected a block of `key: value` lines ({keys}); got {values!r}.")
    try:
        return model(**{str(key): value for key, value in values.items()})
    except SettingsError as error:
        key = None if error.key is None else where + error.key
        raise SettingsError("\n".join(where + line for line in str(error).splitlines()), key) from None


class _StrictLoader(yaml.SafeLoader):
    """Refuses what YAML reads otherwise than it looks: of two equal keys the last one, ``010`` as 8, ``1:30`` as 90."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[tuple[str, Any]] = set()
        for key, _ in node.value:
            name = key.tag, key.value if isinstance(key, yaml.ScalarNode) else id(key)
            if name in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} appears twice in one block; remove one of them", key.start_mark
                )
            seen.add(name)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        """An integer or a float, as they are written."""
        text = node.value
        is_octal = text.lstrip("+-").startswith("0") and text.lstrip("+-0_").isdigit() and "." not in text
        if is_octal or ":" in text:
            raise yaml.constructor.ConstructorError(
                None,
                None,
                f"{text!r} is another number in YAML (octal, or to the base 60); write it out, or in quotes as text",
                node.start_mark,
            )
        is_float = node.tag.endswith(":float")
        return self.construct_yaml_float(node) if is_float else self.construct_yaml_int(node)


for _tag in ("int", "float"):
    _StrictLoader.add_constructor(f"tag:yaml.org,2002:{_tag}", _StrictLoader.construct_number)


def read_yaml(text: str) -> Any:
    """The value of a text in YAML.

    Raises:
        yaml.YAMLError: it is not valid, has a key twice in one block, or a number that is not what it looks like.
    """
    return yaml.load(text, _StrictLoader)  # which derives from the safe one


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The values of a YAML file, not checked yet.

    Args:
        path: the file.
        overrides: ``key=value`` or ``block.key=value``, values in YAML.

    Raises:
        SettingsError: no such file, not valid YAML, or an override that is not ``key=value``.
    """
    try:
        values = read_yaml(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: expected a YAML file: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: expected `key: value` lines; got {type(values).__name__}.")
    return apply_overrides(values, overrides)


def apply_overrides(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """``values``, changed by ``key=value`` or ``block.key=value`` with values in YAML.

    Raises:
        SettingsError: an override that is not ``key=value``, or goes into what is not a block.
    """
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals:
            raise SettingsError(f"{override!r}: expected key=value, such as judge.k=3.")
        block = values
        *above, last = name.split(".")
        for part in above:
            block = block.setdefault(part, {})
            if not isinstance(block, dict):
                raise SettingsError(f"{name}: {part} is not a block.")
        try:
            block[last] = read_yaml(text)
        except yaml.YAMLError as error:
            raise SettingsError(f"{override!r}: expected a value in YAML: {error}") from error
    return values


def keys_of(model: type[Settings]) -> dict[str, FieldInfo]:
    """A block's fields by their keys in a file."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def accepts(field: FieldInfo) -> str:
    """What a key accepts, in words: ``a whole number of at least 1``, ``one of error, skip``."""
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    if "accepts" in extra:
        return str(extra["accepts"])
    parts = _alternatives(field.annotation)
    texts = [_in_words(part, field, str(extra.get("unit", ""))) for part in parts if part is not type(None)]
    if type(None) in parts:
        texts.append("off" if OFF in field.metadata else "null")
    return " or ".join(texts)


def documented(model: type[Settings], where: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key of a model and of its blocks, such as ``judge.k``, in the order of their definition."""
    for name, field in keys_of(model).items():
        block = field.annotation
        if isinstance(block, type) and issubclass(block, Settings):
            yield from documented(block, f"{where}{name}.")
        else:
            yield where + name, field


def default_in_words(field: FieldInfo) -> str:
    """A key's default in YAML; empty if the key is required."""
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return ""
    if value is None:
        return "off" if OFF in field.metadata else "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return str(list(value))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {item}" for key, item in value.items()) + "}"
    return str(value) or '""'


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    union = isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union
    parts = typing.get_args(annotation) if union else (annotation,)
    return tuple(typing.get_args(part)[0] if typing.get_origin(part) is typing.Annotated else part for part in parts)


def _in_words(kind: Any, field: FieldInfo, unit: str) -> str:
    if typing.get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, typing.get_args(kind)))}"
    if kind in (int, float):
        return _NAMES[kind] + (f" of {unit}" if unit else "") + _range(field)
    return _NAMES.get(kind, "a list" if typing.get_origin(kind) in (list, tuple) else "a block of `key: value` lines")


def _range(field: FieldInfo) -> str:
    limits = {name: getattr(item, name) for item in field.metadata for name in ("ge", "le") if hasattr(item, name)}
    words = {"ge": "at least", "le": "at most"}
    text = " and ".join(f"{words[name]} {value:,}".replace(",", "_") for name, value in limits.items())
    return f" of {text}" if text else ""


def _key(problem: ErrorDetails) -> str | None:
    """The name of the setting that one of pydantic's problems is about."""
    path = [str(part) for part in problem["loc"] if part != "[key]"]
    inner = problem.get("ctx", {}).get("error")
    if isinstance(inner, SettingsError) and inner.key is not None:
        path.append(inner.key)
    return ".".join(path) or None


def _lines(model: type[Settings], problem: ErrorDetails) -> list[str]:
    """One of pydantic's problems in our words; several lines if they come from an inner block."""
    path = [str(part) for part in problem["loc"] if part != "[key]"]
    key, field = ".".join(path), keys_of(model).get(path[0]) if path else None
    if problem["type"] == "extra_forbidden" and len(path) == 1:
        return [_unknown(model, key)]
    if problem["type"] == "missing" and field is not None:
        return [f"{key}: must be given: {accepts(field)}."]
    if problem["type"] in ("value_error", "assertion_error"):
        error = problem["ctx"]["error"]
        if isinstance(error, SettingsError):
            return [f"{key}.{line}" if key else line for line in str(error).splitlines()]
        return [f"{key}: {error}" if key else str(error)]
    if field is None:
        return [f"{key}: {problem['msg']}; got {problem['input']!r:.200}."]
    return [f"{key}: expected {accepts(field)}; got {problem['input']!r:.200}."]


def _unknown(model: type[Settings], name: str) -> str:
    known = list(keys_of(model))
    if name in ("api_key", "key") and "api_key_env" in known:
        return f"{name}: keys are read from the environment only; name it in api_key_env."
    name = name[:80]
    close = get_close_matches(name, known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{name}: unknown key.{hint} Known keys: {', '.join(known)}."
