"""Where the time of a DPO step goes, by PyTorch's profiler, and how near it is to the bound of its arithmetic.

One profiled step of each way of ``preference_step.py``, after one that warms up, in a process each. Operators are
counted with the time that they take themselves. The bound is the number of floating-point operations of the language
model divided by what a plain product of two large matrices reaches on this machine. The defaults take about three
minutes on two idle cores.

    python benchmarks/profile_step.py [--hidden 1024] [--layers 4] [--prompt 2100] [--answer 64] [--pairs 1]
        [--towers] [--lora] [--no-checkpointing] [--out FILE]
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from arithmetic import flops
from preference_step import SHARED, STOCK, STORED, prepare
from report import Report, Table, parser
from side_by_side import add_model_options, configuration, print_result, run_children, size_of

KINDS: dict[str, tuple[str, ...]] = {
    "attention": ("scaled_dot_product", "flash_attention"),
    "products of matrices": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"),
    "softmax and loss": ("softmax", "logsumexp", "nll_loss", "cross_entropy", "logsigmoid", "log_sigmoid"),
    "copies and gathers": (
        "copy_", "aten::cat", "aten::index", "gather", "scatter", "clone", "fill_", "zero_", "embedding", "masked",
        "slice_backward", "select_backward",
    ),
}  # fmt: skip
REST = "element by element, and the rest"
WAYS = (STOCK, SHARED, STORED)


def kind_of(operator: str) -> str:
    """The first kind whose names are in an operator's."""
    return next((kind for kind, names in KINDS.items() if any(name in operator for name in names)), REST)


def profile(folder: str, way: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """Seconds by kind of operator and by phase, and operations a second of a product of matrices."""
    model, step = prepare(folder, way, chosen)
    step().backward()
    model.zero_grad()
    start = time.perf_counter()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        loss = step()
        forward = time.perf_counter() - start
        loss.backward()
    whole = time.perf_counter() - start
    kinds = dict.fromkeys([*KINDS, REST], 0.0)
    events = profiler.key_averages()
    for event in events:
        kinds[kind_of(event.key)] += event.self_cpu_time_total / 1e6
    longest = sorted(events, key=lambda event: -event.self_cpu_time_total)[:8]
    return {
        "seconds": whole, "forward": forward, "kinds": kinds, "product": product_speed(),
        "operators": {event.key: [event.self_cpu_time_total / 1e6, event.count] for event in longest},
    }  # fmt: skip


def product_speed(side: int = 2048) -> float:
    """Operations a second of a product of two square matrices in float32: the best of five."""
    left, right = torch.randn(side, side), torch.randn(side, side)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        left @ right
        times.append(time.perf_counter() - start)
    return 2 * side**3 / min(times)


def operations(way: str, chosen: argparse.Namespace) -> float:
    """Floating-point operations of the language model in a step."""
    passes = (3 if way == STORED else 4) + (0 if chosen.no_checkpointing else 1)
    config = configuration(chosen.hidden, chosen.layers, chosen.towers).text_config
    ours = way != STOCK
    return chosen.pairs * flops(config, passes, 2, chosen.prompt, chosen.answer, shares_prompt=ours, answers_only=ours)


def main() -> None:
    """Print the tables."""
    options = parser(__doc__, hidden=1024, layers=4, prompt=2100, answer=64, pairs=1)
    add_model_options(options)
    chosen = options.parse_args()
    if chosen.child:
        print_result(profile(*chosen.child, chosen))
        return
    results = run_children(__file__, chosen, WAYS)
    Report(
        "profile_step", f"{size_of(chosen)}, {chosen.pairs} pair(s)", tables_of(results, chosen), [], results
    ).finish(chosen.out)


def tables_of(results: dict[str, dict[str, Any]], chosen: argparse.Namespace) -> list[Table]:
    """Time by kind, the bound, and the longest operators of our step."""
    kinds = []
    for kind in [*KINDS, REST]:
        cells = []
        for way in WAYS:
            seconds = results[way]["kinds"][kind]
            cells.append(f"{seconds:.2f} ({seconds / sum(results[way]['kinds'].values()):.0%})")
        kinds.append([kind, *cells])
    kinds.append(["forward, with the reference's", *(f"{results[way]['forward']:.2f}" for way in WAYS)])
    kinds.append(["whole step", *(f"{results[way]['seconds']:.2f}" for way in WAYS)])
    bounds = []
    best = max(result["product"] for result in results.values())
    for way in WAYS:
        count, seconds = operations(way, chosen), results[way]["seconds"]
        bounds.append(
            [way, f"{count / 1e12:.2f}", f"{count / best:.2f}", f"{seconds:.2f}", f"{count / best / seconds:.0%}"]
        )
    operators = [
        [name, f"{seconds:.2f}", str(count)] for name, (seconds, count) in results[SHARED]["operators"].items()
    ]
    return [
        Table("Seconds of a DPO step by kind of operator", ["operators", *WAYS], kinds),
        Table(
            f"The bound: arithmetic of the language model at {best / 1e9:.0f} GFLOPS",
            ["way", "TFLOP", "least seconds", "seconds", "share"],
            bounds,
        ),
        Table(f"The longest operators: {SHARED}", ["operator", "s", "calls"], operators),
    ]


if __name__ == "__main__":
    main()
