"""Does `make demo` reach its accuracies with any seed, and on one or two threads?

python benchmarks/demo_seeds.py [--seeds 0 1 2] [--threads 1 2] [--folder saves/demo_seeds]

Runs the whole job (build, SFT, DPO, evaluation) once for each pair of seed and threads, each in its own folder, and
prints a row of the table as each one ends. A run that is there already is read, not repeated; its CPU seconds are those
that were written down when it ran.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

COLUMNS = ("seed", "threads", "all", "motion", "order", "count", "pairs before", "after SFT", "after DPO", "CPU s", "s")


def run(seed: int, threads: int, folder: Path) -> dict[str, Any]:
    """The report of one run of the whole job, with ``cpu_seconds`` and ``wall_seconds`` of its processes."""
    measured = folder / "measured.json"
    if measured.is_file():
        report: dict[str, Any] = json.loads(measured.read_text())
        return report
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "hound_plugin.cli", "demo", "--run", "--force"]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with (folder / "job.log").open("w") as log:
        subprocess.run(
            [*command, "--folder", str(folder / "demo"), "--seed", str(seed)],
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            stdout=log,
            stderr=subprocess.STDOUT,
            check=True,
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    report = json.loads((folder / "demo" / "runs" / "report.json").read_text())
    report["cpu_seconds"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    report["wall_seconds"] = time.monotonic() - started
    measured.write_text(json.dumps(report))
    return report


def row(seed: int, threads: int, report: dict[str, Any]) -> list[str]:
    """The cells of one run, in the order of ``COLUMNS``."""
    evaluations = report["evaluations"]
    match = evaluations["after DPO"]["exact_match"]
    accuracies = [match[kind]["accuracy"] for kind in ("all", "motion", "order", "count")]
    pairs = [evaluations[name]["preference_accuracy"] for name in ("untrained", "after SFT", "after DPO")]
    seconds = [f"{report['cpu_seconds']:.0f}", f"{report['wall_seconds']:.0f}"]
    return [str(seed), str(threads), *(f"{100 * share:.1f}%" for share in (*accuracies, *pairs)), *seconds]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--folder", type=Path, default=Path("saves/demo_seeds"))
    arguments = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; exact match after DPO\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    for threads in arguments.threads:
        for seed in arguments.seeds:
            report = run(seed, threads, arguments.folder / f"seed{seed}-threads{threads}")
            print(f"| {' | '.join(row(seed, threads, report))} |", flush=True)


if __name__ == "__main__":
    main()
