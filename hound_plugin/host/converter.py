"""Dataset format ``hound``: what :mod:`hound_plugin.records` reads, in the host's aligned form.

A media item of the aligned form is the path of a file or of a folder of frames, with its part
(``clip.mp4#t=0.5,1.0``) if the row names one, or the list of a clip's frames.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llamafactory.data.converter import DATASET_CONVERTERS, DatasetConverter, register_dataset_converter

from hound_plugin.errors import DataError, MediaError
from hound_plugin.host.row_source import BadTextError, row_of
from hound_plugin.host.settings_state import settings, stage
from hound_plugin.processing.prompt import normalise_question
from hound_plugin.records.bad_rows import MISSING, Place, error_of
from hound_plugin.records.consumers import ConsumerName, check, with_placeholder
from hound_plugin.records.embedded_media import as_file
from hound_plugin.records.media_paths import find_media, split_part, why_absent, with_part
from hound_plugin.records.parse import parse, row_id
from hound_plugin.records.placeholders import token_of
from hound_plugin.records.record import Media, Parsed, Problem, Record

NAME = "hound"
Message = dict[str, str]
# `columns` of dataset_info.json -> the host's default, and the field that the parser knows
_COLUMNS = {
    "messages": ("conversations", "conversations"),
    "videos": (None, "videos"),
    "images": (None, "images"),
    "system": (None, "system"),
    "chosen": (None, "chosen"),
    "rejected": (None, "rejected"),
    "kto_tag": (None, "label"),
    "history": (None, "history"),
    "prompt": ("instruction", "prompt"),
    "query": ("input", "input"),
    "response": ("output", "output"),
}


@dataclass
class HoundDatasetConverter(DatasetConverter):
    """Turns one row into the host's aligned form; an unusable row is an error that names it.

    Attributes:
        consumer: what the rows are for: pairs, labels, predictions or supervised training.
    """

    consumer: ConsumerName = "sft"

    def __post_init__(self) -> None:
        if self.dataset_attr.ranking:
            self.consumer = "pairs"
        elif stage() == "kto" or (stage() is None and self.dataset_attr.kto_tag):
            self.consumer = "labels"

    def __call__(self, example: Mapping[str, Any]) -> dict[str, Any]:
        """Convert one row.

        Raises:
            DataError: it is unusable; every problem is in the message.
            PlaceholderError: the only problem is that ``<video>`` / ``<image>`` and media do not match in number.
            MediaNotFoundError: the only problem is a clip or an image that does not exist.
        """
        aligned, parsed, place = self.aligned(example)
        if parsed.problems:
            kind = error_of(problem.name for problem in parsed.problems)
            raise kind(f"{place}: {'; '.join(map(str, parsed.problems))}. Correct or remove the row.")
        return aligned

    def aligned(self, example: Mapping[str, Any]) -> tuple[dict[str, Any], Parsed, Place]:
        """The host's form, or an empty one with the problems; and where the row is."""
        name = self.dataset_attr.dataset_name
        where = f"dataset {name!r}"
        try:
            row, number, file = row_of(example)
        except BadTextError as error:
            place = Place(where if error.file in (None, name) else f"{where}, {error.file}", error.number)
            return empty_row(), Parsed(None, (Problem(error.problem, "", error.reason),)), place
        place = Place(where if file in (None, name) else f"{where}, {file}", number)
        parsed = parse(self._renamed(row))
        record = parsed.record
        problems = list(parsed.problems)
        place = Place(place.file, place.row, record.id if record else row_id(row))
        if record is not None:
            problems += check(record, self.consumer, parsed.unknown)
        media = self._media_paths(record, problems) if record is not None else []
        if record is None or problems:
            return empty_row(), Parsed(None, tuple(problems), parsed.notes, parsed.unknown), place
        return self._row(with_placeholder(record, self.consumer), media), parsed, place

    def _renamed(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row with the fields that ``columns`` names under the names that the parser knows.

        A field of that name which is not the column's is counted as unknown, also where the row lacks the column: no
        other one takes its place.
        """
        for setting, (default, field) in _COLUMNS.items():
            name = getattr(self.dataset_attr, setting, None)
            if name and name != default and name != field:
                others = {key: value for key, value in row.items() if key not in (name, field)}
                if row.get(field) is not None:
                    others[f"{field} beside {name}"] = row[field]
                row = {**({field: row[name]} if name in row else {}), **others}
        return row

    def _row(self, record: Record, media: list[str | list[str]]) -> dict[str, Any]:
        kind = record.media[0].kind if record.media else None
        prompt = [{"role": turn.role, "content": turn.text} for turn in record.turns]
        if kind is not None:
            prompt = normalised(prompt, token_of(kind), len(media))
        return {
            **empty_row(),
            "_prompt": prompt if record.is_pair or prompt[-1]["role"] == "user" else prompt[:-1],
            "_response": self._response(record, prompt),
            "_system": record.system,
            "_images": media if kind == "image" else None,
            "_videos": media if kind == "video" else None,
        }

    def _response(self, record: Record, prompt: list[Message]) -> list[Message]:
        if record.is_pair:
            return [{"role": "assistant", "content": text or ""} for text in (record.chosen, record.rejected)]
        if prompt[-1]["role"] == "user":
            return []
        if self.consumer != "labels":
            return prompt[-1:]
        empty = {"role": "assistant", "content": ""}  # the host wants the other side empty
        return [prompt[-1], empty] if record.label else [empty, prompt[-1]]

    # --- media

    def _media_paths(self, record: Record, problems: list[Problem]) -> list[str | list[str]]:
        items: list[str | list[str]] = []
        for item in record.media:
            paths = [as_file(item)] if item.bytes is not None else [self._path(name, problems) for name in item.names]
            items.append(paths if item.frames else self._part(item, paths[0], problems))
        return items

    def _part(self, item: Media, path: str, problems: list[Problem]) -> str:
        in_row = item.start is not None or item.end is not None
        if not in_row and settings().on_bad_media == "skip":
            return path  # a part named in the path is checked with all media
        try:
            bare, start, end = split_part(path)
            if not in_row and start is end is None:
                return path
            if os.path.isdir(bare):
                raise DataError(
                    "expected a video file with `start` and `end`, found a folder of frames, which has no times"
                )
            return with_part(path, item.start, item.end)
        except (DataError, MediaError) as error:
            problems.append(Problem("part of a clip", "start", str(error)))
            return path

    def _path(self, name: str, problems: list[Problem]) -> str:
        path = find_media(name, self.data_args.media_dir)
        if path is not None:
            return path
        if settings().on_bad_media == "error":
            folder = os.path.abspath(self.data_args.media_dir)
            detail = (
                f"expected a file or a folder of frames {name!r} under media_dir {folder}; "
                f"{why_absent(name, self.data_args.media_dir) or 'there is none'}. Set "
                "`media_dir` to the folder that the rows' paths begin in, or `hound: {on_bad_media: skip}` to leave "
                "such rows out"
            )
            problems.append(Problem(MISSING, "video", detail))
        return os.path.join(self.data_args.media_dir, name)  # skipped and listed with all other bad media


def normalised(prompt: list[Message], token: str, media: int) -> list[Message]:
    """Questions with their placeholders in front, as in the original; several clips in a question stay in place."""
    several = sum(message["content"].count(token) for message in prompt if message["role"] == "user") == media
    changed = []
    for message in prompt:
        text = message["content"]
        if message["role"] == "user" and not (several and text.count(token) > 1):
            text = normalise_question(text, (token,))
        changed.append({**message, "content": text})
    return changed


def empty_row() -> dict[str, Any]:
    """An aligned row with nothing in it."""
    names = ("_images", "_videos", "_audios")
    return {"_prompt": [], "_response": [], "_system": "", "_tools": "", **dict.fromkeys(names)}


def find_frame_folders(original: Callable[..., Any], self: Any, medias: Any) -> Any:
    """``DatasetConverter._find_medias``, which looks for files only: folders of frames under ``media_dir`` too."""
    items = medias if isinstance(medias, list) else [medias]
    if self.dataset_attr.load_from in ("script", "file") and items and all(isinstance(item, str) for item in items):
        paths = [find_media(item, self.data_args.media_dir) for item in items]
        if any(path is not None and os.path.isdir(path) for path in paths):
            return [path or item for path, item in zip(paths, items, strict=True)]
    return original(self, medias)


def register() -> None:
    """Add the format to the host, once."""
    if NAME not in DATASET_CONVERTERS:
        register_dataset_converter(NAME, HoundDatasetConverter)
