"""Writes the figures of ``performance.md`` and ``scale.md``, ``performance_cost.svg`` and ``performance_profile.svg``.

``python docs/write_performance.py``. All figures come from ``benchmarks/results/*.json``, which the scripts in
``benchmarks/`` write; a test compares the files with what this writes.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
RESULTS = DOCS.parent / "benchmarks" / "results"
PAGE, COST, PROFILE = DOCS / "performance.md", DOCS / "performance_cost.svg", DOCS / "performance_profile.svg"
PAGES = (PAGE, DOCS / "scale.md")
END = "<!-- end -->\n"
HOST, OURS = "host's own step", "answers only, shared prompts"
SHOWN = {
    "sweep": (COST, "Seconds and memory of a DPO step by prompt, answer, frames and pairs, the host's own and ours"),
    "profile_step": (PROFILE, "Seconds of a DPO step by kind of operator, the host's own and ours"),
}
"""Pictures by benchmark, with what they show."""
GOALS = (
    "preference_step",
    "preference_step_no_checkpointing",
    "grouped_questions",
    "feature_cache",
    "media",
    "sampling",
    "vllm_sampling",
)
"""Benchmarks with goals, in the order of the page."""


def results(folder: Path = RESULTS) -> dict[str, Any]:
    """What each benchmark wrote, by its name."""
    read = (json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json")))
    return {values["benchmark"]: values for values in read}


# --- tables


def page(text: str, found: dict[str, Any]) -> str:
    """The page with its tables renewed: each stands between ``<!-- results: NAME -->`` and ``<!-- end -->``."""

    def renewed(match: re.Match[str]) -> str:
        name = match["name"]
        return f"<!-- results: {name} -->\n{goals(found) if name == 'goals' else section(name, found)}{END}"

    return re.sub(r"<!-- results: (?P<name>\w+) -->\n.*?<!-- end -->\n", renewed, text, flags=re.S)


def goals(found: dict[str, Any]) -> str:
    """The goals of all benchmarks that have been run."""
    rows = [
        [goal["name"], goal["limit"], f"{goal['value']:.3g}", "yes" if goal["is_met"] else "no"]
        for name in GOALS
        if name in found
        for goal in found[name]["goals"]
    ]
    return table(["", "goal", "measured", "reached"], rows) if rows else "\nNothing has been measured yet.\n\n"


def section(name: str, found: dict[str, Any]) -> str:
    """A benchmark's command, machine, size and tables."""
    if name not in found:
        script, _, option = name.partition("_no_")
        return f"\n`python benchmarks/{script}.py{f' --no-{option}' if option else ''}` has not been run.\n\n"
    values = found[name]
    where = values["machine"]
    machine = (
        f"{where['processor']}, {where['cores']} cores, {where['memory_gib']} GiB; torch {where['torch']}, "
        f"transformers {where['transformers']}"
    )
    parts = [f"\n`{values['command']}`: {values['size']}. {machine}.\n"]
    if name in SHOWN:
        picture, text = SHOWN[name]
        parts.append(f"\n![{text}]({picture.name})\n")
    parts += [f"\n{one['title']}:\n{table(one['columns'], one['rows'])}" for one in values["tables"]]
    return "".join(parts)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown, between empty lines."""
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns), *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n" + "\n".join(lines) + "\n\n"


# --- pictures

_WIDTH, _HEIGHT, _LEFT, _TOP = 300, 170, 52, 30
_COLOURS = {HOST: "#b04a3a", OURS: "#1f7a8c"}
_STYLE = (
    "<style>text{font:12px sans-serif;fill:#1b2733}.name{font-weight:bold}.small{font-size:11px;fill:#52616f}</style>"
)
_SHADES = ("#1f7a8c", "#7fb2be", "#b04a3a", "#d9a441", "#9aa5ae")


def cost_svg(sweep: dict[str, Any]) -> str:
    """Seconds above, memory below, for each size that changes."""
    parts = []
    for column, (series, shown) in enumerate(zip(sweep["raw"], sweep["tables"], strict=True)):
        for row, (key, unit, scale) in enumerate((("seconds", "seconds", 1.0), ("mebibytes", "GiB", 1024.0))):
            lines = {
                way: [(float(value), point[key] / scale) for value, point in sorted_points(points)]
                for way, points in sweep["raw"][series].items()
            }
            left, top = column * (_WIDTH + 24) + _LEFT, row * (_HEIGHT + 70) + _TOP
            parts += panel(left, top, lines, f"{unit} by {shown['columns'][0]}")
    for number, (way, colour) in enumerate(_COLOURS.items()):
        x, y = _LEFT + 240 * number, 2 * (_HEIGHT + 70) + 18
        parts.append(f'<rect x="{x}" y="{y - 10}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{x + 18}" y="{y}">{escape(way)}</text>')
    return svg(len(sweep["raw"]) * (_WIDTH + 24) + 10, 2 * (_HEIGHT + 70) + 34, parts)


def sorted_points(points: dict[str, Any]) -> list[tuple[str, Any]]:
    """Points from the least value to the greatest."""
    return sorted(points.items(), key=lambda point: float(point[0]))


def panel(left: float, top: float, lines: dict[str, list[tuple[float, float]]], title: str) -> list[str]:
    """A chart of lines, both axes from zero."""
    width, height = _WIDTH - _LEFT, _HEIGHT
    most_x = max(x for points in lines.values() for x, _ in points)
    most_y = nice(max(y for points in lines.values() for _, y in points))
    parts = [f'<text class="name" x="{left}" y="{top - 10}">{escape(title)}</text>']
    for number in range(5):
        value = most_y * number / 4
        y = top + height * (1 - number / 4)
        parts.append(f'<path d="M{left:.0f} {y:.0f}h{width}" stroke="#dde4ea"/>')
        parts.append(f'<text class="small" x="{left - 6:.0f}" y="{y + 4:.0f}" text-anchor="end">{value:g}</text>')
    for value in sorted({x for points in lines.values() for x, _ in points}):
        x = left + width * value / most_x
        parts.append(
            f'<text class="small" x="{x:.0f}" y="{top + height + 16:.0f}" text-anchor="middle">{value:g}</text>'
        )
    for way, points in lines.items():
        colour = _COLOURS[way]
        places = [(left + width * x / most_x, top + height * (1 - y / most_y)) for x, y in points]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts.append(f'<path d="M{path}" stroke="{colour}" stroke-width="2" fill="none"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
    return parts


def nice(most: float) -> float:
    """The end of an axis: four round steps that reach this far."""
    step = 10.0 ** (len(str(int(most))) - 2) if most >= 1 else 0.01
    return next(4 * step * factor for factor in (1, 2, 2.5, 5, 10, 20, 25, 50) if 4 * step * factor >= most)


def profile_svg(profile: dict[str, Any]) -> str:
    """A bar a way, with the seconds of each kind of operator in it."""
    ways = profile["raw"]
    longest = max(sum(result["kinds"].values()) for result in ways.values())
    parts = []
    for row, (way, result) in enumerate(ways.items()):
        x, y = 10.0, 24 + 62.0 * row
        parts.append(f'<text class="name" x="10" y="{y - 6:.0f}">{escape(way)}: {result["seconds"]:.1f} s</text>')
        for shade, (kind, seconds) in zip(_SHADES, result["kinds"].items(), strict=True):
            width = 860 * seconds / longest
            named = f"<title>{escape(kind)}: {seconds:.2f} s</title>"
            parts.append(f'<rect x="{x:.1f}" y="{y:.0f}" width="{width:.1f}" height="26" fill="{shade}">{named}</rect>')
            x += width
    y = 24 + 62 * len(ways)
    for number, (shade, kind) in enumerate(zip(_SHADES, next(iter(ways.values()))["kinds"], strict=True)):
        x = 10 + 164 * number
        parts.append(f'<rect x="{x}" y="{y - 10}" width="12" height="12" fill="{shade}"/>')
        parts.append(f'<text class="small" x="{x + 17}" y="{y}">{escape(kind)}</text>')
    return svg(880, y + 14, parts)


def svg(width: float, height: float, parts: Sequence[str]) -> str:
    """A picture on white."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}">'
    return "\n".join([head, _STYLE, '<rect width="100%" height="100%" fill="#ffffff"/>', *parts, "</svg>"]) + "\n"


def pictures(found: dict[str, Any]) -> dict[Path, str]:
    """The pictures of what has been measured."""
    drawn = {"sweep": cost_svg, "profile_step": profile_svg}
    return {SHOWN[name][0]: draw(found[name]) for name, draw in drawn.items() if name in found}


if __name__ == "__main__":
    measured = results()
    pages = {file: page(file.read_text(encoding="utf-8"), measured) for file in PAGES}
    for file, content in {**pages, **pictures(measured)}.items():
        file.write_text(content, encoding="utf-8")
        sys.stdout.write(f"written to {file}\n")
