"""Evaluation: suites of questions, predictions, judgements, tables, comparison of runs. No model, no torch.

>>> from hound_plugin.evaluation import original_verdict
>>> original_verdict("official", "{'pred': 'yes', 'score': 4.8}")
(4, True)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOME = {
    "original_summary": "hound_plugin.evaluation.original",
    "original_verdict": "hound_plugin.evaluation.original",
}
__all__ = ["original_summary", "original_verdict"]

if TYPE_CHECKING:
    from hound_plugin.evaluation.original import original_summary as original_summary
    from hound_plugin.evaluation.original import original_verdict as original_verdict


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
