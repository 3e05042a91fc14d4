"""``--engine`` and ``--engine-options`` on the command line; light, as every ``--help`` imports it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hound_plugin.engines.settings import EngineSettings


def add_engine_arguments(parser: argparse.ArgumentParser, *, options: bool) -> None:
    """``--engine``, and ``--engine-options`` for commands without a YAML file with an ``engine:`` block."""
    parser.add_argument("--engine", choices=("local", "ray"), help="where the work runs (default: this process)")
    if options:
        parser.add_argument(
            "--engine-options",
            nargs="+",
            default=[],
            metavar="key=value",
            help="of --engine ray, such as actors=8 gpus=1 address=auto; see docs/scale.md",
        )


def engine_overrides(arguments: argparse.Namespace) -> list[str]:
    """``--engine`` as an override of the block in a YAML file."""
    engine = getattr(arguments, "engine", None)
    return [] if engine is None else [f"engine.kind={engine}"]


def engine_of_options(arguments: argparse.Namespace) -> EngineSettings:
    """The engine that the command line alone describes.

    Raises:
        SettingsError: an unknown key or a bad value, or options without ``--engine ray``.
    """
    from hound_plugin.engines.settings import EngineSettings
    from hound_plugin.errors import SettingsError
    from hound_plugin.validation import apply_overrides, build

    options: Sequence[str] = arguments.engine_options
    if options and arguments.engine != "ray":
        raise SettingsError("--engine-options: expected --engine ray with it; the local engine has no options.")
    values = apply_overrides({"kind": arguments.engine or "local"}, options)
    return build(EngineSettings, values, "--engine-options: ")
