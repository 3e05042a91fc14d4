"""Every command that a message, a help text, a recipe's header, the README or a page of docs names can be run."""

from __future__ import annotations

import argparse
import ast
import configparser
import dataclasses
import functools
import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from hound_plugin import cli
from hound_plugin.errors import SettingsError
from hound_plugin.evaluation import settings as evaluation
from hound_plugin.reward.settings import read_settings
from hound_plugin.settings import HoundSettings

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
RECIPES = sorted((ROOT / "examples").rglob("*.yaml"))
MODULES = sorted((ROOT / "hound_plugin").rglob("*.py"))
HOST_COMMANDS = {"train", "chat", "api", "webchat", "webui", "export", "eval", "env", "version", "help"}
PLACEHOLDERS = {"COMMAND", "STAGE", "..."}
PROGRAMS = ("hound", "llamafactory-cli", "make", "accelerate", "pip", "python")
OF_THE_SYSTEM = {"CUDA_VISIBLE_DEVICES"}
START = re.compile(rf"^[#>\s$]*((?:[A-Z_]+=\S+ )*(?:{'|'.join(PROGRAMS)}) [^=\s].*)$")


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(groups[0].choices) if groups else {}


def parsers(
    parser: argparse.ArgumentParser, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    yield path, parser
    for name, below in subcommands(parser).items():
        yield from parsers(below, (*path, name))


ALL = dict(parsers(cli.build_parser()))


def commands_in(text: str, code: bool) -> Iterator[str]:
    """Commands between backticks, and on lines of their own where the text is code."""
    for span in re.findall(r"`([^`]+)`", text):
        if re.match(rf"(?:{'|'.join(PROGRAMS)}) ", span):
            yield span
    if code:
        for line in text.splitlines():
            match = START.match(line)
            if match:
                yield match[1]


def page_commands(path: Path) -> Iterator[str]:
    """Commands of a Markdown page: backticks, fenced and indented blocks."""
    fences = re.split(r"^```.*$", path.read_text(encoding="utf-8"), flags=re.M)
    for number, part in enumerate(fences):
        block = number % 2 == 1
        yield from commands_in(part if block else re.sub(r"^(?! {4}).*$", "", part, flags=re.M), code=True)
        if not block:
            yield from commands_in(part, code=False)


def recipe_commands(path: Path) -> Iterator[str]:
    comments = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    yield from commands_in(re.sub(r" \\\n#\s*", " ", "\n".join(comments)), code=True)


def module_commands(path: Path) -> Iterator[str]:
    """Commands in the strings of a module; what an f-string fills in stands as ``1``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [str(part.value) if isinstance(part, ast.Constant) else "1" for part in node.values]
            yield from commands_in("".join(parts), code=False)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield from commands_in(node.value, code=False)


def help_commands(parser: argparse.ArgumentParser) -> Iterator[str]:
    for text in (parser.description, parser.epilog):
        yield from commands_in(text or "", code=True)


def problem_of(command: str) -> str:
    """Why a command cannot be run; empty if it can."""
    command = re.split(r" {2,}|\s#|[;|>]| && ", command)[0].rstrip(" \\")
    words = shlex.split(command.replace("$(which llamafactory-cli)", "llamafactory-cli"))
    while "=" in words[0]:
        name = words.pop(0).partition("=")[0]
        if name not in known_variables():
            return f"no such variable: {name}"
    program, *words = words
    if program == "make":
        targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
        names = [word for word in words if "=" not in word]
        return "" if set(names) <= targets else f"no such target: {names}"
    if program == "pip":
        return _problem_of_extras(words)
    missing = [word for word in words if re.match(r"(?:examples|docs|benchmarks)/\S*\.\w+$", word) and "=" not in word]
    missing = [word for word in missing if not (ROOT / word).is_file()]
    if missing:
        return f"no such file: {missing}"
    if program == "accelerate":
        words = words[words.index("llamafactory-cli") + 1 :] if "llamafactory-cli" in words else ["train"]
    if program in ("accelerate", "llamafactory-cli"):
        known = set(words[0].split("|")) <= HOST_COMMANDS or words[0] == "..."
        return _problem_of_keys(words[1:]) if known else f"no such command: {words[0]}"
    return _problem_of_ours(words) if program == "hound" else ""


def _problem_of_extras(words: list[str]) -> str:
    """``pip install '.[extra]'``: is there such an extra?"""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    asked = {extra for word in words for names in re.findall(r"\[(.+)\]", word) for extra in names.split(",")}
    unknown = asked - set(setup["options.extras_require"])
    return f"no such extra: {unknown}" if unknown else ""


def _problem_of_keys(words: list[str]) -> str:
    """``key=value`` of the host's commands: a key of the host's or of ours, with a value that ours takes."""
    values = dict(word.split("=", 1) for word in words if re.match(r"[a-z_.]+=", word))
    ours = {key.removeprefix("hound."): yaml.safe_load(text) for key, text in values.items() if key[:6] == "hound."}
    unknown = {key for key in values if key[:6] != "hound."} - host_keys()
    if unknown:
        return f"no such key: {unknown}"
    try:
        HoundSettings.build(ours, {})
    except SettingsError as error:
        return str(error)
    return ""


@functools.cache
def host_keys() -> set[str]:
    """Every key that a YAML of the host may have."""
    from llamafactory import hparams

    names = ("ModelArguments", "DataArguments", "TrainingArguments", "FinetuningArguments", "GeneratingArguments")
    return {field.name for name in names for field in dataclasses.fields(getattr(hparams, name))}


@functools.cache
def known_variables() -> set[str]:
    """Names in capitals that the host, transformers' loggers or this package mention in their code."""
    spec, loggers = find_spec("llamafactory"), find_spec("transformers.integrations.integration_utils")
    assert spec is not None
    assert loggers is not None
    host = [path for folder in spec.submodule_search_locations or () for path in Path(folder).rglob("*.py")]
    files = [*host, *MODULES, Path(str(loggers.origin))]
    return OF_THE_SYSTEM.union(*(re.findall(r"[\"'`*]([A-Z][A-Z_]+)[\"'`=*]", path.read_text()) for path in files))


def _problem_of_ours(words: list[str]) -> str:
    parser = cli.build_parser()
    for number, word in enumerate(words):
        below = subcommands(parser)
        if not below or word.startswith("-"):
            break
        if word in PLACEHOLDERS:
            return ""
        if word not in below:
            return f"no such command: {word}"
        parser = below[word]
        if number == len(words) - 1:
            return ""  # a command that is named, with no arguments yet
    if PLACEHOLDERS & set(words):
        return ""
    try:
        arguments, overrides = cli.build_parser().parse_known_args(words)
    except SystemExit as stop:
        return "" if stop.code == 0 else "it does not parse"
    if any("=" not in word for word in overrides):
        return f"no such arguments: {overrides}"
    if words[:2] == ["reward", "ref-logps"]:  # with a recipe of the host's
        return _problem_of_keys([*arguments.overrides, *overrides])
    read = {"reward": read_settings, "eval": evaluation.read_settings}.get(words[0])
    if read is not None and getattr(arguments, "recipe", "").startswith("examples/"):
        try:
            read(ROOT / arguments.recipe, [*arguments.overrides, *overrides])
        except SettingsError as error:
            return str(error)
    return ""


def found() -> list[tuple[str, str]]:
    places = [(path, page_commands(path)) for path in PAGES]
    places += [(path, recipe_commands(path)) for path in RECIPES]
    places += [(path, module_commands(path)) for path in MODULES]
    named = [(str(path.relative_to(ROOT)), command) for path, commands in places for command in commands]
    for path, parser in ALL.items():
        named += [(f"hound {' '.join(path)} --help", command) for command in help_commands(parser)]
    return sorted(set(named))


FOUND = found()


@pytest.mark.parametrize(("place", "command"), FOUND, ids=lambda value: value[:60])
def test_a_named_command_can_be_run(place: str, command: str) -> None:
    assert not problem_of(command), f"{place}: {command}"


def test_commands_are_found_everywhere() -> None:
    places = {place for place, _ in FOUND}
    assert {"README.md", "docs/reward.md", "examples/yaml/hound_reward.yaml", "hound reward run --help"} <= places
    assert any(place.startswith("hound_plugin/host") for place in places)
    assert len(FOUND) > 100


@pytest.mark.parametrize(
    "command",
    [
        "hound captoin clips/ --out x.jsonl",
        "hound corpus download --onyl dpo_17k",
        "hound reward report examples/yaml/gone.yaml",
        "llamafactory-cli trian examples/yaml/hound_dpo.yaml",
        "llamafactory-cli train examples/yaml/hound_dpoo.yaml",
        "make demos",
        "hound convert SRC",
        "hound reward run examples/yaml/hound_reward.yaml judge.kk=3",
        "hound eval run examples/yaml/hound_eval.yaml sute=official",
        "hound reward run examples/yaml/hound_reward.yaml --limti 3",
        "hound reward ref-logps examples/yaml/hound_dpo.yaml hound.reference_log_prob=r.jsonl",
        "llamafactory-cli train examples/yaml/hound_dpo.yaml lora_rnak=3",
        "llamafactory-cli train examples/yaml/hound_dpo.yaml hound.num_frames=no",
        "NPROC_PER_NODES=2 llamafactory-cli train examples/yaml/hound_dpo.yaml",
        "accelerate launch --config_file examples/accelerate/fsdp.yaml $(which llamafactory-cli) train x.yaml",
        "pip install -e '.[flush]'",
        "python docs/write_setting.py",
    ],
)
def test_a_wrong_command_is_seen(command: str) -> None:
    assert problem_of(command)


@pytest.mark.parametrize("path", ALL, ids=lambda path: " ".join(path) or "hound")
def test_every_command_has_help(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*path, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: {' '.join(['hound', *path])} ")
    if path != ("doctor",):
        assert "examples:" in text
    actions = [action for action in ALL[path]._actions if not isinstance(action, argparse._SubParsersAction)]
    undescribed = [action.dest for action in actions if not action.help]
    assert not undescribed
