"""What activation costs at ``import torch``: the time around the entry point, in fresh processes.

python benchmarks/activation.py [--repeats 15]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys

# torch is imported first, because at the real place all that it imports is there already.
ACTIVATE = """
import torch, time
from importlib.metadata import EntryPoint
point = EntryPoint("hound_plugin", "hound_plugin.host.autoload:activate", "torch.backends")
start = time.perf_counter()
point.load()()
print((time.perf_counter() - start) * 1000)
"""
LOOKUP = """
import sys, time
from hound_plugin.host import autoload
autoload.activate()
finder = sys.meta_path[0]
start = time.perf_counter()
for _ in range(100_000):
    finder.find_spec("some.other.module", None)
print((time.perf_counter() - start) * 10)
"""


def measure(code: str, repeats: int) -> list[float]:
    """Run ``code`` in ``repeats`` fresh processes; each prints one number."""
    numbers = []
    environment = os.environ | {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    for _ in range(repeats):
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        numbers.append(float(done.stdout))
    return numbers


def main() -> None:
    """Print one row for each measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    print(f"{platform.platform()}, Python {platform.python_version()}, {platform.processor() or platform.machine()}")
    print("| what | unit | median | max |\n|---|---|---|---|")
    for name, unit, code in (
        ("load and call the entry point", "ms", ACTIVATE),
        ("finder, per import of any other module", "us", LOOKUP),
    ):
        numbers = measure(code, repeats)
        print(f"| {name} | {unit} | {statistics.median(numbers):.2f} | {max(numbers):.2f} |")


if __name__ == "__main__":
    main()
