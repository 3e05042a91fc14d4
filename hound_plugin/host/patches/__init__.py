"""Every place where this package changes or extends the host: a catalogue, read by :mod:`hound_plugin.host.patching`.

A :class:`Patch` puts a function of ours around one of the host's; a :class:`Setup` calls one of ours when a host module
has been executed. The functions themselves are where their subject is: the body ``"resume:last_complete"`` is
``last_complete`` in :mod:`hound_plugin.host.resume`. The catalogue was written for llamafactory 0.9.5, trl 0.24,
transformers 5.5, gradio 5.50 and deepspeed 0.18.4. Models and templates of others pass through unchanged.
"""

from __future__ import annotations

from hound_plugin.host.patches.data import COLLATORS, DATA, TOKENISATION
from hound_plugin.host.patches.entry import EVERY_RUN, Entry, Patch, Setup
from hound_plugin.host.patches.model import ARGUMENTS, REGISTRIES
from hound_plugin.host.patches.serving import ENGINE, WEB
from hound_plugin.host.patches.training import TRAINERS, ZERO3

__all__ = ["AREAS", "ENTRIES", "EVERY_RUN", "KNOWN", "MODULES", "Entry", "Patch", "Setup", "entries_of"]

KNOWN = "0.9.5"
"""The release of the host that the catalogue was written for."""
AREAS: dict[str, tuple[Entry, ...]] = {
    "registries": REGISTRIES,
    "arguments, model": ARGUMENTS,
    "data": DATA,
    "tokenisation": TOKENISATION,
    "collators": COLLATORS,
    "trainers": TRAINERS,
    "ZeRO-3": ZERO3,
    "chat, API": ENGINE,
    "web UI": WEB,
}
ENTRIES: tuple[Entry, ...] = tuple(entry for area in AREAS.values() for entry in area)
MODULES: tuple[str, ...] = tuple(dict.fromkeys(entry.module for entry in ENTRIES))
"""The host modules whose execution :mod:`hound_plugin.host.autoload` waits for."""


def entries_of(module: str) -> tuple[Entry, ...]:
    """What is applied when ``module`` has been executed, in this order."""
    return tuple(entry for entry in ENTRIES if entry.module == module)
