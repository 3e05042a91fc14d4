"""The folder of a run: names of its files; :mod:`hound_plugin.records.run_folders` opens and locks it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hound_plugin.records.jsonl import read_objects

CANDIDATES, SCORES, RANKED, EXCLUDED = "candidates.jsonl", "scores.jsonl", "ranked.jsonl", "excluded.jsonl"
LEDGER, SAMPLER_LEDGER, BAD_MEDIA = "ledger.sqlite", "sampler.sqlite", "bad_media.jsonl"

Row = dict[str, Any]


def excluded_ids(folder: Path) -> frozenset[str]:
    """Ids of pairs that were dropped by hand; the last row of an id counts."""
    state = {str(row["id"]): bool(row.get("excluded", True)) for row in read_objects(folder / EXCLUDED) if "id" in row}
    return frozenset(name for name, is_out in state.items() if is_out)
