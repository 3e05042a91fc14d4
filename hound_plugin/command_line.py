"""What several commands share: a YAML file with overrides, and lines for the user; light, for ``--help``."""

from __future__ import annotations

import argparse
import sys

from hound_plugin.engines.arguments import engine_overrides

MAX_COST = "stop before the total cost exceeds this (needs prices)"


def say(text: str) -> None:
    """Print a line at once; a warning goes to standard error."""
    print(text, file=sys.stderr if text.startswith("warning") else sys.stdout, flush=True)


def add_recipe_arguments(parser: argparse.ArgumentParser, recipe: str, example: str, limited: str = "") -> None:
    """``YAML key=value ... --limit N``.

    Args:
        parser: of the command.
        recipe: the YAML file that ships.
        example: an override.
        limited: what ``--limit`` is of, such as ``of each test set``.
    """
    parser.add_argument("recipe", metavar="YAML", help=f"settings; see {recipe}")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=f"override the file, such as {example}")
    parser.add_argument("--limit", type=int, help=f"use only the first LIMIT questions {limited}".rstrip())


def recipe_overrides(arguments: argparse.Namespace) -> list[str]:
    """Everything that overrides the YAML file: ``key=value``, then ``--limit``, ``--max-cost`` and ``--engine``."""
    options = {name: getattr(arguments, name, None) for name in ("limit", "max_cost")}
    given = [f"{name}={value}" for name, value in options.items() if value is not None]
    return [*arguments.overrides, *given, *engine_overrides(arguments)]
