"""The installed host with some modules of it changed, as another release might have them, in every child process."""

from __future__ import annotations

import json
from pathlib import Path

# Compiles a module of the host from its source with texts replaced; the file on disk stays as it is.
CUSTOMIZE = """
import importlib.machinery, json, os, sys

EDITS = json.loads(os.environ["OTHER_HOST"])

class Edited(importlib.machinery.SourceFileLoader):
    def get_code(self, fullname):
        source = self.get_source(fullname)
        for old, new in EDITS[fullname].items():
            assert old in source, (fullname, old)
            source = source.replace(old, new)
        return compile(source, self.path, "exec", dont_inherit=True)

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name not in EDITS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        spec.loader = Edited(name, spec.origin)
        return spec

sys.meta_path.insert(0, Finder())
"""


def write_customize(folder: Path) -> Path:
    """A folder for ``PYTHONPATH`` that makes the changes of :func:`variables` in each process."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(CUSTOMIZE)
    return folder


def variables(folder: Path, edits: dict[str, dict[str, str]]) -> dict[str, str]:
    """Environment variables for a host whose modules have texts replaced.

    Args:
        folder: where ``sitecustomize.py`` may be written.
        edits: module to ``{text: replacement}``.
    """
    repository = Path(__file__).resolve().parents[2]
    return {"PYTHONPATH": f"{write_customize(folder)}:{repository}", "OTHER_HOST": json.dumps(edits)}
