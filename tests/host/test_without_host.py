"""In an environment without LLaMA-Factory (as vLLM's) the package works for transformers alone, and is silent."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.goldens import HUB, SFT
from tests.host.hosting import REPO

Run = Callable[..., subprocess.CompletedProcess[str]]
NO_HOST = """
import importlib.metadata as metadata, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "llamafactory":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
real = metadata.Distribution.from_name.__func__
def from_name(cls, name):
    if name == "llamafactory":
        raise metadata.PackageNotFoundError(name)
    return real(cls, name)
metadata.Distribution.from_name = classmethod(from_name)
"""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(NO_HOST)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PYTHONPATH": os.pathsep.join([str(tmp_path / "path"), str(REPO)]),
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_CACHE": str(HUB),
            "TRANSFORMERS_VERBOSITY": "error",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "PATH": "",
            "HOME": str(tmp_path),
        }
        return subprocess.run(
            [sys.executable, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )

    return run


def test_the_auto_classes_and_a_model_work_in_silence(run: Run) -> None:
    """`import torch` activates the plugin; the plugin itself is never imported by name before the classes are used."""
    done = run(
        "-c",
        f"""
import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
kinds = [type(auto.from_pretrained({str(SFT)!r})).__name__ for auto in (AutoConfig, AutoProcessor,
         AutoModelForImageTextToText)]
from hound_plugin.host import autoload
import deepspeed.runtime.zero.partition_parameters
print(kinds, autoload.state()["active"], autoload.state()["error"])
import hound_plugin
print(hound_plugin.load({str(SFT)!r}, device="cpu").chat("Hello", max_new_tokens=2) is not None)
""",
    )
    kinds = ["LlavaHoundConfig", "LlavaHoundProcessor", "LlavaHoundForConditionalGeneration"]
    assert done.stdout.splitlines()[-2:] == [f"{kinds} True None", "True"], done.stderr[-3000:]
    spoken = [line for line in done.stderr.splitlines() if "hound_plugin" in line or "llamafactory" in line.lower()]
    assert spoken == []


@pytest.mark.parametrize(
    ("command", "code", "text"),
    [
        (["--help"], 0, "exit codes"),
        (["corpus", "list"], 0, "dpo_17k"),
        (
            ["demo", "--run"],
            1,
            "`hound demo --run` needs LLaMA-Factory, which is not installed. Run: pip",
        ),
    ],
)
def test_commands(run: Run, command: list[str], code: int, text: str) -> None:
    done = run("-m", "hound_plugin.cli", *command)
    assert done.returncode == code, done.stderr
    assert text in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    if code:
        assert len(done.stderr.splitlines()) == 1
