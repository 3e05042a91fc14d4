"""The rows of the table through the host's own loader, once for all tests."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import datasets
import pytest

from tests.host.hosting import media_folder, write_dataset
from tests.host.test_pipeline import Host
from tests.records.shapes import Cell, Medium, Row, good, row_of

STAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "sft": ("sft", {}),
    "pairs": ("dpo", {}),
    "labels": ("kto", {}),
    "predictions": (
        "sft",
        {"do_train": False, "do_predict": True, "predict_with_generate": True, "dataset": None, "eval_dataset": "mine"},
    ),
}
KINDS = {
    "sft": "conversations",
    "pairs": "pairs",
    "labels": "labels",
    "predictions": "predictions",
    "questions": "questions",
}


def name(value: Any) -> str:
    return value if isinstance(value, str) else f"{value[0]} / {value[1]}"


class Loaded:
    """What the host makes of the rows of each stage."""

    def __init__(self, folder: Path) -> None:
        self.host = Host(folder)
        self.data = folder / "data"
        self.bad_rows = folder / "out" / "bad_rows.jsonl"
        self.media = media_folder(folder / "media")
        self.rows: dict[tuple[str, Cell], Row] = {}

    def load(self, consumer: str, rows: list[Row] | None = None, **changes: Any) -> Any:
        """The host's rows of these, or of those that were written already."""
        stage, more = STAGES[consumer]
        if rows is not None:
            write_dataset(self.data, "mine", rows, **({"ranking": True} if consumer == "pairs" else {}))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(self.host.folder / "cache"))
            patch.setenv("HF_DATASETS_CACHE", str(self.host.folder / "cache"))
            return self.host.load(stage, "mine", **more, **changes)

    def load_good(self, consumer: str) -> None:
        """Keep what the host makes of all rows of the table that are right for a reader."""
        cells = good(consumer)
        found = self.load(consumer, [row_of(cell) for cell in cells])
        self.rows.update({(consumer, cell): row for cell, row in zip(cells, found, strict=True)})

    def path(self, item: Any) -> Any:
        return [self.path(one) for one in item] if isinstance(item, list) else str(self.media / item)

    def text(self, ids: list[int], medium: Medium) -> str:
        """Tokens as text, in which each clip and image is one placeholder."""
        processor = self.host.processor
        lengths = {
            processor.video_token_id: processor.tokens_per_video,
            processor.image_token_id: processor.tokens_per_image,
        }
        short: list[int] = []
        for token, run in itertools.groupby(ids):
            number = len(list(run))
            assert token not in lengths or number % lengths[token] == 0
            short += [token] * (number // lengths.get(token, 1))
        assert sum(token in lengths for token in short) == len(medium.items)
        return plain(self.host.tokenizer.decode(short))


def plain(text: str) -> str:
    """A text without the spaces that tokens leave around placeholders and ends."""
    return re.sub(r"\s*(<s>|</s>|<video>|<image>)\s*", r"\1", " ".join(text.split()))
