"""The layer order of the package, read from its import statements."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
PACKAGE = "hound_plugin"

# Each layer imports only those above it, at any place, also inside functions. Outside of the list stands
# `hound_plugin/__init__`, which gives the public names and is imported by none.
LAYERS = (
    "errors",
    "version",
    "backoff",
    "child_processes",
    "validation",
    "settings",
    "moved",
    "records",
    "media",
    "processing",
    "model",
    "engines",
    "command_line",
    "corpus",
    "llm",
    "pages",
    "judge",
    "reward",
    "evaluation",
    "host",
    "vllm",
    "harness",
    "own_model",
    "demo",
    "doctor",
    "cli",
)
# What a layer does without although it stands above: data and judges need no model, the host no judge.
WITHOUT: dict[str, tuple[str, ...]] = {
    "model.configuration": ("media", "processing", "model"),
    "engines": ("media", "processing", "model"),
    "corpus": ("processing", "model"),
    "llm": ("processing", "model", "engines", "corpus"),
    "pages": ("processing", "model", "engines", "corpus"),
    "judge": ("processing", "model", "engines", "corpus"),
    "reward": ("processing", "model"),
    "evaluation": ("processing", "model", "reward"),
    "host": ("corpus", "llm", "judge", "reward", "evaluation"),
    "vllm": ("host", "corpus", "llm", "pages", "judge", "reward", "evaluation", "engines"),
    "harness": ("host", "reward", "engines", "vllm"),
    "demo": ("host", "corpus", "llm", "judge", "reward"),
    "doctor": ("media", "processing", "model", "corpus", "llm", "judge", "reward", "evaluation", "own_model", "demo"),
}
WITHOUT_TORCH = ("records", "engines", "corpus", "llm", "pages", "judge", "reward", "evaluation")
# package of others -> its one layer
ONLY_IN = {"llamafactory": "host", "vllm": "vllm", "ray": "engines", "lmms_eval": "harness"}


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
    reasons = []
    for file in sorted((root / PACKAGE).rglob("*.py")):
        relative = file.relative_to(root).with_suffix("")
        parts = relative.parts[:-1] if relative.name == "__init__" else relative.parts
        module = ".".join(parts[1:])
        for line, name in _imports(
            ast.parse(file.read_text(encoding="utf-8"), str(file)), ".".join(relative.parts[:-1])
        ):
            reason = _reason(module, name)
            if reason:
                reasons.append(f"{relative}.py:{line}: {reason}")
    return reasons


def _reason(module: str, name: str) -> str:
    layer = module.partition(".")[0]
    for package, home in ONLY_IN.items():
        if _matches(name, package):
            return "" if layer == home else f"only {home}/ imports {package}"
    if not _matches(name, PACKAGE) or not module:
        return ""
    target = name.removeprefix(PACKAGE).removeprefix(".")
    other = target.partition(".")[0]
    if layer not in LAYERS or other not in LAYERS:
        return f"{layer if layer not in LAYERS else other or PACKAGE} is not a layer"
    without = next((names for prefix, names in WITHOUT.items() if _matches(module, prefix)), ())
    own = other == layer and layer not in without
    if not own and (LAYERS.index(other) >= LAYERS.index(layer) or any(_matches(target, name) for name in without)):
        return f"{module} must not import {target}"
    return ""


def test_the_package_keeps_its_layers() -> None:
    assert violations(REPO) == []


BAD_LINES = [
    ("media/decode.py", "from hound_plugin.processing import processor"),
    ("media/decode.py", "import hound_plugin.cli"),
    ("processing/processor.py", "from ..model import modeling"),
    ("processing/processor.py", "from hound_plugin.model.configuration import LlavaHoundConfig"),
    ("model/configuration.py", "from . import vision"),
    ("model/configuration.py", "from ..media.frame_sampling import pick"),
    ("model/__init__.py", "from ..host import template"),
    ("model/inference.py", "def f():\n    import llamafactory.data"),
    ("reward/implicit.py", "def f():\n    from hound_plugin.model.inference import log_probs"),
    ("evaluation/run.py", "from .. import model"),
    ("judge/client.py", "from hound_plugin.reward import pairs"),
    ("cli.py", "import llamafactory"),
    ("model/modeling.py", "import vllm"),
    ("reward/run.py", "import ray.data"),
    ("host/register.py", "from hound_plugin import __version__"),
    ("settings.py", "from hound_plugin.records import files"),
    ("records/files.py", "from hound_plugin.utils import f"),
    ("utils.py", "from hound_plugin.errors import HoundError"),
    ("host/template.py", "from hound_plugin import cli"),
]
GOOD_LINES = [
    ("__init__.py", "from hound_plugin.model.inference import load"),
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
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([*command, *names], env=clean, capture_output=True, text=True, check=False, timeout=120)


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
        imported |= {full.rpartition(".")[0] for full in imported if full not in files}  # `from module import name`
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


def packages(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The same graph of layers: modules and packages directly under ``hound_plugin``."""

    def layer(name: str) -> str:
        return name.removeprefix(PACKAGE).removeprefix(".").partition(".")[0]

    grouped: dict[str, set[str]] = {layer(name): set() for name in graph}
    for name, others in graph.items():
        grouped[layer(name)] |= {layer(other) for other in others} - {layer(name)}
    return grouped


def test_there_is_no_circle_of_modules_or_packages() -> None:
    graph = import_graph(REPO)
    assert circles(graph) == []
    assert circles(packages(graph)) == []


def test_a_circle_of_packages_is_seen() -> None:
    graph = {"p.a.one": {"p.b.two"}, "p.b.two": set(), "p.b.three": {"p.a.four"}, "p.a.four": set()}
    graph = {name.replace("p.", f"{PACKAGE}."): {o.replace("p.", f"{PACKAGE}.") for o in graph[name]} for name in graph}
    assert circles(graph) == []
    assert circles(packages(graph)) == [{"a", "b"}]


def test_a_circle_is_seen(tmp_path: Path) -> None:
    _tree(tmp_path, "host/one.py", "from hound_plugin.host.two import f")
    (tmp_path / PACKAGE / "host" / "two.py").write_text("def f():\n    from . import three\n")
    (tmp_path / PACKAGE / "host" / "three.py").write_text("import hound_plugin.host.one\n")
    (tmp_path / PACKAGE / "host" / "__init__.py").write_text("")
    names = {f"{PACKAGE}.host.{name}" for name in ("one", "two", "three")}
    assert circles(import_graph(tmp_path)) == [names]
