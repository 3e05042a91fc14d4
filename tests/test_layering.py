"""The layer order of the package, read from its import statements."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
PACKAGE = "hound_plugin"

# Layer -> what it must not import at any place, not even inside a function. The longest matching layer decides.
_TOP = ("host", "corpus", "judge", "reward", "evaluation", "demo", "cli")
FORBIDDEN: dict[str, tuple[str, ...]] = {
    "errors": ("records", "media", "processing", "model", "doctor", *_TOP),
    "records": ("media", "processing", "model", "doctor", *_TOP),
    "media": ("processing", "model", *_TOP),
    "processing": ("model", *_TOP),
    "model": _TOP,
    "model.configuration": ("media", "processing", "model", *_TOP),
    "corpus": ("processing", "model", "host", "judge", "reward", "evaluation", "demo", "cli"),
    "judge": ("processing", "model", "host", "corpus", "reward", "evaluation", "demo", "cli"),
    "reward": ("model", "host", "evaluation", "demo", "cli"),
    "evaluation": ("model", "host", "reward", "demo", "cli"),
    "host": ("cli",),
    "demo": ("cli",),
    "doctor": ("media", "processing", "model", "corpus", "judge", "reward", "evaluation", "demo", "cli"),
}
ALLOWED = {("processing", "model.configuration")}  # (layer, exception to its rule)
WITHOUT_TORCH = ("records", "corpus", "judge", "reward")
HOST = "llamafactory"


def _imports(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything imported; ``package`` resolves relative imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def _matches(name: str, layer: str) -> bool:
    return name == layer or name.startswith(layer + ".")


def violations(root: Path) -> list[str]:
    """``file:line: reason`` for every import in ``root/hound_plugin`` against the rules."""
    found = []
    for file in sorted((root / PACKAGE).rglob("*.py")):
        relative = file.relative_to(root).with_suffix("")
        parts = relative.parts[:-1] if relative.name == "__init__" else relative.parts
        module = ".".join(parts[1:])
        layer = max((name for name in FORBIDDEN if _matches(module, name)), key=len, default="")
        tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
        for line, name in _imports(tree, ".".join(relative.parts[:-1])):
            reason = _reason(layer, name)
            if reason:
                found.append(f"{relative}.py:{line}: {reason}")
    return found


def _reason(layer: str, name: str) -> str:
    if _matches(name, HOST):
        return "" if layer == "host" else f"only host/ imports {HOST}"
    if not name.startswith(PACKAGE + "."):
        return ""
    target = name.removeprefix(PACKAGE + ".")
    if any(layer == source and _matches(target, exception) for source, exception in ALLOWED):
        return ""
    forbidden = next((other for other in FORBIDDEN.get(layer, ()) if _matches(target, other)), None)
    return "" if forbidden is None else f"{layer} must not import {target}"


def test_the_package_keeps_its_layers() -> None:
    assert violations(REPO) == []


BAD_LINES = [
    ("media/decode.py", "from hound_plugin.processing import processor"),
    ("media/decode.py", "import hound_plugin.cli"),
    ("processing/processor.py", "from ..model import modeling"),
    ("processing/processor.py", "from hound_plugin.model.modeling import Model"),
    ("model/configuration.py", "from . import vision"),
    ("model/configuration.py", "from ..media.frame_sampling import pick"),
    ("model/__init__.py", "from ..host import template"),
    ("model/inference.py", "def f():\n    import llamafactory.data"),
    ("reward/implicit.py", "def f():\n    from hound_plugin.model.inference import log_probs"),
    ("evaluation/run.py", "from .. import model"),
    ("judge/client.py", "from hound_plugin.reward import pairs"),
    ("cli.py", "import llamafactory"),
    ("host/template.py", "from hound_plugin import cli"),
]
GOOD_LINES = [
    ("processing/processor.py", "from ..model.configuration import LlavaHoundConfig"),
    ("processing/processor.py", "from hound_plugin.media import decode"),
    ("model/modeling.py", "from .configuration import LlavaHoundConfig"),
    ("host/register.py", "import llamafactory.data.template"),
    ("reward/score.py", "from hound_plugin.judge import client"),
    ("evaluation/score.py", "from ..judge.client import Client"),
    ("cli.py", "from hound_plugin.model import inference"),
]


def _tree(root: Path, name: str, text: str) -> Path:
    file = root / PACKAGE / name
    file.parent.mkdir(parents=True)
    file.write_text(text + "\n")
    return root


@pytest.mark.parametrize(("name", "text"), BAD_LINES)
def test_the_rules_can_be_broken(name: str, text: str, tmp_path: Path) -> None:
    (found,) = violations(_tree(tmp_path, name, text))
    assert found.startswith(f"{PACKAGE}/{name}:")


@pytest.mark.parametrize(("name", "text"), GOOD_LINES)
def test_the_rules_allow_what_is_meant(name: str, text: str, tmp_path: Path) -> None:
    assert violations(_tree(tmp_path, name, text)) == []


IMPORT_WITHOUT_TORCH = """
import importlib, sys
HEAVY = ("torch", "transformers", "llamafactory", "ray")
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HEAVY:
            raise ImportError(f"{name} is imported here, and must not be")
sys.meta_path.insert(0, Blocker())
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def _modules(root: Path, layer: str) -> list[str]:
    files = sorted((root / PACKAGE / layer).rglob("*.py"))
    names = (".".join(file.relative_to(root).with_suffix("").parts) for file in files if file.name != "__main__.py")
    return [name.removesuffix(".__init__") for name in names]


def _import_without_torch(root: Path, names: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(root)!r})\n" + IMPORT_WITHOUT_TORCH]
    return subprocess.run([*command, *names], capture_output=True, text=True, check=False, timeout=120)


def test_corpus_judge_and_reward_import_without_torch() -> None:
    names = [name for layer in (*WITHOUT_TORCH, "doctor") for name in _modules(REPO, layer)]
    done = _import_without_torch(REPO, [PACKAGE, f"{PACKAGE}.cli", *names])
    assert done.returncode == 0, done.stderr


def test_that_check_can_fail(tmp_path: Path) -> None:
    _tree(tmp_path, "judge/client.py", "import torch")
    done = _import_without_torch(tmp_path, _modules(tmp_path, "judge"))
    assert done.returncode != 0
    assert "must not be" in done.stderr


# --- circles


def import_graph(root: Path) -> dict[str, set[str]]:
    """Module -> modules of the package that it imports, at any place."""
    files = {_module_name(root, file): file for file in (root / PACKAGE).rglob("*.py")}
    graph: dict[str, set[str]] = {}
    for name, file in files.items():
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        imported = {full for _, full in _imports(ast.parse(file.read_text(encoding="utf-8")), package)}
        imported |= {full.rpartition(".")[0] for full in imported}  # `from module import name`
        graph[name] = {other for other in imported if other in files and other != name}
    return graph


def _module_name(root: Path, file: Path) -> str:
    return ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Groups of modules of which each imports each other one, in one step or several."""
    reached = {name: _reachable(graph, name) for name in graph}
    groups = {frozenset(other for other in reached[name] if name in reached[other]) for name in graph}
    return [set(group) for group in groups if len(group) > 1]


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for other in graph[waiting.pop()] - found:
            found.add(other)
            waiting.append(other)
    return found


def test_there_is_no_circle_in_the_host_layer_or_below_records() -> None:
    layers = (f"{PACKAGE}.host", f"{PACKAGE}.records", f"{PACKAGE}.validation", f"{PACKAGE}.settings")
    found = [
        group
        for group in circles(import_graph(REPO))
        if any(_matches(name, layer) for name in group for layer in layers)
    ]
    assert found == []


def test_a_circle_is_seen(tmp_path: Path) -> None:
    _tree(tmp_path, "host/one.py", "from hound_plugin.host.two import f")
    (tmp_path / PACKAGE / "host" / "two.py").write_text("def f():\n    from . import three\n")
    (tmp_path / PACKAGE / "host" / "three.py").write_text("import hound_plugin.host.one\n")
    (tmp_path / PACKAGE / "host" / "__init__.py").write_text("")
    names = {f"{PACKAGE}.host.{name}" for name in ("one", "two", "three")}
    assert circles(import_graph(tmp_path)) == [names]
