"""All rows of the table by name, and which of them need others to have run before."""

from __future__ import annotations

from tests.options.option import EXPORTS, RUNS, Export, Row
from tests.options.serving_table import CHATS, EXPORTED, LEARNT
from tests.options.table import TRAININGS
from tests.options.training_table import MORE_TRAININGS
from tests.options.web_table import PAGES

ROWS: dict[str, Row] = {**TRAININGS, **MORE_TRAININGS, **EXPORTED, **CHATS, **PAGES}
TRAINED: dict[str, Row] = {**LEARNT, **ROWS}
"""With the trainings that only make what exports and chats take."""


def _before(row: Row) -> set[str]:
    """Names of the rows whose folders or answers a row is compared with, those that these need included."""
    texts = [value for value in row.values.values() if isinstance(value, str)]
    named = {name for name in TRAINED for text in texts if f"{_place(TRAINED[name])}/{name}" in text.split(",")}
    for attribute in ("weights_of", "same", "other"):
        named |= {other} if (other := getattr(row, attribute, None)) else set()
    return named.union(*(_before(TRAINED[name]) for name in named))


def _place(row: Row) -> str:
    return EXPORTS if isinstance(row, Export) else RUNS


BEFORE = {name: _before(row) for name, row in ROWS.items()}
