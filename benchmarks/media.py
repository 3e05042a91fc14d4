"""Clips to tensors: our decoder against the host's, loader workers, and what the frame cache leaves of a second epoch.

The host's way is its own code: ``_regularize_videos`` decodes the whole clip and keeps 8 frames, and transformers'
Video-LLaVA processor makes them a tensor (the host's call itself fails on transformers 5.5, because it passes
``images=None``: Video-LLaVA in the host, repaired by one line, which leaves that argument out). The ways take turns.
decord and torchcodec are measured where they are installed. The defaults take about three minutes on two idle cores.

    python benchmarks/media.py [--repeat 7] [--height 360] [--clips 4] [--seconds 10 60]
        [--only decoding mappings frames workers caches] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from clips import RATE, write_clip
from report import Goal, Report, Table, parser, spread

PARTS = ("decoding", "mappings", "frames", "workers", "caches")
FRAMES = 8
HOST = "host"
LEAST = {10: 1.3, 60: 5.0}
"""Seconds of a clip -> how many times less of a core than the host."""


Times = dict[str, list[tuple[float, float]]]


def measure(ways: dict[str, Callable[[], Any]], repeat: int) -> Times:
    """Milliseconds of each way, by the clock and of a core; they take turns, and the first turn does not count."""
    times: Times = {name: [] for name in ways}
    for turn in range(repeat + 1):
        for name, run in ways.items():
            start, cpu = time.perf_counter(), time.process_time()
            run()
            if turn:
                times[name].append(((time.perf_counter() - start) * 1000, (time.process_time() - cpu) * 1000))
    return times


def medians(times: Times) -> dict[str, list[float]]:
    """Way -> milliseconds by the clock and of a core."""
    return {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in times.items()}


def table_of(title: str, times: Times) -> Table:
    """A line a way; ratios are to the first one."""
    middle = medians(times)
    first = next(iter(middle.values()))
    rows = []
    for name, pairs in times.items():
        wall, cpu = middle[name]
        clock = spread([milliseconds for milliseconds, _ in pairs], 1)
        rows.append([name, clock, f"{first[0] / wall:.2f}", f"{cpu:.1f}", f"{first[1] / cpu:.2f}"])
    columns = ["way", "ms (median, least to most)", "times faster", "ms of a core", "times less"]
    return Table(title, columns, rows)


def hosts_way() -> Callable[[str], Any]:
    """The host's decoding, and transformers' Video-LLaVA processor behind it."""
    from llamafactory.data.mm_plugin import get_mm_plugin
    from transformers import VideoLlavaVideoProcessor

    plugin, processor = get_mm_plugin("video_llava", "<image>", "<video>"), VideoLlavaVideoProcessor()
    options = {"image_max_pixels": 1 << 30, "image_min_pixels": 1, "video_fps": 1000.0, "video_maxlen": FRAMES}

    def read(path: str) -> Any:
        return processor(videos=plugin._regularize_videos([path], **options)["videos"], return_tensors="pt")

    return read


def decoding(folder: Path, chosen: argparse.Namespace, report: Report) -> None:
    """One clip to its tensor, by length; decoders that are installed."""
    from hound_plugin.processing.video_processor import LlavaHoundVideoProcessor

    torch.set_num_threads(1)  # as in a loader worker
    host = hosts_way()
    for seconds in chosen.seconds:
        path = str(write_clip(folder / f"{seconds}s.mp4", seconds, chosen.height))
        ways: dict[str, Callable[[], Any]] = {HOST: partial(host, path)}
        for decoder in ("auto", "decord", "torchcodec"):
            processor = LlavaHoundVideoProcessor()
            processor.decoder = decoder
            try:
                processor.read(path)
            except Exception as error:
                print(f"{decoder}: {type(error).__name__}: {str(error)[:100]}")
                continue
            ways[f"decoder: {decoder}"] = partial(processor.read, path)
        times = measure(ways, chosen.repeat)
        report.tables.append(table_of(f"A clip of {seconds} s, {chosen.height}p, to {FRAMES} frames", times))
        middle = medians(times)
        cheaper = middle[HOST][1] / middle["decoder: auto"][1]  # the host's FFmpeg takes as many cores as there are
        if seconds in LEAST:
            goal = f"decoder: auto, time of a core for clips of {seconds} s, times less"
            report.goals.append(Goal(goal, cheaper, least=LEAST[seconds]))
        report.raw[f"decoding, {seconds} s"] = times


def mappings(folder: Path, chosen: argparse.Namespace, report: Report) -> None:
    """Decoding alone: ours, and torchcodec without and with the frames' times and keyframes in a stored list.

    torchcodec reads the whole file to know its frames, unless it is given such a list.
    """
    from hound_plugin.media.decode import read_clip

    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, OSError, RuntimeError) as error:
        print(f"torchcodec cannot be loaded, and is left out: {str(error)[:100]}")
        return
    torch.set_num_threads(1)
    for seconds in chosen.seconds:
        path = str(write_clip(folder / f"m{seconds}s.mp4", seconds, chosen.height))
        numbers = np.linspace(0, seconds * RATE - 1, FRAMES, dtype=int).tolist()

        def with_torchcodec(path: str = path, numbers: list[int] = numbers, **options: Any) -> np.ndarray:
            decoder = VideoDecoder(path, num_ffmpeg_threads=1, dimension_order="NHWC", **options)
            pictures: np.ndarray = decoder.get_frames_at(numbers).data.numpy()
            return pictures

        ways: dict[str, Callable[[], Any]] = {
            "decoder: auto": partial(read_clip, path, num_frames=FRAMES, sampling="uniform", decoder="auto"),
            "torchcodec, exact": with_torchcodec,
            "torchcodec, stored mapping": partial(with_torchcodec, custom_frame_mappings=frame_mapping(path)),
        }
        expected = ways["decoder: auto"]().frames
        equal = all(np.array_equal(way(), expected) for name, way in ways.items() if name.startswith("torchcodec"))
        times = measure(ways, chosen.repeat)
        what = "equal pixels" if equal else "pixels differ"
        report.tables.append(table_of(f"Decoding {FRAMES} frames of {seconds} s alone, {what}", times))
        report.raw[f"mappings, {seconds} s"] = times


def frame_mapping(path: str) -> str:
    """Time, duration and keyframes of a clip's frames, as torchcodec takes them (``ffprobe -show_frames``)."""
    with av.open(path) as clip:
        packets = [packet for packet in clip.demux(video=0) if packet.pts is not None]
    packets.sort(key=lambda packet: packet.pts)
    return json.dumps(
        {"frames": [{"pts": p.pts, "duration": p.duration, "key_frame": int(p.is_keyframe)} for p in packets]}
    )


def frames(folder: Path, chosen: argparse.Namespace, report: Report) -> None:
    """Decoded frames to a tensor of 224 px."""
    from hound_plugin.processing.video_processor import video_frames_to_tensor

    torch.set_num_threads(1)
    draw = np.random.default_rng(0)
    sizes = {f"{height}p": draw.integers(0, 256, (FRAMES, height, height * 16 // 9, 3), np.uint8)
             for height in (360, 720)}  # fmt: skip
    times = measure({name: partial(video_frames_to_tensor, array) for name, array in sizes.items()}, 3 * chosen.repeat)
    report.tables.append(table_of(f"{FRAMES} frames to 224 px", times))
    report.goals.append(Goal("frames of 360p to tensors, ms a clip", medians(times)["360p"][0], most=15))
    report.raw["frames"] = times


def workers(folder: Path, chosen: argparse.Namespace, report: Report) -> None:
    """Clips a second by number of loader workers, and how much of the cores they take."""
    from torch.utils.data import DataLoader

    from hound_plugin.processing.video_processor import LlavaHoundVideoProcessor

    clips = [str(write_clip(folder / f"w{number}.mp4", 4, chosen.height, number)) for number in range(chosen.clips)]
    paths = clips * 48  # processes that start are a small part
    processor = LlavaHoundVideoProcessor()
    rates: dict[int, list[float]] = {}
    costs: dict[int, list[float]] = {}
    for turn in range(4):
        for count in (0, 1, 2, 4):
            start, cpu = time.perf_counter(), sum(os.times()[:4])
            for _ in DataLoader(paths, batch_size=None, num_workers=count, collate_fn=processor.read):
                pass
            seconds = time.perf_counter() - start
            if turn:
                rates.setdefault(count, []).append(len(paths) / seconds)
                costs.setdefault(count, []).append((sum(os.times()[:4]) - cpu) / len(paths))
    cost = {count: statistics.median(values) for count, values in costs.items()}
    rows = [[str(count), spread(rates[count], 1), f"{cost[count]:.4f}"] for count in rates]
    columns = ["loader workers", "clips/s (median, least to most)", "CPU s a clip"]
    report.tables.append(Table("Clips of 4 s by loader workers", columns, rows))
    most = max(cost[2], cost[4]) / cost[1]
    rate = statistics.median(rates[4]) / statistics.median(rates[2])
    report.goals.append(Goal("CPU time of a clip with 2 or 4 workers, share of that with 1", most, most=1.3))
    report.goals.append(Goal("clips/s of 4 workers, share of that of 2", rate, least=0.9))
    report.raw["workers"] = {"clips/s": rates, "CPU s": costs}


def caches(folder: Path, chosen: argparse.Namespace, report: Report) -> None:
    """Reading clips in the first and in later epochs, with and without ``frame_cache``."""
    from hound_plugin.processing.video_processor import LlavaHoundVideoProcessor

    torch.set_num_threads(1)
    paths = [str(write_clip(folder / f"c{number}.mp4", 10, chosen.height, number)) for number in range(chosen.clips)]
    cached = LlavaHoundVideoProcessor()
    cached.frame_cache = str(folder / "frames")
    rows = []
    for name, processor in (("no cache", LlavaHoundVideoProcessor()), ("frame_cache", cached)):
        epochs = []
        for _ in range(4):
            start = time.perf_counter()
            for path in paths:
                processor.read(path)
            epochs.append((time.perf_counter() - start) * 1000 / len(paths))
        share = statistics.median(epochs[1:]) / epochs[0]
        rows.append([name, f"{epochs[0]:.1f}", spread(epochs[1:]), f"{share:.4f}"])
        report.raw[name] = epochs
    columns = ["way", "first epoch, ms a clip", "later ones, ms a clip (median, least to most)", "later / first"]
    report.tables.append(Table("Clips of 10 s, epoch by epoch", columns, rows))
    report.goals.append(Goal("second epoch with frame_cache, share of the first", share, most=0.05))


def main() -> None:
    """Print the tables."""
    options = parser(__doc__, repeat=7, height=360, clips=4)
    options.add_argument("--seconds", type=int, nargs="+", default=(10, 60), help="of the clips that are decoded")
    options.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    chosen = options.parse_args()
    import hound_plugin  # noqa: F401  (activates)

    warnings.filterwarnings("ignore", message="This DataLoader will create")  # four workers on two cores, on purpose
    report = Report("media", f"H.264, {chosen.height}p, keyframes every 250 frames")
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen.only:
            getattr(sys.modules[__name__], name)(Path(folder), chosen, report)
    report.finish(chosen.out)


if __name__ == "__main__":
    main()
