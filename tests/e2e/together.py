"""Commands of several tests in one process of the host, and what each of them printed and wrote."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.host.hosting import REPO, THREADS, environment, history, write_yaml

SEVERAL = Path(__file__).with_name("several.py")


@dataclass(frozen=True)
class Outcome:
    """What became of one training: where it wrote, what it printed, and whether it ended with an error."""

    folder: Path
    output: str
    failed: bool

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The trainer's log, a row a step, at full precision."""
        assert not self.failed, self.output[-5000:]
        return [row for row in history(self.folder) if "loss" in row]

    @property
    def answers(self) -> list[tuple[str, int]]:
        """Of ``command=chat``: text and number of tokens of each answer."""
        assert not self.failed, self.output[-5000:]
        mark = "=== ANSWER "
        marked = [line.removeprefix(mark) for line in self.output.splitlines() if line.startswith(mark)]
        return [(text, tokens) for text, tokens in map(json.loads, marked)]

    @property
    def losses(self) -> list[float]:
        return [row["loss"] for row in self.steps]


def train_together(work: Path, runs: Mapping[str, dict[str, Any]], **how: Any) -> dict[str, Outcome]:
    """Train each of ``runs``, the host's arguments by name; ``how`` as in :func:`run_together`."""
    files = {name: write_yaml(work / f"run-{number}.yaml", runs[name]) for number, name in enumerate(runs)}
    return run_together(
        work, {name: [str(files[name]), f"output_dir={runs[name]['output_dir']}"] for name in runs}, **how
    )


def run_together(
    work: Path,
    runs: Mapping[str, Sequence[str]],
    command: Sequence[str] = (sys.executable,),
    threads: str = THREADS,
    timeout: float = 420,
) -> dict[str, Outcome]:
    """Train one after the other in one process, or with one launcher.

    Args:
        work: where data sets are cached.
        runs: by name, the arguments behind ``llamafactory-cli train``: a YAML file and ``key=value``, ``output_dir``
            among them; see ``several.py`` for other commands.
        command: what starts a Python file: an interpreter, torchrun, accelerate.
        threads: of each process.
        timeout: a hang is a failure, not a long wait.
    """
    arguments = [part for run in runs.values() for part in ("--", *run)][1:]
    done = subprocess.run(
        [*command, str(SEVERAL), *arguments],
        cwd=REPO,
        env={**environment(work, OMP_NUM_THREADS=threads), "PYTHONPATH": str(REPO)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )
    outcomes = {}
    for name, (file, *rest) in runs.items():
        _, began, behind = done.stdout.partition(f"=== RUN {file}\n")
        assert began, f"{name} never began; the process ended with {done.returncode}:\n{done.stdout[-5000:]}"
        output = behind.split("=== RUN ", 1)[0]
        places = (item.partition("=")[2] for item in rest if item.startswith(("output_dir=", "export_dir=")))
        outcomes[name] = Outcome(Path(next(places, "")), output, f"=== FAILED {file}" in output)
    crashed = done.returncode and not any(outcome.failed for outcome in outcomes.values())
    assert not crashed, f"the process ended with {done.returncode}:\n{done.stdout[-5000:]}"
    return outcomes
