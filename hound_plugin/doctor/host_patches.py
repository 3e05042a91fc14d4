"""Does the installed host have every function that this package patches, with the arguments that are expected?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hound_plugin.host.patches import AREAS, EVERY_RUN, KNOWN

from .child import Outcome
from .report import FAIL, OK, WARN, Check

SCRIPT = """
def patched(area):
    import llamafactory.train.tuner  # first, as the host's own command does
    from hound_plugin.host import patches, patching
    return [
        {"names": entry.names, "problem": patching.probe(entry), "without": entry.without,
         "essential_for": entry.essential_for}
        for entry in patches.AREAS[area]
    ]

from hound_plugin.host.patches import AREAS
for area in AREAS:
    attempt(f"patches: {area}", lambda: patched(area))
"""
"""To be run after the host was imported."""


def check_patches(outcome: Outcome) -> Iterator[Check]:
    """One check for each area of the catalogue that is as expected, and one for each place that is not.

    Args:
        outcome: of a child that ran ``SCRIPT``.
    """
    for area in AREAS:
        stage = outcome.stage(f"patches: {area}")
        if not stage.ok:
            fix = "This release of the host is laid out differently: install the one named under llamafactory."
            yield Check(f"host: {area}", FAIL, stage.error, "the host can be examined", fix)
            continue
        present = [place for place in stage.facts if place["problem"] is None]
        if present:
            yield Check(f"host: {area}", OK, _listed(present))
        for place in stage.facts:
            if place["problem"] is not None:
                yield _moved(area, place)


def _listed(places: list[dict[str, Any]]) -> str:
    """Modules, each with the names that are patched in it."""
    names: dict[str, dict[str, None]] = {}
    for place in places:
        for name in place["names"]:
            module, _, target = name.partition(":")
            names.setdefault(module.removeprefix("llamafactory."), {})[target.rpartition(".")[2]] = None
    return "; ".join(f"{module}: {', '.join(targets)}" for module, targets in names.items())


def _moved(area: str, place: dict[str, Any]) -> Check:
    runs = place["essential_for"]
    status = FAIL if runs else WARN
    refused = {"": "", EVERY_RUN: " Training and serving are refused."}.get(runs, f" `stage: {runs}` is refused.")
    fix = f"Without it, {place['without']}.{refused} Run `pip install llamafactory=={KNOWN}`, or upgrade hound-plugin."
    return Check(f"host: {area}", status, place["problem"], "the function, with these arguments", fix)
