"""What a DPO step costs against the length of prompt and answers, the frames of a clip and the pairs of a batch.

The host's own step against ours (answers only, shared prompts), as in ``preference_step.py``: everything is as given,
but one size at a time changes. Each point is measured once, after a step that warms up; the given size itself stands in
all four series, and shows how far measurements differ. The defaults take about fifteen minutes on two idle cores.

    python benchmarks/sweep.py [--hidden 1024] [--layers 4] [--prompt 2100] [--answer 64] [--pairs 1]
        [--prompts 2100 3000 4000] [--answers 16 64 256 512] [--frames 4 8 16] [--batches 1 2 3] [--out FILE]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from typing import Any

import preference_step
from preference_step import SHARED, STOCK
from report import Report, Table, parser
from side_by_side import (
    PeakMemory,
    add_model_options,
    configuration,
    print_result,
    rows_about_clips,
    run_child,
    size_of,
    write_model,
)

SERIES = {
    "prompts": "tokens of the prompt", "answers": "tokens of an answer", "frames": "frames of the clip",
    "batches": "pairs of the batch",
}  # fmt: skip
FRAMES = 8


def points(chosen: argparse.Namespace) -> dict[str, dict[int, tuple[int, int, int, int]]]:
    """Series -> its value -> frames, prompt, answer and pairs of the point."""
    per_frame = configuration(chosen.hidden, chosen.layers, chosen.towers).tokens_per_video(1)
    text = chosen.prompt - FRAMES * per_frame
    return {
        "prompts": {value: (FRAMES, value, chosen.answer, chosen.pairs) for value in chosen.prompts},
        "answers": {value: (FRAMES, chosen.prompt, value, chosen.pairs) for value in chosen.answers},
        "frames": {value: (value, text + value * per_frame, chosen.answer, chosen.pairs) for value in chosen.frames},
        "batches": {value: (FRAMES, chosen.prompt, chosen.answer, value) for value in chosen.batches},
    }


def measure(folder: str, way: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """All points of one way with the frames of the model in a folder."""
    model, trainer = preference_step.load(folder, way, chosen)
    config = next(part.config for part in model.modules() if hasattr(getattr(part, "config", None), "video_token_id"))
    model.train()
    results: dict[str, dict[str, Any]] = {}
    first = True
    for series, values in points(chosen).items():
        for value, (frames, prompt, answer, pairs) in values.items():
            if frames != config.video_tower_config.num_frames:
                continue
            batch = rows_about_clips(config, pairs, 2, prompt, answer)
            for _ in range(1 + first):
                memory, start = PeakMemory(), time.perf_counter()
                trainer.get_batch_loss_metrics(model, dict(batch))[0].backward()
                seconds = time.perf_counter() - start
                model.zero_grad()
            first = False
            point = {"seconds": seconds, "mebibytes": memory.mebibytes()}
            results.setdefault(series, {})[str(value)] = point
    return results


def main() -> None:
    """Print the tables."""
    options = parser(__doc__, hidden=1024, layers=4, prompt=2100, answer=64, pairs=1)
    for name, default in (
        ("prompts", (2100, 3000, 4000)), ("answers", (16, 64, 256, 512)), ("frames", (4, 8, 16)),
        ("batches", (1, 2, 3)),
    ):  # fmt: skip
        options.add_argument(f"--{name}", type=int, nargs="+", default=default)
    add_model_options(options)
    chosen = options.parse_args()
    if chosen.child:
        print_result(measure(*chosen.child, chosen))
        return
    raw: dict[str, dict[str, dict[str, Any]]] = {series: {STOCK: {}, SHARED: {}} for series in SERIES}
    for frames in sorted({FRAMES, *chosen.frames}):
        with tempfile.TemporaryDirectory() as folder:
            write_model(folder, configuration(chosen.hidden, chosen.layers, chosen.towers, frames=frames))
            for way in (STOCK, SHARED):
                for series, found in run_child(__file__, folder, way).items():
                    raw[series][way] |= found
    tables = [table_of(SERIES[series], raw[series]) for series in SERIES]
    Report("sweep", f"{size_of(chosen)}, {chosen.pairs} pair(s)", tables, [], raw).finish(chosen.out)


def table_of(name: str, ways: dict[str, dict[str, Any]]) -> Table:
    """A line a point of one series."""
    rows = []
    for value in sorted(ways[STOCK], key=int):
        stock, ours = ways[STOCK][value], ways[SHARED][value]
        rows.append(
            [value, f"{stock['seconds']:.2f}", f"{ours['seconds']:.2f}", f"{stock['seconds'] / ours['seconds']:.2f}",
             f"{stock['mebibytes']:.0f}", f"{ours['mebibytes']:.0f}", f"{ours['mebibytes'] / stock['mebibytes']:.2f}"]
        )  # fmt: skip
    columns = [name, "host, s", "ours, s", "times faster", "host, MiB", "ours, MiB", "share"]
    return Table(f"A DPO step by {name}", columns, rows)


if __name__ == "__main__":
    main()
