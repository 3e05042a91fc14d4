"""Six sampled answers about each of the demo's clips: our own model, and the same checkpoint in vLLM's engine.

Each way runs in a process of its own with all cores, one at a time, and is timed without its start: by the
clock, and by the seconds that all of their processes spent on cores. A size other than `demo` is the demo's checkpoint
with a language model of that width and depth and random weights, whose answers hardly ever end early. Run in
`.venv-vllm`:

    .venv-vllm/bin/python benchmarks/vllm_sampling.py [DEMO] [--sizes demo 512x8 1024x8] [--clips 200 40 200]
        [--answers 6] [--tokens 32] [--out FILE]

DEMO is a folder of `hound demo`; by default the script makes a small one. Its checkpoint is DEMO/runs/dpo if that is
there, or else the untrained DEMO/model.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from report import Goal, Report, Table, parser

WAYS = (
    "one clip at a time (`backend: model`)",
    "8 clips side by side (the same with `batch_size: 48`)",
    "vLLM (`backend: vllm`)",
)


def read_items(demo: Path, count: int) -> list[tuple[str, str]]:
    """A question about each of ``count`` clips."""
    items: dict[str, tuple[str, str]] = {}
    for name in ("held_out_questions", "demo_sft", "reward_questions"):
        for line in (demo / "data" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if "prompt" in row and "video" in row:
                items.setdefault(row["video"], (row["prompt"], str(demo / "clips" / row["video"])))
    if len(items) < count:
        sys.exit(f"expected {count} clips with a question in {demo}, found {len(items)}")
    return list(items.values())[:count]


def core_seconds() -> float:
    """Seconds on cores of this process and of those that it started."""
    here = psutil.Process()
    return sum(sum(process.cpu_times()[:2]) for process in (here, *here.children(recursive=True)))


def run(way: int, model: str, items: list[tuple[str, str]], answers: int, tokens: int) -> dict[str, Any]:
    """Seconds of one way, and what became of the prefix cache."""
    seeds = [[number * answers + draw for draw in range(answers)] for number in range(len(items))]
    settings: dict[str, Any] = {"temperature": 1.0, "top_p": 0.95, "max_new_tokens": tokens}
    hits = None
    if way == 2:
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "4")
        from hound_plugin.vllm.engine import VllmModel

        engine = VllmModel(model, "float32", engine={"enforce_eager": True})
        engine.answer(items[:1], [[0]], **settings)
        start, on_cores = time.perf_counter(), core_seconds()
        texts = [[answer.text for answer in own] for own in engine.answer(items, seeds, **settings)]
        seconds, cores = time.perf_counter() - start, core_seconds() - on_cores
        hits = engine.prefix_cache_hits()
    else:
        from hound_plugin import load
        from hound_plugin.model.answer_sampling import sample_many

        hound, together = load(model, "cpu", "float32"), (1, 8)[way]
        sample_many(hound, items[:1], [[0]], **settings)
        hound.processor.pixel_cache.clear()
        texts = []
        start, on_cores = time.perf_counter(), core_seconds()
        for first in range(0, len(items), together):
            chunk = slice(first, first + together)
            rows = sample_many(hound, items[chunk], seeds[chunk], batch_size=answers * together, **settings)
            texts += [[answer.text for answer in own] for own in rows]
        seconds, cores = time.perf_counter() - start, core_seconds() - on_cores
    different = sum(len(set(own)) > 1 for own in texts)
    answered = {"different": different, "answers": sum(map(len, texts))}
    return {"seconds": seconds, "cores": cores, "hits": hits, **answered}


def sized(model: Path, size: str, folder: Path) -> Path:
    """The checkpoint with a random language model of another width and depth, such as ``512x8``."""
    import transformers

    import hound_plugin

    width, _, depth = size.partition("x")
    config = transformers.AutoConfig.from_pretrained(model)
    text = config.text_config
    text.hidden_size, text.num_hidden_layers = int(width), int(depth)
    text.head_dim, text.intermediate_size = 64, int(width) * 11 // 4
    text.num_attention_heads = text.num_key_value_heads = text.hidden_size // text.head_dim
    transformers.set_seed(0)
    built = hound_plugin.LlavaHoundForConditionalGeneration(config)
    built.save_pretrained(folder)
    hound_plugin.LlavaHoundProcessor.from_pretrained(str(model)).save_pretrained(folder)
    return folder


def measured(way: int, demo: Path, model: Path, clips: int, chosen: argparse.Namespace) -> dict[str, Any]:
    """One way in a process of its own."""
    command = [sys.executable, __file__, str(demo), "--way", str(way), "--model", str(model), "--clips", str(clips)]
    command += ["--answers", str(chosen.answers), "--tokens", str(chosen.tokens)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [line for line in done.stdout.splitlines() if line.startswith('{"seconds"')]
    if done.returncode or not found:
        sys.exit(f"{WAYS[way]} ended with code {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return dict(json.loads(found[-1]))


def main() -> None:
    """Print the tables, and write the file."""
    options = parser(__doc__, answers=6, tokens=32)
    options.add_argument("demo", nargs="?")
    options.add_argument("--sizes", nargs="+", default=["demo", "512x8", "1024x8"])
    options.add_argument("--clips", nargs="+", type=int, default=[200, 40, 200])
    options.add_argument("--model", help=argparse.SUPPRESS)
    options.add_argument("--way", type=int, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.way is not None:
        items = read_items(Path(chosen.demo), chosen.clips[0])
        print(json.dumps(run(chosen.way, chosen.model, items, chosen.answers, chosen.tokens)), flush=True)
        return
    with tempfile.TemporaryDirectory() as made:
        demo = Path(chosen.demo or Path(made, "demo"))
        if chosen.demo is None:
            from hound_plugin.demo.build import build_demo
            from hound_plugin.demo.model import write_model

            count = 2 * max(chosen.clips)
            build_demo(demo, train_clips=8, held_out_clips=count, write_model=write_model, progress=False)
        trained = demo / "runs" / "dpo"
        model = trained if trained.is_dir() else demo / "model"
        size = f"{chosen.answers} answers a clip, at most {chosen.tokens} tokens"
        report = Report("vllm_sampling", size)
        for name, clips in zip(chosen.sizes, chosen.clips, strict=True):
            checkpoint = model if name == "demo" else sized(model, name, Path(made, name))
            ways = [measured(way, demo, checkpoint, clips, chosen) for way in range(len(WAYS))]
            _add(report, name, clips, ways)
        report.finish(chosen.out)


def _add(report: Report, name: str, clips: int, ways: list[dict[str, Any]]) -> None:
    from vllm import __version__

    first, *_, last = ways
    hits, looked_for = last["hits"]
    rows = [
        [
            way,
            f"{result['seconds']:.1f}",
            f"{result['answers'] / result['seconds']:.1f}",
            f"{first['seconds'] / result['seconds']:.2f}",
            f"{first['cores'] / result['cores']:.2f}",
        ]
        for way, result in zip(WAYS, ways, strict=True)
    ]
    model = "the demo's model" if name == "demo" else f"language model {name.replace('x', ' wide, ')} layers"
    shared = f"vLLM {__version__} found {hits / looked_for:.0%} of the prompts' tokens in its prefix cache"
    title = f"{model}, {clips} clips; {shared}"
    columns = ["way", "s", "answers a second", "times faster", "the same by time on cores"]
    report.tables.append(Table(title, columns, rows))
    report.goals.append(Goal(f"vLLM against one clip at a time, {model}", first["seconds"] / last["seconds"], least=3))
    report.raw[name] = dict(zip(WAYS, ways, strict=True))


if __name__ == "__main__":
    main()
