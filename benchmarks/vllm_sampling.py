"""Six sampled answers about each of 200 demo clips: our own model, and the same checkpoint in vLLM's engine.

The ways run one after the other, each in its own process, timed without their start: by the clock, and by the
seconds that all of their processes spent on cores, which other work on the machine changes little. Run in `.venv-vllm`:

    .venv-vllm/bin/python benchmarks/vllm_sampling.py [DEMO] [--model DIR] [--clips 200] [--answers 6] [--tokens 32]

DEMO is a folder of `hound demo`; by default the script makes a small one. Without --model it is DEMO/runs/dpo if
that is there, or else the untrained DEMO/model.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

WAYS = ("one clip at a time (`backend: model`)", "8 clips side by side (`sample_many`)", "vLLM (`backend: vllm`)")


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
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
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


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("demo", nargs="?")
    parser.add_argument("--model")
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--answers", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--way", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        demo = Path(chosen.demo or made)
        if chosen.demo is None:
            from hound_plugin.demo.build import build_demo
            from hound_plugin.demo.model import write_model

            build_demo(demo, train_clips=8, held_out_clips=2 * chosen.clips, write_model=write_model, progress=False)
        trained = demo / "runs" / "dpo"
        model = chosen.model or str(trained if trained.is_dir() else demo / "model")
        if chosen.way is not None:
            result = run(chosen.way, model, read_items(demo, chosen.clips), chosen.answers, chosen.tokens)
            print(json.dumps(result))
            return
        _compare(demo, model, chosen)


def _compare(demo: Path, model: str, chosen: argparse.Namespace) -> None:
    import torch

    print(f"{platform.platform()}, {os.cpu_count()} cores, torch {torch.__version__}, float32")
    print(f"{chosen.clips} clips, {chosen.answers} answers each, at most {chosen.tokens} tokens\n")
    print("| way | s | rows/s | times faster | s on cores | times less | questions with different answers |")
    print("|---|---|---|---|---|---|---|", flush=True)
    first: dict[str, Any] = {}
    for number, way in enumerate(WAYS):
        command = [sys.executable, __file__, str(demo), "--model", model, "--way", str(number)]
        for name in ("clips", "answers", "tokens"):
            command += [f"--{name}", str(getattr(chosen, name))]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr[-3000:])
        result = json.loads(done.stdout.splitlines()[-1])
        first = first or result
        rate = result["answers"] / result["seconds"]
        print(
            f"| {way} | {result['seconds']:.1f} | {rate:.1f} | {first['seconds'] / result['seconds']:.2f} | "
            f"{result['cores']:.1f} | {first['cores'] / result['cores']:.2f} | "
            f"{result['different']} of {chosen.clips} |",
            flush=True,
        )
    hits, looked_for = result["hits"]
    print(f"\nprefix cache of vLLM: {hits} of {looked_for} tokens of prompts ({hits / looked_for:.0%})")


if __name__ == "__main__":
    main()
