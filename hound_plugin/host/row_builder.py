"""The builder of `datasets` for rows of text.

It has a module of its own: `datasets` replaces ``open``, ``Path`` and parts of ``os`` in the module of every builder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow
from datasets import DatasetInfo, SplitGenerator
from datasets.packaged_modules.json.json import Json

from hound_plugin.host.row_source import FEATURES, generate_rows

_BATCH_ROWS, _BATCH_CHARACTERS = 1000, 16 << 20
Rows = Callable[[list[str], list[str]], Iterator[dict[str, Any]]]


class RowText(Json):
    """The JSON builder of `datasets` (download, cache, splits, locks) with rows of text instead of typed columns.

    Attributes:
        names: for each data file, its name as the user knows it; set before the data set is prepared.
        rows: the rows of files and their names, in the columns of ``config.features`` (by default of ``FEATURES``); set
            before, too.
    """

    names: dict[str, str]
    rows: Rows = staticmethod(generate_rows)

    def _info(self) -> DatasetInfo:
        return DatasetInfo(features=self.config.features or FEATURES)

    def _split_generators(self, dl_manager: Any) -> list[SplitGenerator]:
        generators = []
        for split, files in self.config.data_files.items():
            kwargs = {"files": dl_manager.download(list(files)), "names": [self.names[str(file)] for file in files]}
            generators.append(SplitGenerator(name=split, gen_kwargs=kwargs))
        return generators

    def _generate_tables(self, files: list[str], names: list[str]) -> Iterator[tuple[int, pyarrow.Table]]:
        batch: list[dict[str, Any]] = []
        characters = key = 0
        schema = self.info.features.arrow_schema
        for row in self.rows(files, names):
            batch.append(row)
            characters += sum(len(value) for value in row.values() if isinstance(value, str))
            if len(batch) == _BATCH_ROWS or characters > _BATCH_CHARACTERS:
                yield key, pyarrow.Table.from_pylist(batch, schema=schema)
                batch, characters, key = [], 0, key + 1
        if batch:
            yield key, pyarrow.Table.from_pylist(batch, schema=schema)
