"""What a benchmark prints, and the file that it leaves in ``benchmarks/results/``: tables, goals, and the machine.

``docs/write_performance.py`` reads these files, so that no figure is typed by hand.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Table:
    """A table of text cells."""

    title: str
    columns: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """The table in Markdown, without its title."""
        head, *rows = (f"| {' | '.join(cells)} |" for cells in [self.columns, *self.rows])
        return "\n".join([head, "|" + "---|" * len(self.columns), *rows]) + "\n"


@dataclass(frozen=True)
class Goal:
    """A figure with what it has to reach: at least ``least``, or at most ``most``."""

    name: str
    value: float
    least: float | None = None
    most: float | None = None

    @property
    def is_met(self) -> bool:
        """Whether the figure is where it should be."""
        return (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)

    @property
    def limit(self) -> str:
        """The limit in words."""
        return f"at most {self.most:g}" if self.least is None else f"at least {self.least:g}"


@dataclass
class Report:
    """What one benchmark found.

    Attributes:
        name: of the file, and of the script unless that is given.
        size: what was measured, in a line.
        tables: for people.
        goals: figures with their limits.
        raw: numbers for pictures and for later comparison.
        script: its path, if its name is not that of the file.
    """

    name: str
    size: str
    tables: list[Table] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)
    script: str = ""

    def finish(self, out: Path | None = None) -> None:
        """Print everything, and write the file (by default ``results/NAME.json``)."""
        self.print_all()
        self.write(out)

    def print_all(self) -> None:
        """Print the machine, the tables and the goals."""
        where = machine()
        print(f"{where['processor']}, {where['cores']} cores, {where['system']}, float32")
        print(f"torch {where['torch']}, transformers {where['transformers']}, Python {where['python']}")
        print(self.size)
        for table in self.tables:
            print(f"\n{table.title}\n\n{table.markdown()}")
        if self.goals:
            print(goals_table(self.goals).markdown())

    def write(self, out: Path | None = None) -> None:
        """Write the file."""
        path = RESULTS / f"{self.name}.json" if out is None else out
        path.parent.mkdir(parents=True, exist_ok=True)
        goals = [{**asdict(goal), "limit": goal.limit, "is_met": goal.is_met} for goal in self.goals]
        command = f"python benchmarks/{Path(self.script or self.name).stem}.py {' '.join(sys.argv[1:])}".strip()
        values = {"benchmark": self.name, "command": command, "machine": machine(), **asdict(self), "goals": goals}
        del values["name"], values["script"]
        path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
        print(f"written to {path}")


def goals_table(goals: Sequence[Goal]) -> Table:
    """The goals with what was measured."""
    rows = [[goal.name, goal.limit, f"{goal.value:.3g}", "yes" if goal.is_met else "NO"] for goal in goals]
    return Table("Goals", ["goal", "limit", "measured", "reached"], rows)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median, least and most."""
    middle, least, most = (f"{value:.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({least} to {most})"


def machine() -> dict[str, Any]:
    """The machine, its load as the benchmark ends, and the versions."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": platform.system(),
        "load": round(os.getloadavg()[0], 1),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def parser(description: str | None, **sizes: int) -> argparse.ArgumentParser:
    """A parser with a number for each size, and ``--out``."""
    made = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    for name, default in sizes.items():
        made.add_argument(f"--{name}", type=int, default=default, help=f"default: {default}")
    made.add_argument("--out", type=Path, help="JSON file to write (default: results/NAME.json beside the script)")
    return made
