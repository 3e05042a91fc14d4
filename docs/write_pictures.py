"""Writes ``docs/layers.svg``, the table in ``docs/architecture.md`` and ``docs/data_flow.svg``.

``python docs/write_pictures.py``. The layers are read from the import statements of ``hound_plugin/``; a test compares
the files with what this writes.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from html import escape
from itertools import pairwise
from pathlib import Path

DOCS = Path(__file__).resolve().parent
PACKAGE = "hound_plugin"
ROOT = DOCS.parent / PACKAGE
LAYERS, FLOW, PAGE = DOCS / "layers.svg", DOCS / "data_flow.svg", DOCS / "architecture.md"
BEGIN, END = "<!-- written by docs/write_pictures.py -->\n", "<!-- end -->\n"

Graph = dict[str, set[str]]
Box = tuple[float, float, float, float]  # left, top, width, height

_TIP = 'marker-end="url(#tip)"'
_STYLE = (
    "<style>text{font:13px sans-serif;fill:#1b2733}.name{font-weight:bold}.small{font-size:11px;fill:#52616f}"
    "path{fill:none;stroke:#5b7083;stroke-width:1.4}</style>"
    '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
    'orient="auto-start-reverse"><path d="M0 0L8 4L0 8z" style="fill:#5b7083;stroke:none"/></marker></defs>'
)


# --- the imports


def import_graph(root: Path = ROOT) -> Graph:
    """Folder or top module of the package -> those that it imports, at any place; the package itself is left out."""
    graph: Graph = {}
    for file in sorted(root.rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        if parts == ("__init__",):
            continue
        imported = set(_imports(ast.parse(file.read_text(encoding="utf-8")), (PACKAGE, *parts[:-1])))
        graph.setdefault(parts[0], set()).update(imported - {parts[0]})
    names = set(graph)
    return {name: imported & names for name, imported in graph.items()}


def _imports(tree: ast.AST, package: tuple[str, ...]) -> Iterator[str]:
    """Top names below the package that a module imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            full = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            full = [[*base, alias.name] for alias in node.names]
        else:
            continue
        yield from (name[1] for name in full if name[0] == PACKAGE and len(name) > 1)


def reduced(graph: Graph) -> Graph:
    """The graph without the arrows that follow from others; folders that import each other keep theirs."""
    left = {name: set(imported) for name, imported in graph.items()}
    for name, imported in sorted(graph.items()):
        for below in sorted(imported):
            if name not in graph[below] and below in _reached(left, left[name] - {below}):
                left[name].discard(below)
    return left


def _reached(graph: Graph, starts: set[str]) -> set[str]:
    """Everything that is imported from ``starts``, in one step or several."""
    seen: set[str] = set()
    waiting = sorted(starts)
    while waiting:
        for below in graph[waiting.pop()] - seen:
            seen.add(below)
            waiting.append(below)
    return seen


def rows_of(graph: Graph) -> list[list[str]]:
    """Folders by layer, the lowest first: each stands above everything that it imports (circles aside)."""
    level = dict.fromkeys(graph, 0)
    for _ in graph:
        for name, imported in graph.items():
            straight = [level[below] for below in imported if name not in graph[below]]
            level[name] = max([level[name], *(depth + 1 for depth in straight)])
    for name, imported in graph.items():  # what imports nothing stands right below those that import it
        users = [level[user] for user in graph if name in graph[user]]
        level[name] = level[name] if imported or not users else min(users) - 1
    rows: list[list[str]] = [[] for _ in range(max(level.values()) + 1)]
    for name in sorted(graph):
        rows[level[name]].append(name)
    return rows


_PURPOSES = {
    "backoff": "how long to wait before another try",
    "child_processes": "processes that end with their parent",
    "command_line": "what several commands share: a YAML file with overrides, and lines for the user",
    "cli": "the command `hound`, and the only place where the parts are put together",
    "corpus": "the original's data: list, download, extract, validate, convert",
    "demo": "the embedded example: tiny model, clips, questions, and the job of `make demo`",
    "doctor": "`hound doctor`: is this environment fit?",
    "errors": "every error, as one tree",
    "host": "the only part that imports LLaMA-Factory: activation, template, collator, checks, chat, API, web pages",
    "judge": "prompts, strict parsing and back ends of judges",
    "llm": "requests to language models: ledger, client, throttle, batches",
    "media": "clips and images to frames: which ones, how they are read, is the file whole, caches",
    "model": "towers, projector, language model; checkpoints of both layouts; answers",
    "pages": "pages that people look at: frames, answers, pairs, filters, charts; a site for this machine alone",
    "own_model": "our model behind the interfaces of reward and evaluation",
    "moved": "earlier names of modules, which still work",
    "processing": "frames to pixels, conversations to exact tokens",
    "records": "rows of every shape to one typed record or named problems; paths, files, locks",
    "engines": "where work runs: this process, or Ray Data on one machine or many",
    "reward": "preference data: answers, scores, pairs, report, rounds",
    "evaluation": "suites of questions, predictions, judgements, tables with intervals, comparison of runs, captions",
    "settings": "the `hound:` block",
    "vllm": "the model in vLLM, and the only part that imports it",
    "version": "the version of the package",
    "validation": "settings as pydantic models, with every problem in one message",
}


def purpose_of(name: str, root: Path = ROOT) -> str:
    """What a folder or module is for; of one that is not listed above, the beginning of its docstring."""
    if name in _PURPOSES:
        return _PURPOSES[name]
    file = root / name / "__init__.py" if (root / name).is_dir() else root / f"{name}.py"
    text = " ".join((ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split())
    return re.split(r"(?<=[.:;])\s|\.$", text, maxsplit=1)[0].rstrip(".:;").replace("``", "`")


# --- drawing


def layers_svg(graph: Graph) -> str:
    """The layers from the top (``cli``) down; an arrow leads from a folder to one that it imports."""
    rows, arrows = rows_of(graph)[::-1], reduced(graph)
    depth = {name: number for number, row in enumerate(rows) for name in row}
    paths, slots = {}, [list(row) for row in rows]
    for name in sorted(arrows):
        for below in sorted(arrows[name]):
            between = [f"{name}>{below}:{row}" for row in range(depth[name] + 1, depth[below])]
            for slot in between:  # an arrow past a row has a place of its own in it
                slots[int(slot.rpartition(":")[2])].append(slot)
            paths[name, below] = [name, *between, below]
    centres = _centres(slots, paths)
    boxes = {name: (centres[name] - 60, 14 + depth[name] * _GAP, 120.0, 40.0) for name in graph}
    parts = [_arrow(path, centres, boxes) for _, path in sorted(paths.items())]
    parts += [_box(box, name + ("/" if (ROOT / name).is_dir() else "")) for name, box in sorted(boxes.items())]
    return _svg(max(centres.values()) + 80, len(rows) * _GAP - 16, parts)


_GAP = 84.0


def _centres(slots: list[list[str]], paths: dict[tuple[str, str], list[str]]) -> dict[str, float]:
    """Where each box and each passing arrow stands in its row, near what it is joined to."""
    joined: dict[str, list[str]] = {slot: [] for row in slots for slot in row}
    for path in paths.values():
        for one, other in pairwise(path):
            joined[one].append(other)
            joined[other].append(one)
    centres: dict[str, float] = {}
    for row in slots:
        centres.update(_spread(row, {slot: float(place) for place, slot in enumerate(row)}))
    for _ in range(24):
        for row in [*slots, *reversed(slots)]:
            wanted = {slot: sum(centres[other] for other in joined[slot]) / max(1, len(joined[slot])) for slot in row}
            centres.update(_spread(sorted(row, key=lambda slot: (wanted[slot], slot)), wanted))
    least = min(x - (20 if ">" in slot else 80) for slot, x in centres.items())
    return {slot: x - least for slot, x in centres.items()}


def _spread(row: list[str], wanted: dict[str, float]) -> dict[str, float]:
    """Centres of one row from left to right, each as near to what is wanted as the one before it allows."""
    placed: dict[str, float] = {}
    right = None
    for slot in row:
        half = 16.0 if ">" in slot else 74.0
        placed[slot] = wanted[slot] if right is None else max(wanted[slot], right + half)
        right = placed[slot] + half
    shift = sum(wanted[slot] - placed[slot] for slot in row) / len(row)
    return {slot: x + shift for slot, x in placed.items()}


def _arrow(path: list[str], centres: dict[str, float], boxes: dict[str, Box]) -> str:
    """Down from a box, past others, to another box; straight between folders that import each other."""
    start, end = boxes[path[0]], boxes[path[-1]]
    if start[1] == end[1]:
        sign, y = (1, start[1] + 15) if start[0] < end[0] else (-1, start[1] + 27)
        return f'<path d="M{centres[path[0]] + 60 * sign:.0f} {y:.0f}H{centres[path[-1]] - 62 * sign:.0f}" {_TIP}/>'
    points = [(centres[path[0]], start[1] + start[3])]
    for slot in path[1:-1]:
        top = 14 + int(slot.rpartition(":")[2]) * _GAP
        points += [(centres[slot], top), (centres[slot], top + 40)]
    points.append((centres[path[-1]], end[1] - 1))
    line = f"M{points[0][0]:.0f} {points[0][1]:.0f}"
    for (x1, y1), (x2, y2) in pairwise(points):
        middle = (y2 - y1) / 2
        line += f"C{x1:.0f} {y1 + middle:.0f} {x2:.0f} {y2 - middle:.0f} {x2:.0f} {y2:.0f}"
    return f'<path d="{line}" {_TIP}/>'


def _box(box: Box, name: str, *lines: str, fill: str = "#e8f1f5") -> str:
    left, top, width, height = box
    middle = left + width / 2
    first = top + height / 2 + 4.5 - 8 * len(lines)
    text = f'<text class="name" x="{middle:.0f}" y="{first:.0f}" text-anchor="middle">{escape(name)}</text>'
    for number, line in enumerate(lines, 1):
        text += (
            f'<text class="small" x="{middle:.0f}" y="{first + 16 * number:.0f}" text-anchor="middle">'
            f"{escape(line)}</text>"
        )
    return (
        f'<rect x="{left:.0f}" y="{top:.0f}" width="{width:.0f}" height="{height:.0f}" rx="6" fill="{fill}" '
        f'stroke="#5b7083"/>{text}'
    )


def _svg(width: float, height: float, parts: Iterable[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}">'
    return "\n".join([head, _STYLE, '<rect width="100%" height="100%" fill="#ffffff"/>', *parts, "</svg>"]) + "\n"


def layers_table(graph: Graph) -> str:
    """Every folder with what it is for and all that it imports."""
    lines = ["| layer | what it is for | imports |", "|---|---|---|"]
    for row in reversed(rows_of(graph)):
        for name in row:
            shown = name + ("/" if (ROOT / name).is_dir() else ".py")
            imported = ", ".join(f"`{below}`" for below in sorted(graph[name])) or "nothing of the package"
            lines.append(f"| `{shown}` | {purpose_of(name)} | {imported} |")
    return "\n".join(lines) + "\n"


# --- the data flow: what is made from what; the folder that does it stands in each box

_STEPS: dict[str, tuple[Box, tuple[str, ...]]] = {
    "records": ((150, 20, 140, 62), ("rows of any shape", "to one typed record")),
    "media": ((150, 120, 140, 62), ("clips, images, folders", "to the frames to see")),
    "processing": ((340, 70, 140, 62), ("pixels and the", "exact prompt tokens")),
    "model": ((530, 70, 140, 62), ("towers, projector,", "language model")),
    "host": ((720, 70, 140, 62), ("LLaMA-Factory: train,", "chat, API, web UI")),
    "reward": ((340, 230, 140, 62), ("answers sampled,", "pairs chosen")),
    "judge": ((150, 230, 140, 62), ("scores 1 to 5", "or none")),
}
_ENDS: dict[str, Box] = {
    "your data": (10, 32, 100, 38), "corpus/": (10, 82, 100, 38), "your clips": (10, 132, 100, 38),
    "preference pairs": (530, 242, 140, 38),
}  # fmt: skip
_ARROWS = [
    "M110 51H148", "M110 101C132 101 128 62 148 58", "M110 101C132 101 128 140 148 144", "M110 151H148",
    "M290 51C318 51 314 92 338 94", "M290 151C318 151 314 110 338 108", "M480 101H528", "M670 101H718",
    "M590 132C590 200 410 160 410 228", "M292 254H338", "M338 270H292", "M480 261H528",
    "M670 261C760 261 790 220 790 134",
]  # fmt: skip


def flow_svg() -> str:
    """From rows and clips to training and serving, and by way of the judge to preference pairs for DPO."""
    parts = [f'<path d="{line}" {_TIP}/>' for line in _ARROWS]
    parts += [_box(box, name + "/", *lines) for name, (box, lines) in _STEPS.items()]
    parts += [_box(box, name, fill="#fff6e0") for name, box in _ENDS.items()]
    parts += [
        f'<text class="small" x="{x}" y="{y}">{escape(text)}</text>'
        for x, y, text in ((596, 172, "samples answers"), (800, 196, "DPO"))
    ]
    return _svg(870, 306, parts)


def page(graph: Graph, text: str) -> str:
    """The architecture page with its table renewed."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{layers_table(graph)}{END}{after}"


if __name__ == "__main__":
    found = import_graph()
    LAYERS.write_text(layers_svg(found), encoding="utf-8")
    FLOW.write_text(flow_svg(), encoding="utf-8")
    PAGE.write_text(page(found, PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.stdout.write(f"written to {LAYERS}, {FLOW} and {PAGE}\n")
