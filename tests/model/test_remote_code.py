"""No code of a checkpoint runs: transformers asks on the terminal where it is not told, and a ``y`` would run it."""

from __future__ import annotations

import ast
import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hound_plugin
from hound_plugin.cli import main
from hound_plugin.judge.local import LocalJudge
from hound_plugin.model.modeling import LlavaHoundForConditionalGeneration
from hound_plugin.processing.processor import LlavaHoundProcessor
from tests.goldens import SFT
from tests.llm.conftest import PROTOCOL

PACKAGE = Path(hound_plugin.__file__).parent
HOSTILE = "from pathlib import Path\nPath({mark!r}).touch()\nraise RuntimeError('it ran')\n"


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that code of a checkpoint would write; whoever is asked says yes."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    return tmp_path / "it-ran"


def with_code(folder: Path, mark: Path, change: Callable[[dict[str, dict[str, Any]]], None]) -> Path:
    """A copy of the recorded checkpoint whose files name a module of its own."""
    shutil.copytree(SFT, folder)
    for place in ("own.py", "custom_generate/generate.py"):
        (folder / place).parent.mkdir(exist_ok=True)
        (folder / place).write_text(HOSTILE.format(mark=str(mark)))
    files = {name: json.loads((folder / name).read_text()) for name in ("config.json", "tokenizer_config.json")}
    change(files)
    for name, values in files.items():
        (folder / name).write_text(json.dumps(values))
    return folder


def own_tokenizer(files: dict[str, dict[str, Any]]) -> None:
    files["tokenizer_config.json"] |= {
        "tokenizer_class": "OwnTokenizer",
        "auto_map": {"AutoTokenizer": ["own.OwnTokenizer", "own.OwnTokenizer"]},
    }


def own_everything(files: dict[str, dict[str, Any]]) -> None:
    files["config.json"]["auto_map"] = {
        name: f"own.{name}" for name in ("AutoConfig", "AutoModel", "AutoModelForCausalLM")
    }
    own_tokenizer(files)


def other_model(files: dict[str, dict[str, Any]]) -> None:
    own_everything(files)
    files["config.json"]["model_type"] = "own"


KINDS: dict[str, Callable[[dict[str, dict[str, Any]]], None]] = {
    "generation": lambda files: None,
    "tokenizer": own_tokenizer,
    "everything": own_everything,
    "a model of its own": other_model,
}
ENTRIES: dict[str, Callable[[str, Path], Any]] = {
    "load": lambda name, _: hound_plugin.load(name, device="cpu"),
    "processor": lambda name, _: LlavaHoundProcessor.from_pretrained(name),
    "model": lambda name, _: LlavaHoundForConditionalGeneration.from_pretrained(name),
    "convert": lambda name, folder: main(["convert", name, str(folder / "converted")]),
    "assemble": lambda name, folder: main(["assemble", name, str(folder / "assembled")]),
    "local judge": lambda name, _: LocalJudge(name, PROTOCOL, {"max_tokens": 4})._load(),
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("kind", KINDS)
def test_code_of_a_checkpoint_does_not_run(kind: str, entry: str, tmp_path: Path, mark: Path) -> None:
    folder = with_code(tmp_path / "checkpoint", mark, KINDS[kind])
    with contextlib.suppress(Exception):  # some refuse it, some need nothing of the code
        ENTRIES[entry](str(folder), tmp_path)
    assert not mark.exists()


def test_every_automatic_class_is_told() -> None:
    """``Auto*.from_pretrained``, of which the others are given files of known classes."""
    untold = []
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            owner = node.func.value
            is_automatic = isinstance(owner, ast.Name) and owner.id.startswith("Auto")
            if node.func.attr == "from_pretrained" and is_automatic:
                told = {item.arg: ast.unparse(item.value) for item in node.keywords}
                if told.get("trust_remote_code") != "False":
                    untold.append(f"{file.relative_to(PACKAGE)}:{node.lineno}")
    assert not untold
