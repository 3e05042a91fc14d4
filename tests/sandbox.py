"""Child processes in which the plugin is installed by metadata alone, with ``register_for`` replaced by a recorder."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
import textwrap
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]

# Stands in for hound_plugin.host.register in every Python process under the fixture's environment.
RECORDER = """
import os, sys, types

def register_for(name):
    with open(os.environ["RECORD"], "a") as file:
        file.write(f"{os.getpid()} {name}\\n")
    problem = os.environ.get("RECORD_RAISES")
    if problem == "mismatch":
        from hound_plugin.errors import EnvironmentMismatchError
        raise EnvironmentMismatchError("llamafactory 0.0.1 is not supported: install llamafactory 0.9.5")
    if problem:
        raise RuntimeError("a fault in registration")

module = types.ModuleType("hound_plugin.host.register")
module.register_for = register_for
sys.modules["hound_plugin.host.register"] = module
"""


class Sandbox:
    """Runs Python code or programs in children and tells what was registered there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record = folder / "record.txt"
        self.stderr = ""

    def environment(self, **extra: str) -> dict[str, str]:
        environment = {
            key: value
            for key, value in os.environ.items()
            if key not in {"HOUND_PLUGIN_DISABLE", "TORCH_DEVICE_BACKEND_AUTOLOAD", "LOCAL_RANK"}
        }
        environment["PYTHONPATH"] = os.pathsep.join([str(self.folder / "path"), str(REPO)])
        environment["RECORD"] = str(self.record)
        return environment | extra

    def run(self, command: list[str], check: bool = True, **extra: str) -> str:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment(**extra),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
        )
        self.stderr = done.stderr
        if check:
            assert done.returncode == 0, done.stderr
        return done.stdout

    def python(self, code: str, *arguments: str, check: bool = True, **extra: str) -> str:
        return self.run([sys.executable, "-P", "-c", textwrap.dedent(code), *arguments], check, **extra)

    def registered(self) -> list[str]:
        """Short names of the modules that were registered, in order."""
        if not self.record.exists():
            return []
        return [line.split()[1].removeprefix("llamafactory.") for line in self.record.read_text().splitlines()]

    def processes(self) -> int:
        return len({line.split()[0] for line in self.record.read_text().splitlines()})


def write_metadata(folder: Path) -> None:
    """The dist-info folder that an installation would write, made from setup.cfg."""
    settings = configparser.ConfigParser()
    settings.read(REPO / "setup.cfg")
    info = folder / "hound_plugin-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hound-plugin\nVersion: 0.1.0\n")
    points = settings["options.entry_points"]["torch.backends"].strip()
    (info / "entry_points.txt").write_text(f"[torch.backends]\n{points}\n")
