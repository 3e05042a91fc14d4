"""Two epochs of DPO by the host: seconds that reading clips and running towers take, by what is kept on disk.

Trainings of the host on real clips, one pair a clip and one pair a step, in a process each: with our switches off,
with them on, with ``hound.frame_cache`` and with ``hound.feature_cache``. What is timed is the reading of media (with
decoding, or with looking into a cache) and the towers' passes (with storing what they made). The towers have the
released model's width and ``--blocks`` of its 23 blocks, which favours those that run them; the language model is tiny,
because it is not timed. The defaults take about three minutes on two idle cores.

    python benchmarks/feature_cache.py [--clips 4] [--seconds 10] [--height 360] [--blocks 2] [--small] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clips import write_clip
from report import Goal, Report, Table, parser
from side_by_side import arguments, configuration, print_result, run_child, write_model
from transformers import TrainerCallback

STOCK, OURS, FRAMES, FEATURES = "host's own steps", "ours, no cache", "frame_cache", "feature_cache"
WAYS: dict[str, dict[str, str]] = {
    STOCK: {"prefix_sharing": "off", "answers_only": "off"},
    OURS: {},
    FRAMES: {"frame_cache": "frames"},
    FEATURES: {"feature_cache": "features"},
}
MEDIA, TOWERS = "media", "towers"


class Clock(TrainerCallback):
    """Seconds and calls by part in each epoch; of calls within calls, the outermost has the seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self.epochs: list[dict[str, Any]] = []
        self._runs = False

    def time(self, owner: Any, name: str, part: str) -> None:
        """Time a function of a module or a class from now on."""
        original: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            self.calls[name] = self.calls.get(name, 0) + 1
            if self._runs:
                return original(*args, **kwargs)
            self._runs, start = True, time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                self._runs = False
                self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - start

        setattr(owner, name, timed)

    def on_epoch_begin(self, *args: Any, **kwargs: Any) -> None:
        """What came before does not count."""
        self.seconds, self.calls = {}, {}

    def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        """Keep the epoch's."""
        decoded, encoded = self.calls.get("read_clip", 0), self.calls.get("features", 0)
        self.epochs.append({**self.seconds, "clips decoded": decoded, "tower passes": encoded})


def train(folder: str, way: str) -> dict[str, Any]:
    """Two epochs of one way in this process."""
    from llamafactory.train.tuner import run_exp

    from hound_plugin.host import bad_media, mm_plugin, tower_step
    from hound_plugin.model.vision import LlavaHoundTower
    from hound_plugin.processing import video_processor

    clock = Clock()
    for owner in (bad_media, mm_plugin):
        clock.time(owner, "read_media", MEDIA)
    clock.time(tower_step, "with_features", TOWERS)
    clock.time(LlavaHoundTower, "features", TOWERS)
    clock.time(video_processor, "read_clip", MEDIA)
    settings = {
        name: str(Path(folder, value)) if name.endswith("cache") else value for name, value in WAYS[way].items()
    }
    values = arguments(
        folder, "dpo", settings, dataset="pairs", output_dir=f"{folder}/{way}", num_train_epochs=2, save_strategy="no",
        per_device_train_batch_size=1, logging_steps=1000,
    )  # fmt: skip
    del values["remove_unused_columns"]
    run_exp(values, callbacks=[clock])
    return {"epochs": clock.epochs}


def prepare(folder: str, chosen: argparse.Namespace) -> None:
    """A model, clips and a pair about each."""
    size = 28 if chosen.small else 224
    config = configuration(128, 1, released_towers=not chosen.small, image_size=size)
    config.video_tower_config.num_hidden_layers = chosen.blocks + 1  # the last one's output is not used
    write_model(folder, config)
    rows = []
    for number in range(chosen.clips):
        path = write_clip(Path(folder, f"{number}.mp4"), chosen.seconds, chosen.height, number)
        rows.append({"video": str(path), "prompt": "<video>\nWhat moves?", "chosen": "Stripes.", "rejected": "No."})
    Path(folder, "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    info = {"pairs": {"file_name": "pairs.jsonl", "formatting": "hound", "ranking": True}}
    Path(folder, "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")


def table_of(results: dict[str, dict[str, Any]], clips: int) -> Table:
    """Milliseconds a clip in both epochs."""
    rows = []
    for way, result in results.items():
        for number, epoch in enumerate(result["epochs"], 1):
            each = [1000 * epoch.get(part, 0.0) / clips for part in (MEDIA, TOWERS)]
            share = total(epoch) / total(results[STOCK]["epochs"][1])
            rows.append(
                [way, str(number), *(f"{part:.1f}" for part in each), str(epoch["clips decoded"]),
                 str(epoch["tower passes"]), f"{share:.4f}"]
            )  # fmt: skip
    columns = ["way", "epoch", "media, ms a clip", "towers, ms a clip", "clips decoded", "tower passes"]
    return Table("Two epochs of DPO", [*columns, "share of the host's second epoch"], rows)


def total(epoch: dict[str, Any]) -> float:
    """Seconds of media and towers."""
    return float(epoch.get(MEDIA, 0.0) + epoch.get(TOWERS, 0.0))


def main() -> None:
    """Print the table."""
    options = parser(__doc__, clips=4, seconds=10, height=360, blocks=2)
    options.add_argument("--small", action="store_true", help="small towers, to see that the script runs")
    options.add_argument("--child", nargs=2, metavar=("FOLDER", "WAY"), help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.child:
        print_result(train(*chosen.child))
        return
    with tempfile.TemporaryDirectory() as folder:
        prepare(folder, chosen)
        results = {way: run_child(__file__, folder, way) for way in WAYS}
    stock, cached = results[STOCK]["epochs"], results[FEATURES]["epochs"]
    frames = results[FRAMES]["epochs"]
    share, read_again = total(cached[1]) / total(stock[1]), frames[1][MEDIA] / frames[0][MEDIA]
    work = cached[1]["clips decoded"] + cached[1]["tower passes"]
    goals = [
        Goal("second epoch with feature_cache, media and towers, share of the host's", share, most=0.02),
        Goal("clips decoded and tower passes in that epoch", work, most=0),
        Goal("second epoch of a training with frame_cache, media, share of the first", read_again, most=0.05),
    ]
    size = (
        f"{chosen.clips} clips of {chosen.seconds} s, {chosen.height}p; {'small towers' if chosen.small else 'towers'} "
        f"of {chosen.blocks} blocks"
    )
    Report("feature_cache", size, [table_of(results, chosen.clips)], goals, results).finish(chosen.out)


if __name__ == "__main__":
    main()
