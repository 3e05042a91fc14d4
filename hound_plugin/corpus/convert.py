"""``hound corpus convert``: other people's data to ours, and a split by clip into training and held-out rows."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

from hound_plugin.corpus.records import check_record, media_of
from hound_plugin.corpus.shapes import convert_record
from hound_plugin.errors import DataError, SettingsError
from hound_plugin.records.files import whole_file
from hound_plugin.records.jsonl import Row, read_rows

CAPTION_PROMPT = "Describe the video in detail."
SIDES = ("train", "heldout")


@dataclass
class Converted:
    """What came out.

    Attributes:
        written: file -> number of rows.
        bad: rows that could not be converted, or cannot be trained on; they are in ``bad_rows``.
        straddling: rows with several clips of which some are held out; they are left out of both sides.
        bad_rows: JSONL with line, id and reason; None if there are none.
    """

    written: Counter[Path] = field(default_factory=Counter)
    bad: int = 0
    straddling: int = 0
    bad_rows: Path | None = None


def convert(
    source: Path,
    target: Path,
    *,
    split: float | None = None,
    seed: int = 0,
    caption_prompt: str = CAPTION_PROMPT,
    keep: Sequence[str] = (),
    labels: bool = False,
    force: bool = False,
) -> Converted:
    """Write rows of ``source`` in our shape, one at a time.

    Args:
        source: JSON or JSONL.
        target: JSONL; with ``split``, ``name.train.jsonl`` and ``name.heldout.jsonl`` are written in its place.
        split: share of clips to hold out, above 0 and below 1; None for one file.
        seed: changes which clips are held out.
        caption_prompt: the question that captions answer.
        keep: names of other fields to take over; the rest is dropped, because one column of mixed types stops the
            loader of the host.
        labels: write each preference pair as two single answers with ``label`` true or false, for KTO.
        force: replace files that exist.

    Raises:
        SettingsError: an argument is out of its range, or an output exists or is the input.
        DataError: the source cannot be read at all.
    """
    if split is not None and not 0 < split < 1:
        raise SettingsError(f"Expected --split above 0 and below 1; got {split}.")
    if not source.is_file():
        raise DataError(f"Expected a file of JSON or JSON lines; there is none at {source}. Check the path.")
    paths = [target] if split is None else [target.with_name(f"{target.stem}.{side}.jsonl") for side in SIDES]
    bad_path = target.with_name(f"{target.stem}.bad.jsonl")
    for path in paths:
        if path.exists() and (path.samefile(source) or not force):
            raise SettingsError(f"{path} exists. Name another target, or replace it with --force.")
    result = Converted()
    with ExitStack() as stack:
        files = [stack.enter_context(whole_file(path)) for path in paths]
        bad = stack.enter_context(whole_file(bad_path))
        result.written.update(dict.fromkeys(paths, 0))
        for row in read_rows(source):
            try:
                record = _converted(row, caption_prompt, keep)
                written = single_answers(record) if labels else [record]
            except DataError as error:
                result.bad += 1
                _write(bad, {"line": row.number, "id": (row.value or {}).get("id"), "reason": str(error)})
                continue
            sides = {0} if split is None else {int(held) for held in held_out(record, split, seed)}
            if len(sides) > 1:
                result.straddling += 1
                continue
            side = sides.pop()
            for answer in written:
                _write(files[side], answer)
            result.written[paths[side]] += len(written)
    if result.bad:
        result.bad_rows = bad_path
    else:
        bad_path.unlink()
    return result


def _converted(row: Row, caption_prompt: str, keep: Sequence[str]) -> dict[str, Any]:
    if row.value is None:
        raise DataError(row.reason)
    record = convert_record(row.value, row.number, caption_prompt, keep)
    problems = check_record(record).problems
    if problems:
        raise DataError("; ".join(f"{problem.name}: {problem.detail}" for problem in problems))
    return record


def single_answers(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The two answers of a preference pair as rows of their own, chosen first, for KTO (arXiv 2402.01306).

    Raises:
        DataError: the record is no pair.
    """
    if "chosen" not in record or "rejected" not in record:
        raise DataError("expected a preference pair (`prompt`, `chosen`, `rejected`) to label; this is another row")
    rest = {key: value for key, value in record.items() if key not in ("id", "prompt", "chosen", "rejected")}
    return [
        {
            "id": f"{record.get('id')}-{side}",
            **rest,
            "conversations": [
                {"from": "human", "value": record["prompt"]},
                {"from": "gpt", "value": record[side]},
            ],
            "label": side == "chosen",
        }
        for side in ("chosen", "rejected")
    ]


def held_out(record: dict[str, Any], share: float, seed: int) -> list[bool]:
    """For each clip or image of a record whether it is held out; a record without media goes by its id."""
    media = media_of(record)[0]
    names = [clip_name(item) for item in media] or [f"id:{record.get('id')}"]
    return [_fraction(name, seed) < share for name in names]


def clip_name(item: str | list[str]) -> str:
    """What identifies a clip in every layout: the last part of its path without ending; for frames, their folder's."""
    path = PurePosixPath(item) if isinstance(item, str) else PurePosixPath(item[0]).parent
    return path.stem


def _fraction(name: str, seed: int) -> float:
    """A number in 0..1 that depends on the name and the seed only: the same on every machine and in every file."""
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _write(file: TextIO, value: dict[str, Any]) -> None:
    file.write(json.dumps(value, ensure_ascii=False) + "\n")
