"""What is built can be installed, is complete, and activates itself; nothing here needs a network."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
BUILT_AND_PRIVATE = (
    "*.egg-info", ".git", ".venv*", "__pycache__", "build", "dist", ".*_cache", "saves", "demo_run", "node_modules",
)  # fmt: skip

ASK_STATE = """
import json, torch
from hound_plugin.host import autoload
print(json.dumps({"file": autoload.__file__, **autoload.state()}))
"""


def _run(command: list[str], cwd: Path, **extra: str) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "HOUND_PLUGIN_DISABLE")} | extra
    done = subprocess.run(
        command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _ignore(folder: str, names: list[str]) -> set[str]:
    ignored = set(shutil.ignore_patterns(*BUILT_AND_PRIVATE)(folder, names))
    if Path(folder) == REPO:
        ignored |= {name for name in names if name in ("demo", "shared", "llamaboard_cache", "llamaboard_config")}
    return ignored


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, so that building leaves nothing in the real one."""
    folder = tmp_path_factory.mktemp("source") / "checkout"
    shutil.copytree(REPO, folder, ignore=_ignore)
    return folder


@pytest.fixture(scope="module")
def sdist(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sdist")
    code = f"from setuptools import build_meta; print('NAME ' + build_meta.build_sdist({str(out)!r}))"
    name = _run([sys.executable, "-c", code], source).rpartition("NAME ")[2].strip()
    return out / name


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the source distribution, which shows that that one is complete."""
    out = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    _run([*pip, "--wheel-dir", str(out), str(sdist)], out)
    (file,) = out.glob("*.whl")
    return file


def _package_files() -> set[str]:
    files = (path.relative_to(REPO) for path in (REPO / "hound_plugin").rglob("*") if path.is_file())
    return {str(path) for path in files if "__pycache__" not in path.parts and not path.name.startswith(".")}


def test_the_wheel_is_complete(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        points = next(name for name in names if name.endswith("entry_points.txt"))
        text = archive.read(points).decode()
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
    assert _package_files() - names == set(), "list the suffix under options.package_data, or add an __init__.py"
    assert "hound_plugin/py.typed" in names
    assert "[torch.backends]\nhound_plugin = hound_plugin.host.autoload:activate" in text
    assert "hound = hound_plugin.cli:main" in text
    assert any("LICENSE" in name for name in names)
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]
    assert "Requires-Dist: llamafactory" in metadata
    assert "License: Apache-2.0" in metadata or "License-Expression: Apache-2.0" in metadata


def test_the_source_distribution_is_complete(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert _package_files() - names == set()
    assert {"LICENSE", "CHANGELOG.md", "Makefile", "setup.cfg", "pyproject.toml", "tests/test_packaging.py"} <= names
    assert not [name for name in names if "__pycache__" in name]


def test_installed_into_a_target_folder(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet", "--target", str(target)]
    _run([*pip, str(wheel)], tmp_path)
    state = json.loads(_run([sys.executable, "-P", "-c", ASK_STATE], tmp_path, PYTHONPATH=str(target)))
    assert Path(state["file"]).is_relative_to(target)
    assert state["active"]
    version = _run([sys.executable, "-P", "-m", "hound_plugin.cli", "--version"], tmp_path, PYTHONPATH=str(target))
    assert version.startswith("hound-plugin ")


def test_installed_as_editable(source: Path, tmp_path: Path) -> None:
    """In a small environment that sees the packages of this one by a .pth file."""
    _run([sys.executable, "-m", "venv", "--without-pip", "light"], tmp_path)
    python = tmp_path / "light" / "bin" / "python"
    here = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = tmp_path / "light" / "lib" / here / "site-packages"
    (packages / "other.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-index", "--quiet"]
    _run([*pip, "--no-deps", "--no-build-isolation", "--ignore-installed", "--editable", str(source)], tmp_path)
    state = json.loads(_run([str(python), "-P", "-c", ASK_STATE], tmp_path))
    assert Path(state["file"]).is_relative_to(source)
    assert state["active"]
    assert "COMMAND" in _run([str(tmp_path / "light" / "bin" / "hound"), "--help"], tmp_path)


def test_versions_agree() -> None:
    import configparser

    import hound_plugin

    settings = configparser.ConfigParser()
    settings.read(REPO / "setup.cfg")
    assert settings["metadata"]["version"] == hound_plugin.__version__


def test_a_clear_word_for_an_old_python(tmp_path: Path) -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not installed")
    for name in ("Makefile", "setup.cfg", "pyproject.toml"):
        shutil.copy(REPO / name, tmp_path)
    old = tmp_path / "oldpython"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && { echo Python 3.9.2; exit 0; }\nexit 1\n')
    old.chmod(0o755)
    for interpreter, word in ((str(old), "needs Python 3.11 or 3.12"), ("no-such-python", "was not found")):
        done = subprocess.run(
            [make, "demo", f"PYTHON={interpreter}"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode != 0
        assert word in done.stderr
        assert not (tmp_path / ".venv").exists()


def test_what_vllm_does_not_bring_is_documented_as_it_is_tested() -> None:
    from tests.vllm.install import BESIDE

    text = (REPO / "docs" / "serving.md").read_text(encoding="utf-8")
    block = text.partition("## Serving with vLLM")[2].partition("```bash\n")[2].partition("```")[0]
    commands = [shlex.split(line) for line in block.splitlines() if line.startswith("pip install ")]
    assert commands == [
        ["pip", "install", "vllm"],
        ["pip", "install", "--no-deps", "hound-plugin"],
        ["pip", "install", *BESIDE],
    ]
    requirements = (REPO / "setup.cfg").read_text(encoding="utf-8").partition("install_requires =")[2]
    named = set(re.findall(r"^    ([\w-]+)", requirements.partition("\n[")[0], flags=re.M))
    assert {re.match(r"[\w-]+", item)[0] for item in BESIDE} <= named  # type: ignore[index]
