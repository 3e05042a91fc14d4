"""What the host's argument parser read in this process: the ``hound:`` block, template, stage and run.

The host passes its arguments on as objects of its own, which have no room for ours. The parser's patch writes here;
data loading, model loading and the doctor read it. Each process of a training parses its own arguments.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import yaml

from hound_plugin.errors import SettingsError
from hound_plugin.host import run_identity
from hound_plugin.host.models import TEMPLATE
from hound_plugin.settings import HoundSettings
from hound_plugin.validation import read_yaml

_settings = HoundSettings()
_template: str | None = None
_stage: str | None = None
_system: str | None = None
_run: dict[str, Any] = {}
_media: np.ndarray | None = None


def _value(name: str, text: str) -> Any:
    """The value of an override on the command line.

    Raises:
        SettingsError: it is not valid YAML.
    """
    try:
        return read_yaml(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"{name}={text!r:.80}: expected a value in YAML: {error}") from error


def settings() -> HoundSettings:
    """The settings of the last ``hound:`` block that the host parsed in this process."""
    return _settings


def template() -> str | None:
    """The ``template`` of the last arguments that the host parsed; None before."""
    return _template


def is_ours() -> bool:
    """Whether LLaVA-Hound is trained or served in this process: the last parsed arguments name its template."""
    return _template == TEMPLATE


def take_settings(args: dict[str, Any] | list[str]) -> dict[str, Any] | list[str]:
    """Store our settings; return the host's arguments without them.

    Raises:
        SettingsError: an unknown key or a bad value in the block or in a ``HOUND_<KEY>`` variable.
    """
    global _settings
    rest, block = split_arguments(args)
    _settings = HoundSettings.build(block)
    return rest


def stage() -> str | None:
    """The ``stage`` of the last training arguments that the host parsed; None before."""
    return _stage


def default_system() -> str | None:
    """The ``default_system`` of the last arguments that the host parsed; None where none is given."""
    return _system


def run() -> dict[str, Any]:
    """What the checkpoints of the last parsed training note; see :mod:`hound_plugin.host.run_identity`."""
    return dict(_run)


def record_rows(rows: dict[str, str]) -> None:
    """Store the digests of the rows that the training reads, by data set."""
    _run[run_identity.ROWS] = rows


def record_models(models: dict[str, str], files: dict[str, dict[str, str]]) -> None:
    """Store the digests of the weights that the training begins with, and of the files next to them, by folder."""
    _run[run_identity.MODELS], _run[run_identity.MODEL_FILES] = models, files


def media() -> np.ndarray | None:
    """Stamps of the media that the training reads, as :mod:`hound_plugin.host.media_stamps` has them; None: unknown."""
    return _media


def record_media(stamps: np.ndarray) -> None:
    """Store the stamps of the media that the training reads."""
    global _media
    _media = stamps


def record_arguments(parsed: Iterable[Any]) -> None:
    """Store what the host parsed as ``template``, ``default_system`` and ``stage``, and which run it is."""
    global _template, _stage, _system, _run, _media
    _media = None
    parts = list(parsed)
    _run = run_identity.settings_of(parts, _settings)
    _template = next((part.template for part in parts if hasattr(part, "template")), None)
    _system = next((part.default_system for part in parts if hasattr(part, "default_system")), None)
    _stage = next((part.stage for part in parts if hasattr(part, "stage")), None)


def split_arguments(args: dict[str, Any] | list[str]) -> tuple[dict[str, Any] | list[str], dict[str, Any]]:
    """Separate our settings from the host's arguments.

    Args:
        args: a dict with a ``hound`` block (or flat ``hound.key`` entries, as the web UI's extra arguments may hold),
            or a command line with ``hound.key=value``, ``--hound.key value`` or ``--hound '{"key": value}'`` (which is
            how the web UI previews such a block).

    Returns:
        The host's arguments without ours (a copy), and the block.
    """
    if isinstance(args, dict):
        rest = {key: value for key, value in args.items() if key != "hound" and not key.startswith("hound.")}
        block = args.get("hound", {})
        flat = {key.removeprefix("hound."): value for key, value in args.items() if key.startswith("hound.")}
        return rest, ({**block, **flat} if isinstance(block, dict) else block) or {}
    rest_list: list[str] = []
    block = {}
    items = iter(args)
    for item in items:
        name, equals, value = item.lstrip("-").partition("=")
        if name == "hound" or name.startswith("hound."):
            given = _value(name, value if equals else next(items, ""))
            if name == "hound" and not isinstance(given, dict):
                return rest_list, given  # refused by name in HoundSettings.build
            block.update(given if name == "hound" else {name.removeprefix("hound."): given})
        else:
            rest_list.append(item)
    return rest_list, block
