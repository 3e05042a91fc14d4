"""One concept, one home: each concept of the table is coded in one module, and every other module calls that one.

To add a concept, write a predicate that finds its code in one node of a syntax tree, and add a line to ``CONCEPTS``
and one or more to ``EXAMPLES``.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "hound_plugin"

Predicate = Callable[[ast.AST], bool]


def is_called(node: ast.AST, module: str, *names: str) -> bool:
    """Whether ``module.name`` is mentioned (called or handed on), or imported out of its module."""
    if isinstance(node, ast.Attribute):
        return node.attr in names and isinstance(node.value, ast.Name) and node.value.id == module
    return (
        isinstance(node, ast.ImportFrom) and node.module == module and any(alias.name in names for alias in node.names)
    )


def is_imported(node: ast.AST, *modules: str) -> bool:
    """Whether one of ``modules``, or something out of it, is imported."""
    if isinstance(node, ast.Import):
        return any(alias.name.partition(".")[0] in modules for alias in node.names)
    return isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").partition(".")[0] in modules


def publishes(node: ast.AST) -> bool:
    """Writing under a temporary name and renaming. ``text.replace(old, new)`` has two arguments, a path's has one."""
    if is_called(node, "os", "replace", "rename", "renames", "link") or is_called(node, "shutil", "move"):
        return True
    if is_called(node, "tempfile", "mkstemp", "NamedTemporaryFile"):
        return True
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    names = [keyword.arg for keyword in node.keywords]
    return node.func.attr in ("replace", "rename") and (
        (len(node.args) == 1 and not names) or (not node.args and names == ["target"])
    )


def defines(node: ast.AST, name: str) -> bool:
    """Whether a function of this name is written here."""
    return isinstance(node, ast.FunctionDef) and node.name == name


def names_placeholder(node: ast.AST) -> bool:
    """Whether a name stands for the text of a placeholder, alone or in a tuple of them."""
    if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
        return False
    values = node.value.elts if isinstance(node.value, ast.Tuple | ast.List) else [node.value]
    return any(isinstance(value, ast.Constant) and value.value in ("<video>", "<image>") for value in values)


def doubles_with_each_try(node: ast.AST) -> bool:
    """Exponential growth of a waiting time: two to the power of something that is no constant."""
    if not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.Pow) or not isinstance(node.left, ast.Constant):
        return False
    return node.left.value == 2 and not isinstance(node.right, ast.Constant)


def cuts_into_words(node: ast.AST) -> bool:
    """An expression for the words of a text, which drops the marks of letters: ``\\w+`` alone."""
    return isinstance(node, ast.Constant) and node.value == r"\w+"


def ignores_label(node: ast.AST) -> bool:
    """The label of a token that is not learnt: compared with, stored under a name, or filled in."""

    def is_it(value: ast.AST | None) -> bool:
        return isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.USub) and ast.unparse(value) == "-100"

    if isinstance(node, ast.Compare):
        pairs = zip(node.ops, node.comparators, strict=True)
        return any(isinstance(operator, ast.Eq | ast.NotEq) and is_it(value) for operator, value in pairs)
    if isinstance(node, ast.Assign | ast.AnnAssign):
        return is_it(node.value)
    if isinstance(node, ast.List | ast.Tuple):
        return any(map(is_it, node.elts))
    return isinstance(node, ast.Call) and any(map(is_it, node.args))


CONCEPTS: dict[str, tuple[Predicate, str]] = {
    "publishing a file under its final name": (publishes, "records/files.py"),
    "waiting until a file is on the disk": (lambda node: is_called(node, "os", "fsync"), "records/files.py"),
    "locks between processes": (lambda node: is_imported(node, "fcntl", "filelock", "portalocker"), "records/files.py"),
    "where a clip or an image lies": (lambda node: defines(node, "find_media"), "records/media_paths.py"),
    "the texts of placeholders": (names_placeholder, "records/placeholders.py"),
    "opening a picture": (lambda node: is_called(node, "Image", "open"), "media/pictures.py"),
    "how long to wait before another try": (doubles_with_each_try, "backoff.py"),
    "the label of a token that is not learnt": (ignores_label, "model/labels.py"),
    "the words of a text": (cuts_into_words, "records/words.py"),
}


def found(package: Path, predicate: Predicate) -> dict[str, list[int]]:
    """Module, as a path below ``package``, to the lines at which ``predicate`` holds."""
    return {name: lines for name, lines in _search(package, predicate) if lines}


def _search(package: Path, predicate: Predicate) -> Iterator[tuple[str, list[int]]]:
    for file in sorted(package.rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"), str(file))
        lines = [getattr(node, "lineno", 0) for node in ast.walk(tree) if predicate(node)]
        yield file.relative_to(package).as_posix(), lines


@pytest.mark.parametrize("concept", CONCEPTS)
def test_a_concept_has_one_home(concept: str) -> None:
    predicate, home = CONCEPTS[concept]
    places = found(PACKAGE, predicate)
    elsewhere = {name: lines for name, lines in places.items() if name != home}
    assert not elsewhere, f"{concept} belongs in {home}; found in {elsewhere}"
    assert home in places, f"{concept}: nothing of it in {home} any more; name its new home"


PUBLISHING, SYNCING, LOCKING, FINDING, PLACEHOLDERS, PICTURES, BACKING_OFF, IGNORING, WORDS = CONCEPTS
# concept -> lines that are its code, lines that only look like it
EXAMPLES: dict[str, tuple[list[str], list[str]]] = {
    PUBLISHING: (
        [
            "import os\nos.replace(part, path)",
            "import os\nos.rename(part, path)",
            "part.replace(path)",
            "folder.joinpath('a.part').rename(folder / 'a')",
            "part.rename(target=path)",
            "from os import replace as publish",
            "from tempfile import mkstemp",
            "import tempfile\nwith tempfile.NamedTemporaryFile() as file: pass",
            "import shutil\nshutil.move(part, path)",
            "import os\nmoves = list(map(os.replace, parts, paths))",
        ],
        [
            "text.replace('a', 'b')",
            "text.replace('a', 'b', 1)",
            "import dataclasses\ndataclasses.replace(row, id=1)",
            "moment.replace(tzinfo=None)",
            "table.rename(columns=names)",
            "import tempfile\nwith tempfile.TemporaryDirectory() as folder: pass",
            "from hound_plugin.records import files\nfiles.rename(part, path)",
            "# os.replace(part, path)",
        ],
    ),
    SYNCING: (["import os\nos.fsync(file.fileno())", "from os import fsync"], ["import os\nos.sync()"]),
    LOCKING: (
        ["import fcntl", "def lock():\n    import fcntl as f", "from filelock import FileLock", "import filelock"],
        ["import threading\nthreading.Lock()", "from hound_plugin.records.files import locked", "from . import fcntl"],
    ),
    FINDING: (
        ["def find_media(name, media_dir):\n    return name", "class A:\n    def find_media(self): pass"],
        [
            "from hound_plugin.records.media_paths import find_media",
            "path = find_media(name, None)",
            "def find(): pass",
        ],
    ),
    PLACEHOLDERS: (
        ['VIDEO = "<video>"', 'TOKENS = ("<image>", "<video>")', 'IMAGE: str = "<image>"'],
        [
            "from hound_plugin.records.placeholders import VIDEO_TOKEN",
            'PATTERN = "<image>|<video>"',
            'text: str\ncount("<video>")',
        ],
    ),
    PICTURES: (
        ["from PIL import Image\nwith Image.open(path) as image: pass"],
        ["from hound_plugin.media.pictures import open_picture\nopen_picture(path)", "Image.new('RGB', (1, 1))"],
    ),
    BACKING_OFF: (
        ["time.sleep(min(60.0, 0.5 * 2**number))", "wait = 2.0 ** (tries - 1)", "wait = first * 2 ** min(tries, 9)"],
        ["from hound_plugin.backoff import Backoff\nBackoff().delay(3)", "SIZE = 2**20", "number ** 2", "10 ** digits"],
    ),
    IGNORING: (
        ["mask = labels != -100", "IGNORED = -100", "row = [-100] * 3", "labels.masked_fill(padding, -100)"],
        [
            "from hound_plugin.model.labels import IGNORED_LABEL\nmask = labels != IGNORED_LABEL",
            "if not -100 <= bias <= 100: pass",
            "labels == 100",
            "text = 'from -100 to 100'",
        ],
    ),
    WORDS: (
        ["import re\n_WORD = re.compile(r'\\w+')", "import re\nre.findall(r'\\w+', text)"],
        ["from hound_plugin.records.words import words_of", "import re\nre.compile(r'(\\w+)=')", "text.split()"],
    ),
}


def test_every_concept_has_examples() -> None:
    assert EXAMPLES.keys() == CONCEPTS.keys()


@pytest.mark.parametrize("concept", EXAMPLES)
def test_the_check_can_fail(concept: str, tmp_path: Path) -> None:
    code, lookalikes = EXAMPLES[concept]
    (tmp_path / "reward").mkdir()
    for text in (*code, *lookalikes):
        (tmp_path / "reward" / "storage.py").write_text(text + "\n")
        assert bool(found(tmp_path, CONCEPTS[concept][0])) == (text in code), text
