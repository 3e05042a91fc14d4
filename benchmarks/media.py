"""Clips to tensors: our decoder against the host's, loader workers, and what the two caches leave of a second epoch.

The host's way is its own code: ``_regularize_videos`` decodes the whole clip and keeps 8 frames, and transformers'
Video-LLaVA processor makes them a tensor (the host's call itself fails on transformers 5.5, because it passes
``images=None``; that argument is left out here). The ways take turns. torchcodec is measured where
it is installed; its stored frame mappings were not tried, as it needs FFmpeg's libraries on the system.

    python benchmarks/media.py [--repeat 7] [--height 360] [--layers 2] [--only decoding frames workers caches]
"""

from __future__ import annotations

import argparse
import os
import platform
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
import transformers

PARTS = ("decoding", "frames", "workers", "caches")
RATE, GOP, FRAMES = 30, 250, 8


def write_clip(path: Path, seconds: int, height: int, seed: int = 0) -> Path:
    """A moving picture, H.264 in MP4, with a keyframe every 250 frames as x264 sets them by default."""
    width = height * 16 // 9
    y, x = np.mgrid[:height, :width]
    base = np.stack([x % 256, y % 256, (x // 16 + y // 16 + seed) % 2 * 200], -1).astype(np.uint8)
    base[: height // 3, : width // 3] = np.random.default_rng(seed).integers(0, 256, (height // 3, width // 3, 3))
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = width, height, "yuv420p", GOP
        stream.options = {"preset": "veryfast"}
        for number in range(seconds * RATE):
            picture = np.ascontiguousarray(np.roll(base, 2 * number, axis=1))
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode())
    return path


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


def print_times(title: str, times: Times) -> None:
    """A table of medians; ratios are to the first way."""
    middle = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in times.items()}
    first = next(iter(middle.values()))
    print(
        f"\n| {title} | ms (median, least to most) | times faster | ms of a core | times less |\n|---|---|---|---|---|"
    )
    for name, rows in times.items():
        wall, cpu = middle[name]
        spread = f"{wall:.1f} ({min(rows)[0]:.1f} to {max(rows)[0]:.1f})"
        print(f"| {name} | {spread} | {first[0] / wall:.2f} | {cpu:.1f} | {first[1] / cpu:.2f} |")


def hosts_way() -> Callable[[str], Any]:
    """The host's decoding, and transformers' Video-LLaVA processor behind it."""
    from llamafactory.data.mm_plugin import get_mm_plugin
    from transformers import VideoLlavaVideoProcessor

    plugin, processor = get_mm_plugin("video_llava", "<image>", "<video>"), VideoLlavaVideoProcessor()
    options = {"image_max_pixels": 1 << 30, "image_min_pixels": 1, "video_fps": 1000.0, "video_maxlen": FRAMES}

    def read(path: str) -> Any:
        return processor(videos=plugin._regularize_videos([path], **options)["videos"], return_tensors="pt")

    return read


def decoding(folder: Path, chosen: argparse.Namespace) -> None:
    """One clip to its tensor, by length; decoders that are installed."""
    from hound_plugin.processing.video_processor import LlavaHoundVideoProcessor

    torch.set_num_threads(1)  # as in a loader worker
    host = hosts_way()
    for seconds in (10, 60):
        path = str(write_clip(folder / f"{seconds}s.mp4", seconds, chosen.height))
        ways: dict[str, Callable[[], Any]] = {"host": partial(host, path)}
        for decoder in ("auto", "decord", "torchcodec"):
            processor = LlavaHoundVideoProcessor()
            processor.decoder = decoder
            try:
                processor.read(path)
            except Exception as error:
                print(f"\n{decoder}: {type(error).__name__}: {str(error)[:100]}")
                continue
            ways[f"decoder: {decoder}"] = partial(processor.read, path)
        print_times(f"{seconds} s, {chosen.height}p, {FRAMES} frames", measure(ways, chosen.repeat))


def frames(folder: Path, chosen: argparse.Namespace) -> None:
    """Decoded frames to a tensor of 224 px."""
    from hound_plugin.processing.video_processor import video_frames_to_tensor

    torch.set_num_threads(1)
    draw = np.random.default_rng(0)
    sizes = {f"{height}p": draw.integers(0, 256, (FRAMES, height, height * 16 // 9, 3), np.uint8)
             for height in (360, 720)}  # fmt: skip
    ways = {name: partial(video_frames_to_tensor, array) for name, array in sizes.items()}
    print_times(f"{FRAMES} frames to 224 px", measure(ways, 3 * chosen.repeat))


def workers(folder: Path, chosen: argparse.Namespace) -> None:
    """Clips a second by number of loader workers, and how much of the cores they take."""
    from torch.utils.data import DataLoader

    from hound_plugin.processing.video_processor import LlavaHoundVideoProcessor

    paths = [str(write_clip(folder / f"w{number}.mp4", 4, chosen.height, number)) for number in range(4)] * 8
    processor = LlavaHoundVideoProcessor()
    print("\n| loader workers | clips/s (median, least to most) | CPU s a clip |\n|---|---|---|")
    for count in (0, 1, 2, 4):
        rates, costs = [], []
        for turn in range(4):
            start, cpu = time.perf_counter(), sum(os.times()[:4])
            for _ in DataLoader(paths, batch_size=None, num_workers=count, collate_fn=processor.read):
                pass
            seconds = time.perf_counter() - start
            if turn:
                rates.append(len(paths) / seconds)
                costs.append((sum(os.times()[:4]) - cpu) / len(paths))
        spread = f"{statistics.median(rates):.1f} ({min(rates):.1f} to {max(rates):.1f})"
        print(f"| {count} | {spread} | {statistics.median(costs):.4f} |")


def caches(folder: Path, chosen: argparse.Namespace) -> None:
    """Media and towers in the first and the second epoch: without a cache, with frames, with features."""
    from hound_plugin.model.configuration import LlavaHoundTowerConfig
    from hound_plugin.model.feature_folder import FeatureFolder, tower_digest
    from hound_plugin.model.vision import LlavaHoundTower
    from hound_plugin.processing.video_processor import LlavaHoundVideoProcessor

    torch.set_num_threads(os.cpu_count() or 1)
    paths = [str(write_clip(folder / f"c{number}.mp4", 10, chosen.height, number)) for number in range(chosen.clips)]
    config = LlavaHoundTowerConfig(num_hidden_layers=chosen.layers + 1, add_time_attn=True, num_frames=FRAMES)
    tower = LlavaHoundTower(config).eval()
    processor, cached = LlavaHoundVideoProcessor(), LlavaHoundVideoProcessor()
    cached.frame_cache = str(folder / "frames")
    features = FeatureFolder(folder / "features", None, tower_digest(tower, -2, ""))

    def with_features(path: str) -> torch.Tensor:
        content = processor.content_key(path)
        assert content is not None
        key = features.key_for(content)
        known = features.load(key)
        if known is None:
            known = encode(processor.read(path))
            features.store(key, known)
        return known

    @torch.no_grad()
    def encode(pixels: torch.Tensor) -> torch.Tensor:
        return tower.features(pixels[None], -2)[0]

    ways: dict[str, Callable[[str], Any]] = {
        "decoding, no cache": processor.read,
        "decoding, frame_cache": cached.read,
        f"decoding + tower of {chosen.layers} blocks, no cache": lambda path: encode(processor.read(path)),
        f"decoding + tower of {chosen.layers} blocks, feature_cache": with_features,
    }
    print("\n| a clip of 10 s | first epoch, ms | second, ms (median, least to most) | second / first |")
    print("|---|---|---|---|")
    for name, read in ways.items():
        epochs = []
        for _ in range(2 if "no cache" in name else 4):
            times = []
            for path in paths:
                start = time.perf_counter()
                read(path)
                times.append((time.perf_counter() - start) * 1000)
            epochs.append(statistics.median(times))
        later = epochs[1:]
        spread = f"{statistics.median(later):.2f} ({min(later):.2f} to {max(later):.2f})"
        print(f"| {name} | {epochs[0]:.1f} | {spread} | {statistics.median(later) / epochs[0]:.4f} |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--height", type=int, default=360)
    parser.add_argument("--clips", type=int, default=4, help="of the epochs (default: 4)")
    parser.add_argument("--layers", type=int, default=2, help="blocks of the tower that run; 23 in the released one")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    chosen = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, PyAV {av.__version__}")
    import hound_plugin  # noqa: F401  (activates)

    warnings.filterwarnings("ignore", message="This DataLoader will create")  # four workers on two cores, on purpose
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen.only:
            getattr(sys.modules[__name__], name)(Path(folder), chosen)


if __name__ == "__main__":
    main()
