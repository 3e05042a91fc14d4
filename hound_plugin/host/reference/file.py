"""The file of ``hound.reference_log_probs``: log-probabilities of rows, and of which reference they are.

The first line says of which reference, how many rows follow, and the SHA-256 of their bytes; each further line is a
row. The file appears complete or not at all. While rows are computed, every process appends to a file of its own,
``FILE.partial-RANK``, from which a stopped computation resumes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hound_plugin.errors import DataError
from hound_plugin.records.files import append_rows, write_whole
from hound_plugin.records.jsonl import read_objects

_MARK = "hound_reference_log_probs"
_VERSION = 1


@dataclass(frozen=True)
class Stored:
    """The reference's word on a row: the two answers of a pair, or an answer and the one for KTO's KL term.

    Attributes:
        log_probs: sums over the labelled tokens of each.
        tokens: how many these are.
    """

    log_probs: tuple[float, float]
    tokens: tuple[int, int]


Rows = dict[str, Stored]
"""By the key of each row; see :mod:`hound_plugin.host.reference.identity`."""


def write_file(path: Path, reference: Mapping[str, Any], rows: Rows) -> None:
    """Write the file, in the order of the rows."""
    body = "".join(json.dumps(_as_json(key, row)) + "\n" for key, row in rows.items())
    head = {_MARK: _VERSION, "reference": reference, "rows": len(rows), "sha256": _digest(body)}
    write_whole(path, json.dumps(head) + "\n" + body)


def read_file(path: Path, reference: Mapping[str, Any]) -> Rows:
    """The rows of a file.

    Raises:
        DataError: the file is another one, is damaged, or is of another reference; the message says what differs.
    """
    remedy = f"Delete {path} or name another file; `hound reward ref-logps` or the training itself writes it."
    try:
        first, _, body = path.read_text(encoding="utf-8").partition("\n")
        head = json.loads(first)
    except ValueError as error:
        raise DataError(
            f"hound.reference_log_probs: {path} is damaged, or not such a file: {error}. {remedy}"
        ) from None
    if not isinstance(head, dict) or head.get(_MARK) != _VERSION:
        raise DataError(
            f"hound.reference_log_probs: expected a file that `hound reward ref-logps` or a training wrote; {path} "
            f"begins with {first[:80]!r}. Name another file."
        )
    if head.get("sha256") != _digest(body):
        lines = body.count("\n")
        raise DataError(
            f"hound.reference_log_probs: {path} is damaged or cut off: expected {head.get('rows')} rows, as its first "
            f"line says; it has {lines}{', changed ones' if lines == head.get('rows') else ''}. {remedy}"
        )
    differing = differences(head.get("reference"), reference)
    if differing:
        raise DataError(f"hound.reference_log_probs: {path} is of another reference ({'; '.join(differing)}). {remedy}")
    return dict(_parsed(json.loads(line) for line in body.splitlines()))


def differences(there: Any, now: Any, name: str = "") -> list[str]:
    """What differs between two references, in words; digests are not shown."""
    if isinstance(there, dict) and isinstance(now, dict):
        keys = sorted({*there, *now})
        below = [differences(there.get(key), now.get(key), f"{name}.{key}".lstrip(".")) for key in keys]
        return [line for lines in below for line in lines]
    if isinstance(there, list) and isinstance(now, list) and len(there) == len(now):
        pairs = enumerate(zip(there, now, strict=True), start=1)
        return [line for number, pair in pairs for line in differences(*pair, f"{name} {number}")]
    if there == now:
        return []
    short = all(not isinstance(value, str) or len(value) < 64 for value in (there, now))
    return [f"{name}: {there!r} there, {now!r} now" if short else f"{name}: other content"]


class PartialFile:
    """What one process has computed so far.

    Args:
        path: of the file that is to be written.
        rank: of the process.
        reference: of which reference the rows are.
    """

    def __init__(self, path: Path, rank: int, reference: Mapping[str, Any]) -> None:
        self._path = path.with_name(f"{path.name}.partial-{rank}")
        self._head = {_MARK: _VERSION, "reference": reference}
        path.parent.mkdir(parents=True, exist_ok=True)
        if self._path.exists() and _read_partial(self._path, reference) is None:
            self._path.unlink()  # of another reference

    def append(self, rows: Rows) -> None:
        """Add rows, which are on the disk when this returns."""
        new: list[Mapping[str, Any]] = [] if self._path.exists() else [self._head]
        append_rows(self._path, [*new, *(_as_json(key, row) for key, row in rows.items())])


def read_partials(path: Path, reference: Mapping[str, Any]) -> Rows:
    """What stopped computations of the same reference have left, whatever their number of processes."""
    rows: Rows = {}
    for partial in _partials(path):
        rows |= _read_partial(partial, reference) or {}
    return rows


def remove_partials(path: Path) -> None:
    """Remove them, once the file is written."""
    for partial in _partials(path):
        partial.unlink(missing_ok=True)


def _partials(path: Path) -> list[Path]:
    if not path.parent.is_dir():
        return []
    return sorted(other for other in path.parent.iterdir() if other.name.startswith(f"{path.name}.partial-"))


def _read_partial(path: Path, reference: Mapping[str, Any]) -> Rows | None:
    """Its rows; None if they are of another reference, or unreadable."""
    try:
        lines = read_objects(path)
        head = next(lines, {})
        if head.get(_MARK) != _VERSION or head.get("reference") != reference:
            return None
        return dict(_parsed(lines))
    except (DataError, KeyError, TypeError, ValueError):
        return None


def _as_json(key: str, row: Stored) -> dict[str, Any]:
    return {"row": key, "log_probs": list(row.log_probs), "tokens": list(row.tokens)}


def _parsed(lines: Iterable[dict[str, Any]]) -> Iterator[tuple[str, Stored]]:
    for line in lines:
        (first, second), (one, two) = line["log_probs"], line["tokens"]
        yield line["row"], Stored((float(first), float(second)), (int(one), int(two)))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
