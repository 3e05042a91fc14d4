"""Memory of a job on Ray Data while it runs, and how much is between a fast reader and a slow model.

    python benchmarks/ray_memory.py [--items 10000] [--demo demo] [--out FILE]

The first job is `hound reward sample --engine ray` with one short answer to a question about each of many clips (those
of `make demo`, under more names), a task each. Twice a second: memory of the command's process, of the model's, of the
reader's and of Ray's own (RSS without shared pages, MB), pages of the object store that were ever used, and what Ray
has put on disk. The model keeps what it saw last, up to 256 MiB of pixels and 512 MiB of features; so the first part of
the answers is left out. Of the rest, the first quarter is compared with the last.

The second and third job have no model. Clips of `--clip` MB are read as fast as they can be and take `--pause` seconds
each to be answered; then results of that size are made fast and taken by the command at one in `--pause` seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
from report import Goal, Report, Table, parser

from hound_plugin import cli
from hound_plugin.engines.ray_data import RayEngine
from hound_plugin.engines.settings import EngineSettings
from hound_plugin.engines.work import Work, media_reader

MB = 1e6
PARTS = ("command", "model", "reader", "Ray itself", "object store", "spilled to disk")
WARM = 0.6  # of the answers: by then the model's caches are full
GROWTH = 0.05  # of a process's memory, from the first to the last quarter
STORE = 0.2  # GiB


class Watch(threading.Thread):
    """Looks at this process and what it started, again and again, while a block runs."""

    def __init__(self, done: Callable[[], int], seconds: float = 0.5) -> None:
        super().__init__(daemon=True)
        self.samples: list[dict[str, float]] = []
        self._done, self._seconds, self._ends = done, seconds, threading.Event()

    def run(self) -> None:
        while not self._ends.wait(self._seconds):
            self.samples.append({"done": self._done(), **by_part()})

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ends.set()
        self.join()


def by_part() -> dict[str, float]:
    """MB of each part of the job without pages that it shares with others; the object store is shared by all."""
    sums = dict.fromkeys(PARTS, 0.0)
    here = psutil.Process()
    for process in (here, *here.children(recursive=True)):
        try:
            memory, title = process.memory_info(), " ".join(process.cmdline()[:1])
        except psutil.Error:  # it has just ended
            continue
        part = "model" if "_Doing" in title else "reader" if "_Reading" in title else "Ray itself"
        sums["command" if process is here else part] += (memory.rss - memory.shared) / MB
        if title.endswith("raylet"):
            sums["object store"] += store_of(process.pid) / MB
    sums["spilled to disk"] = sum(map(size_of, Path(tempfile.gettempdir()).glob("ray/session_latest/*spilled*/*"))) / MB
    return sums


def store_of(raylet: int) -> int:
    """Bytes of the object store that were ever used; its pages are not given back."""
    size = 0
    for link in Path(f"/proc/{raylet}/fd").iterdir():
        with contextlib.suppress(OSError):
            if "plasma" in os.readlink(link):
                size = max(size, link.stat().st_blocks * 512)
    return size


def size_of(path: Path) -> int:
    """Bytes of a file that may just be removed."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


# --- many small tasks of the real command


def questions(demo: Path, folder: Path, items: int) -> Path:
    """Questions about as many clips: those of the demo, again under other names until there are enough."""
    rows = [json.loads(line) for line in (demo / "data" / "reward_questions.jsonl").read_text().splitlines()]
    path, clips = folder / "questions.jsonl", folder / "clips"
    clips.mkdir()
    with path.open("w") as file:
        for number in range(items):
            row = rows[number % len(rows)]
            kind = "video" if "video" in row else "image"
            name = f"{number}{Path(row[kind]).suffix}"
            (clips / name).symlink_to((demo / "clips" / row[kind]).absolute())
            file.write(json.dumps({**row, "id": f"item-{number}", kind: name}) + "\n")
    return path


def sample(chosen: argparse.Namespace, folder: Path) -> list[dict[str, float]]:
    """What was seen while the command sampled."""
    demo: Path = chosen.demo
    model = demo / "runs" / "dpo"
    sampling = {"model": str(model if model.is_dir() else demo / "model"), "n": 1, "batch_size": 1}
    recipe = {
        "folder": str(folder / "run"),
        "questions": str(questions(demo, folder, chosen.items)),
        "media_dir": str(folder / "clips"),
        "sample": {**sampling, "max_new_tokens": 2, "dtype": "float32", "device": "cpu"},
        "engine": {"kind": "ray", "object_store": STORE},
    }
    (folder / "reward.yaml").write_text(json.dumps(recipe))
    answers = folder / "run" / "candidates.jsonl"
    with Watch(lambda: answers.read_bytes().count(b"\n") if answers.exists() else 0) as watch:
        if code := cli.main(["reward", "sample", str(folder / "reward.yaml")]):
            raise SystemExit(code)
    ids = [json.loads(line)["id"] for line in answers.read_text().splitlines()]
    if ids != [f"item-{number}" for number in range(chosen.items)]:
        raise SystemExit(f"expected {chosen.items} answers in order, each once; got {len(ids)}")
    return watch.samples


def quarters(samples: Sequence[dict[str, float]], items: int) -> tuple[Table, list[Goal]]:
    """Each part in the first and in the last quarter of the answers after the first ones."""
    warm = [sample for sample in samples if WARM * items <= sample["done"] < items]
    if len(warm) < 8:
        raise SystemExit(f"expected a longer job: it was seen {len(warm)} times; raise --items")
    rows, goals = [], []
    for part in PARTS:
        there = [sample[part] for sample in warm if part in PARTS[4:] or sample[part]]  # readers end first
        size = len(there) // 4
        first, last = statistics.mean(there[:size]), statistics.mean(there[-size:])
        most = max(sample[part] for sample in samples)
        rows.append([part, f"{first:.1f}", f"{last:.1f}", f"{last - first:+.1f}", f"{most:.1f}"])
        if part in PARTS[:3]:
            goals.append(Goal(f"{part}, last quarter to first", last / first, most=1 + GROWTH))
    title = f"Memory over {items:,} items, MB"
    return Table(title, ["", "first quarter", "last quarter", "growth", "most"], rows), goals


# --- how much is on the way


class Paced:
    """A model whose clips are large; each is answered after a pause. It notes in a file what it has read and done."""

    def __init__(self, folder: Path, size: int, pause: float) -> None:
        self.folder, self.size, self.pause = folder, size, pause

    def read_media(self, media: Sequence[Any]) -> bytes:
        note(self.folder / "read")
        return bytes(self.size)

    def keep_media(self, read: bytes) -> None:
        """It is only weighed."""

    def __call__(self, number: int) -> int:
        time.sleep(self.pause)
        note(self.folder / "done")
        return number


class Large:
    """A large result of a small task; it notes in a file that it was made."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size

    def __call__(self, number: int) -> bytes:
        note(self.folder / "read")
        return bytes(self.size)


def note(path: Path) -> None:
    """One more; a file that several processes append to."""
    with path.open("ab") as file:
        file.write(b".")


def one(number: int) -> list[int]:
    """The clip of a task."""
    return [number]


def on_the_way(chosen: argparse.Namespace, work: Work[int, Any], folder: Path, pause: float) -> list[str]:
    """A row: how many clips or results were read and not yet done at most, and what was in the object store."""
    settings = EngineSettings(kind="ray", object_store=STORE, batch=chosen.batch)
    for name in ("read", "done"):
        (folder / name).touch()
    taken, began = 0, time.perf_counter()

    def between() -> int:
        done = taken if pause else (folder / "done").stat().st_size
        return (folder / "read").stat().st_size - done

    with Watch(between, 0.2) as watch, closing(RayEngine(settings).run(work, range(chosen.clips))) as results:
        for _ in results:
            taken += 1
            time.sleep(pause)
    most = max(int(sample["done"]) for sample in watch.samples)
    if taken != chosen.clips:
        raise SystemExit(f"expected {chosen.clips} results, got {taken}")
    stores = [max(sample[part] for sample in watch.samples) for part in PARTS[4:]]
    size = chosen.clip
    return [f"{chosen.clips * size:,.0f}", str(most), f"{most * size:.0f}", *(f"{store:.0f}" for store in stores),
            f"{time.perf_counter() - began:.0f}"]  # fmt: skip


def main() -> None:
    """Print and write the tables."""
    arguments = parser(__doc__, items=10_000, clips=200, clip=5, batch=8)
    arguments.add_argument("--demo", type=Path, default=Path("demo"), help="folder of `make demo` (default: demo)")
    arguments.add_argument("--pause", type=float, default=0.1, help="seconds a clip (default: 0.1)")
    chosen = arguments.parse_args()
    report = Report("ray_memory", f"one model, one reader, an object store of {STORE:g} GiB")
    with tempfile.TemporaryDirectory() as name:
        samples = sample(chosen, Path(name))
        table, report.goals = quarters(samples, chosen.items)
        rows = []
        size = int(chosen.clip * MB)
        for title, pause in (("reader faster than the model", 0.0), ("model faster than the command", chosen.pause)):
            folder = Path(tempfile.mkdtemp(dir=name))
            paced = Paced(folder, size, chosen.pause)
            work = Work(Large(folder, size)) if pause else Work(paced, one, media_reader(paced))
            rows.append([title, *on_the_way(chosen, work, folder, pause)])
    columns = ["", "all, MB", "on the way at most", "MB", "object store at most, MB", "spilled, MB", "seconds"]
    report.tables = [table, Table(f"{chosen.clips} clips or results of {chosen.clip} MB", columns, rows)]
    report.raw = {"samples": samples[:: max(1, len(samples) // 60)]}
    report.finish(chosen.out)


if __name__ == "__main__":
    main()
