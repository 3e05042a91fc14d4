"""Exit codes and messages of ``hound``."""

from __future__ import annotations

import argparse

import pytest

from hound_plugin import __version__, cli
from hound_plugin.errors import DataError, EnvironmentMismatchError, HoundError, SettingsError


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"hound-plugin {__version__}\n"


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    assert "examples:" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["no-such-command"], ["doctor", "--no-such-option"]])
def test_bad_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    assert "usage: hound" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SettingsError("num_frames must be \n\n  1  at least"), 2),
        (DataError("line 3"), 2),
        (EnvironmentMismatchError("torch is missing"), 1),
    ],
)
def test_our_errors_are_short(
    error: HoundError, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: argparse.Namespace) -> int:
        raise error

    monkeypatch.setattr(cli, "_doctor", fail)
    assert cli.main(["doctor"]) == code
    lines = str(error).replace(" \n\n", "\n")  # columns of a table stay; empty lines and spaces at ends go
    assert capsys.readouterr().err == f"hound: {lines}\n"


@pytest.mark.parametrize(
    "order",
    [
        ["recipe.yaml", "folder=x", "--limit", "1"],
        ["recipe.yaml", "--limit", "1", "folder=x"],
        ["--limit", "1", "recipe.yaml", "folder=x"],
        ["recipe.yaml", "--limit=1", "folder=x", "judge.k=3"],
    ],
)
def test_settings_stand_in_any_order(order: list[str]) -> None:
    arguments = cli._parse(["reward", "run", *order])
    assert (arguments.recipe, arguments.limit, arguments.overrides[0]) == ("recipe.yaml", 1, "folder=x")


def test_what_is_no_setting_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["reward", "run", "recipe.yaml", "--limit", "1", "folder"]) == 2
    assert "unrecognized arguments: folder" in capsys.readouterr().err
    assert cli.main(["corpus", "list", "a=b"]) == 2
