"""``hound corpus list``: all corpora, and which of them are on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hound_plugin.corpus.extract import is_extracted
from hound_plugin.corpus.files import readable_rows, readable_size
from hound_plugin.corpus.schema import Corpus


@dataclass(frozen=True)
class Status:
    """What is on this machine of one corpus: number of downloaded files and of extracted archives."""

    corpus: Corpus
    downloaded: int
    extracted: int

    def in_words(self) -> str:
        """For the table: ``-``, ``downloaded``, ``3 of 16 downloaded, 2 extracted``."""
        total = len(self.corpus.files)
        words = []
        if self.downloaded:
            words.append("downloaded" if self.downloaded == total else f"{self.downloaded} of {total} downloaded")
        if self.extracted:
            words.append("extracted" if self.extracted == total else f"{self.extracted} of {total} extracted")
        return ", ".join(words) or "-"


def take_stock(folder: Path, corpora: Sequence[Corpus]) -> list[Status]:
    """Count the files of ``corpora`` in ``folder``; an unfinished download does not count."""
    statuses = []
    for corpus in corpora:
        paths = [folder / path for path in corpus.paths()]
        downloaded = sum(path.is_file() for path in paths)
        extracted = sum(is_extracted(folder, corpus, path) for path in paths) if corpus.target else 0
        statuses.append(Status(corpus, downloaded, extracted))
    return statuses


def to_table(statuses: Sequence[Status]) -> str:
    """A table with the columns id, rows, size, state on this machine, purpose."""
    rows = [("id", "rows", "size", "here", "for what")]
    for status in statuses:
        corpus = status.corpus
        rows.append(
            (corpus.id, readable_rows(corpus.rows), readable_size(corpus.size), status.in_words(), corpus.purpose)
        )
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = []
    for name, count, size, here, purpose in rows:
        lines.append(
            f"{name:<{widths[0]}}  {count:>{widths[1]}}  {size:>{widths[2]}}  {here:<{widths[3]}}  {purpose}".rstrip()
        )
    return "\n".join(lines)


def to_records(statuses: Sequence[Status]) -> list[dict[str, Any]]:
    """One dictionary per corpus, for ``--json``; unknown numbers are None, and ``rows`` and ``size`` are rounded."""
    return [
        {
            "id": status.corpus.id,
            "kind": status.corpus.kind,
            "purpose": status.corpus.purpose,
            "repo": status.corpus.repo,
            "files": list(status.corpus.files),
            "places": status.corpus.paths(),
            "rows": status.corpus.rows,
            "size": status.corpus.size,
            "target": status.corpus.target,
            "needs": list(status.corpus.needs),
            "downloaded": status.downloaded,
            "extracted": status.extracted,
        }
        for status in statuses
    ]
