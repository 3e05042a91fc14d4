"""How long and how dear: 20,000 clips with six answers, 900,000 captions, the test sets, on 1, 8 and 64 GPUs.

Two steps. `check` does a small job on Ray Data with a checkpoint of any size, measures its stages, writes down what a
second small job of another size should take, does that one, and compares. `plan` prints the table for real sizes, from
the cost of reading that was measured on this machine and from the rates of a GPU, which are arithmetic until you give
the ones that you measured:

    python benchmarks/scale_plan.py check --model demo/runs/dpo
    python benchmarks/scale_plan.py plan --gpu-hour 2.5 --core-hour 0.04 --judge-price 0.6
    python benchmarks/scale_plan.py plan --prefill 24000 --decode 5200        tokens per second and GPU, measured

Both leave a file for `docs/write_performance.py` where `--out` says: `check` before its second job, with the
prediction, and again after it.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from report import RESULTS, Report, Table

from hound_plugin.demo.clips import write_clip
from hound_plugin.engines.ray_data import RayEngine
from hound_plugin.engines.settings import EngineSettings
from hound_plugin.engines.work import Work, media_reader
from hound_plugin.evaluation.items import Question
from hound_plugin.evaluation.prediction import make_batches
from hound_plugin.evaluation.settings import EvaluationSettings
from hound_plugin.evaluation.shards import Shard
from hound_plugin.own_model import OwnPredictor
from hound_plugin.processing.video_processor import LlavaHoundVideoProcessor

PARAMETERS = 6.74e9  # of Vicuna 7B
BYTES = 2  # bfloat16
VISUAL_TOKENS = 2048
TOWER_FLOPS = 8 * 2 * 0.43e9 * 257  # 8 frames through ViT-L/14 with temporal layers


# --- the plan


@dataclass(frozen=True)
class Job:
    """A job of a real size: clips, prompts, answers of each, tokens of an answer, requests to a judge for an answer."""

    name: str
    clips: int
    prompts: int
    answers: int
    tokens: int
    judged: bool


JOBS = (
    Job("20k clips x 6 answers, judged", 20_000, 20_000, 6, 60, True),
    Job("900k captions", 900_000, 900_000, 1, 220, False),
    Job("test sets (15k questions), judged", 5_000, 15_000, 1, 30, True),
)


@dataclass(frozen=True)
class Machine:
    """What a plan counts with; rates are of one GPU, costs of reading of one core and clip."""

    prefill: float
    decode: float
    towers: float
    read_seconds: float
    read_mb: float
    cores: float
    disk_mb: float
    start: float
    judge_per_minute: float


def stages(job: Job, machine: Machine, gpus: int) -> dict[str, float]:
    """Hours of each stage on its own; reading and generating overlap, the judge comes after them."""
    nodes = math.ceil(gpus / 8)
    prefilled = job.prompts * (VISUAL_TOKENS + 60)
    return {
        "I/O": job.clips * machine.read_mb / (machine.disk_mb * nodes) / 3600,
        "decode CPU": job.clips * machine.read_seconds / (machine.cores * gpus) / 3600,
        "towers": job.clips * machine.towers / gpus / 3600,
        "prefill": prefilled / machine.prefill / gpus / 3600,
        "decode tokens": job.prompts * job.answers * job.tokens / machine.decode / gpus / 3600,
        "judge": job.prompts * job.answers / machine.judge_per_minute / 60 if job.judged else 0.0,
    }


def total(parts: dict[str, float], machine: Machine) -> tuple[float, str]:
    """Hours of the whole job, and which stage decides it."""
    model = parts["towers"] + parts["prefill"] + parts["decode tokens"]
    spread = {"I/O": parts["I/O"], "decode CPU": parts["decode CPU"], "GPU": model}
    slowest = max(spread, key=lambda name: spread[name])
    if slowest == "GPU":
        slowest = max(("towers", "prefill", "decode tokens"), key=lambda name: parts[name])
    if parts["judge"] > max(spread.values()):
        slowest = "judge's rate limit"
    return machine.start / 3600 + max(spread.values()) + parts["judge"], slowest


def machine_of(chosen: argparse.Namespace, read: tuple[float, float]) -> Machine:
    """Rates as given, else by arithmetic: prefill by floating-point operations, decoding by memory bandwidth."""
    flops, bandwidth = chosen.tflops * 1e12 * chosen.share, chosen.bandwidth * 1e12 * chosen.share
    steps = 1 / (PARAMETERS * BYTES / bandwidth + chosen.overhead / 1000)  # per second, all answers at once
    return Machine(
        prefill=chosen.prefill or flops / (2 * PARAMETERS),
        decode=chosen.decode or steps * chosen.together,
        towers=TOWER_FLOPS / flops,
        read_seconds=read[0],
        read_mb=read[1],
        cores=chosen.cores,
        disk_mb=chosen.disk,
        start=chosen.start,
        judge_per_minute=chosen.judge_rate,
    )


def plan(chosen: argparse.Namespace) -> None:
    """Print the tables, and write them where `--out` says."""
    with tempfile.TemporaryDirectory() as folder:
        read = read_cost(Path(folder))
    kinds = [name for name in read if chosen.clips is None or chosen.clips in name]
    if not kinds:
        raise SystemExit(f"--clips: expected a part of one of {', '.join(map(repr, read))}; got {chosen.clips!r}.")
    costs = [[name, f"{seconds:.3f}", f"{megabytes:.3f}"] for name, (seconds, megabytes) in read.items()]
    report = Report("scale_plan", f"prices: {chosen.gpu_hour:g} a GPU hour, {chosen.core_hour:g} a core hour, "
                    f"{chosen.judge_price:g} for 1000 requests to the judge", script="scale_plan")  # fmt: skip
    report.tables = [Table("Reading a clip to pixels, measured", ["clip", "CPU seconds", "MB"], costs)]
    for name in kinds:
        machine = machine_of(chosen, read[name])
        measured = "" if chosen.prefill and chosen.decode else " (arithmetic, not measured)"
        title = (
            f"{name[0].upper()}{name[1:]}. A GPU: prefill {machine.prefill:,.0f} and decode {machine.decode:,.0f} "
            f"tokens/s{measured}, {machine.cores:g} cores; a judge: {machine.judge_per_minute:,.0f} requests a minute. "
            "Hours of the whole job and of each stage"
        )
        report.tables.append(Table(title, COLUMNS, [row for job in JOBS for row in planned(job, machine, chosen)]))
    report.print_all()
    if chosen.out is not None:
        report.write(chosen.out)


COLUMNS = ["job", "GPUs", "hours", "cost", "bottleneck", "I/O", "decode CPU", "towers", "prefill", "decode", "judge"]


def planned(job: Job, machine: Machine, chosen: argparse.Namespace) -> list[list[str]]:
    """Rows of a job on 1, 8 and 64 GPUs; while the judge is waited for, no GPU is paid."""
    rows = []
    for gpus in (1, 8, 64):
        parts = stages(job, machine, gpus)
        hours, slowest = total(parts, machine)
        paid = (hours - parts["judge"]) * gpus * (chosen.gpu_hour + chosen.cores * chosen.core_hour)
        paid += job.prompts * job.answers * chosen.judge_price / 1000 if job.judged else 0
        cells = [job.name, gpus, f"{hours:.2f}", f"{paid:,.0f}", slowest]
        rows.append([*map(str, cells), *(f"{part:.2f}" for part in parts.values())])
    return rows


def read_cost(folder: Path, repeat: int = 5) -> dict[str, tuple[float, float]]:
    """CPU seconds and megabytes to read one clip to pixels, measured here, by kind of clip."""
    torch.set_num_threads(1)
    processor = LlavaHoundVideoProcessor()
    costs = {}
    for name, path, size in made_clips(folder):
        processor.read(path)
        began = time.process_time()
        for _ in range(repeat):
            processor.read(path)
        costs[name] = ((time.process_time() - began) / repeat, size / 1e6)
    return costs


def made_clips(folder: Path) -> list[tuple[str, str, int]]:
    """Name, path and bytes read of a clip of each kind."""
    generator = np.random.default_rng(0)
    pictures = folder / "frames"
    pictures.mkdir()
    for number in range(30):
        small = generator.integers(0, 255, (36, 64, 3), dtype=np.uint8)
        Image.fromarray(small).resize((640, 360), Image.Resampling.BICUBIC).save(pictures / f"{number:03}.jpg")
    found = [("folder of 30 frames, 640x360 JPEG", str(pictures), 8 * os.path.getsize(pictures / "000.jpg"))]
    for width, height in ((640, 360), (1280, 720)):
        path = folder / f"{height}.mp4"
        background = generator.integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
        frame = np.asarray(Image.fromarray(background).resize((width, height), Image.Resampling.BICUBIC))
        write_clip(path, np.stack([np.roll(frame, 4 * number, axis=1) for number in range(300)]), 30)
        found.append((f"10 s of {height}p at 30 frames/s, H.264", str(path), os.path.getsize(path)))
    return found


# --- the check


@dataclass(frozen=True)
class Measured:
    """A small job: seconds on the clock, and of its stages.

    Attributes:
        clips: how many.
        first: seconds on the clock until the first result.
        seconds: until the last.
        read, answered: CPU seconds of all clips.
        warm: CPU seconds (reading, answering) and seconds on the clock (likewise) of one clip, without the first batch,
            in which libraries are loaded.
    """

    clips: int
    first: float
    seconds: float
    read: float
    answered: float
    warm: tuple[float, float, float, float]


class Timed:
    """A predictor that says how long its two halves took, wherever they ran."""

    def __init__(self, predictor: OwnPredictor) -> None:
        self.predictor = predictor
        self.read_times = (0.0, 0.0)

    def read_media(self, media: Sequence[Any]) -> Any:
        self.predictor._processor  # noqa: B018 - loading it is part of the start, not of a clip
        began = time.process_time(), time.perf_counter()
        read = self.predictor.read_media(media)
        return read, (time.process_time() - began[0], time.perf_counter() - began[1])

    def keep_media(self, read: Any) -> None:
        kept, self.read_times = read
        self.predictor.keep_media(kept)

    def __call__(self, questions: Sequence[Question]) -> list[float]:
        self.predictor.hound  # noqa: B018 - loading it is part of the start, not of an answer
        began = time.process_time(), time.perf_counter()
        self.predictor.predict(questions)
        return [*self.read_times, time.process_time() - began[0], time.perf_counter() - began[1]]


def media_of(questions: Sequence[Question]) -> list[Any]:
    """The clips of a batch."""
    return [question.shown for question in questions]


def small_job(chosen: argparse.Namespace, clips: Sequence[str]) -> Measured:
    """Describe clips on a cluster of this machine."""
    predict = {"max_new_tokens": chosen.tokens, "batch_size": chosen.batch, "dtype": "float32"}
    settings = EvaluationSettings(model=chosen.model, predict=predict)
    asked = [Question(clip, "s", clip, (clip,), "<video>\nWhat moves?", "What moves?") for clip in clips]
    model = Timed(OwnPredictor(settings, Shard()))
    engine = RayEngine(EngineSettings(kind="ray", actors=chosen.actors, decoders=chosen.decoders, batch=1))
    tasks = [batch.questions for batch in make_batches(asked, chosen.batch)]
    began, when, times = time.perf_counter(), [], []
    for _, measured in engine.run(Work(model, media_of, media_reader(model)), tasks):
        when.append(time.perf_counter() - began)
        times.append(measured)
    read, read_clock, answered, answered_clock = zip(*times, strict=True)
    later = len(clips) - chosen.batch
    warm = tuple(sum(stage[1:]) / later for stage in (read, answered, read_clock, answered_clock))
    return Measured(len(clips), when[0], when[-1], sum(read), sum(answered), warm)


def predicted(small: Measured, clips: int, chosen: argparse.Namespace) -> dict[str, float]:
    """What a job of another size should take, from the stages of a small one."""
    more = clips - small.clips
    read, answered, read_clock, answered_clock = small.warm
    pace = max(read_clock / chosen.decoders, answered_clock / chosen.actors)
    return {
        "seconds": small.seconds + pace * more,
        "read": small.read + read * more,
        "answered": small.answered + answered * more,
    }


def check(chosen: argparse.Namespace) -> None:
    """Measure, predict, write the prediction down, measure again, compare."""
    sizes = [int(size) for size in chosen.sizes.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        clips = small_clips(Path(folder), max(sizes))
        small = small_job(chosen, clips[: sizes[0]])
        expected = predicted(small, sizes[1], chosen)
        shape = f"{chosen.actors} actors, {chosen.decoders} decoders, batches of {chosen.batch}, {chosen.tokens} tokens"
        report = Report("scale_check", f"{shape} at most; clips of 40 frames, 160x120", script="scale_plan")
        report.raw = {"written": now(), "small": asdict(small), "clips": sizes[1], "expected": expected}
        report.tables = [compared(small, sizes, expected, None)]
        report.write(chosen.out)
        print(f"{report.raw['written']}: it has the prediction for {sizes[1]} clips, from {sizes[0]}", flush=True)
        report.raw["began"] = now()
        second = small_job(chosen, clips[: sizes[1]])
    report.raw["measured"] = asdict(second)
    report.size += f"; load {os.getloadavg()[0]:.0f} at the end"
    report.tables = [compared(small, sizes, expected, second)]
    report.finish(chosen.out)


def now() -> str:
    """The time of day, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S")


def compared(small: Measured, sizes: Sequence[int], expected: dict[str, float], second: Measured | None) -> Table:
    """What the first job took, what the second one should, and what it did."""
    rows = []
    for name, title in (("read", "reading, CPU s"), ("answered", "answering, CPU s"), ("seconds", "clock, s")):
        row = [title, f"{getattr(small, name):.2f}", f"{expected[name]:.2f}"]
        if second is not None:
            after = getattr(second, name)
            row += [f"{after:.2f}", f"{after / expected[name] - 1:+.0%}"]
        rows.append(row)
    columns = ["", f"{sizes[0]} clips", f"{sizes[1]} clips, predicted", "measured", "off by"]
    return Table("A small job, and another one that it predicts", columns[: len(rows[0])], rows)


def small_clips(folder: Path, count: int) -> list[str]:
    """Clips of four seconds with a moving square."""
    paths = []
    for number in range(count):
        frame = np.full((120, 160, 3), number * 7 % 255, np.uint8)
        frames = np.stack([np.roll(frame, shift, axis=1) for shift in range(40)])
        frames[:, 20:60, 30:70] = (number * 11) % 255
        path = folder / f"{number}.mp4"
        write_clip(path, frames, 10)
        paths.append(str(path))
    return paths


def main() -> None:
    """Print what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="STEP")
    table = commands.add_parser("plan", help="the table for real sizes")
    for name, default, text in (
        ("tflops", 312.0, "dense bfloat16 of a GPU, in 1e12 operations a second (an A100 has 312, an H200 989)"),
        ("bandwidth", 2.0, "memory bandwidth of a GPU, in TB/s (an A100 has 2.0, an H200 4.8)"),
        ("share", 0.45, "of both that is reached"),
        ("overhead", 3.0, "milliseconds of a step besides reading the weights (about 25 without vLLM)"),
        ("together", 48.0, "answers that are decoded together"),
        ("prefill", None, "tokens a second of a GPU, measured, instead of arithmetic"),
        ("decode", None, "the same for decoding"),
        ("cores", 8.0, "cores of a GPU that read clips"),
        ("disk", 1000.0, "MB/s that a machine of eight GPUs reads"),
        ("start", 180.0, "seconds until every process has its model"),
        ("judge-rate", 500.0, "requests a minute that the judge's service allows"),
        ("judge-price", 0.5, "of 1000 requests to the judge"),
        ("gpu-hour", 2.0, "price of a GPU"),
        ("core-hour", 0.0, "price of a core"),
    ):
        table.add_argument(f"--{name}", type=float, default=default, help=f"{text} (default: {default})")
    table.add_argument("--clips", help="only kinds of clips whose name in the first table has this in it")
    table.add_argument("--out", type=Path, help="JSON file to write besides (for the documentation: "
                       "benchmarks/results/scale_plan.json)")  # fmt: skip
    table.set_defaults(run=plan)
    small = commands.add_parser("check", help="a prediction for a second small job, compared with it")
    small.add_argument("--model", default="demo/runs/dpo", help="checkpoint (default: that of `make demo`)")
    small.add_argument("--sizes", default="24,96", help="clips of the first and the second job (default: 24,96)")
    small.add_argument("--out", type=Path, default=RESULTS / "scale_check.json",
                       help="where the prediction is written down before the second job")  # fmt: skip
    for name, default in (("actors", 1), ("decoders", 1), ("batch", 4), ("tokens", 16)):
        small.add_argument(f"--{name}", type=int, default=default, help=f"default: {default}")
    small.set_defaults(run=check)
    chosen = parser.parse_args()
    chosen.run(chosen)


if __name__ == "__main__":
    main()
