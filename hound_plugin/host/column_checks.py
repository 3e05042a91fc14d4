"""Compares entries of ``dataset_info.json`` with the rows, before the host stops at a KeyError.

Data sets of our format are checked, and those of the host's own formats that are read for our template.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from typing import Any

from hound_plugin.errors import DataError
from hound_plugin.host import settings_state
from hound_plugin.host.row_source import FILE, NUMBER, ROW, is_text_row, row_of

_LOOKED_AT = 100  # rows, for what is in a message or a question
_COMMON = ("system", "tools", "images", "videos", "audios", "kto_tag")
_PAIR = ("chosen", "rejected")
# what the host reads from a row, whether it is there or not
_NEEDED = {
    "alpaca": ("prompt", "query", "history", *_COMMON),
    "sharegpt": ("messages", *_COMMON),
    "openai": ("messages", *_COMMON),
}
# the host's defaults; our format finds these columns by itself
_DEFAULTS = {"prompt": "instruction", "query": "input", "response": "output", "messages": "conversations"}
_NAMED = ("messages", "prompt", "query", "response", "history", *_COMMON, *_PAIR)
_LIKE = {
    "messages": ("conversations", "messages", "conversation"),
    "videos": ("videos", "video"),
    "images": ("images", "image"),
    "prompt": ("prompt", "question"),
    "response": ("response", "answer"),
    "kto_tag": ("kto_tag", "label"),
}
_OURS = ("conversations", "messages", "video", "videos", "image", "images", "chosen")
_TAGS = {"from": ("value", "human", "gpt"), "role": ("content", "user", "assistant")}


@dataclass(frozen=True)
class _Entry:
    """A data set's entry of ``dataset_info.json`` and one of its rows, for an error's message."""

    attr: Any
    row: dict[str, Any]
    number: int
    file: str | None = None

    @property
    def where(self) -> str:
        name = self.attr.dataset_name
        return f"dataset {name!r}" + ("" if self.file in (None, name) else f", {self.file}") + f", row {self.number}"

    @property
    def columns(self) -> str:
        return ", ".join(f"`{name}`" for name in self.row) or "no columns"

    @property
    def hound(self) -> str:
        """Advice to use our format, where it would read the row."""
        if self.attr.formatting == "hound" or not any(name in self.row for name in _OURS):
            return ""
        ranking = ', "ranking": true' if all(name in self.row for name in _PAIR) else ""
        return f'"formatting": "hound"{ranking}'

    def nearest(self, key: str, column: str | None) -> str | None:
        """The column of the row that ``column`` probably means, or that usually serves as ``key``."""
        close = get_close_matches(column or key, self.row, 1, 0.7)
        return close[0] if close else next((name for name in _LIKE.get(key, (key,)) if name in self.row), None)


def check_columns(dataset: Any, attr: Any) -> None:
    """Compare a data set's entry of ``dataset_info.json`` with its rows.

    Args:
        dataset: as it was loaded: with typed columns, or with rows as text.
        attr: the host's ``DatasetAttr``.

    Raises:
        DataError: a named column or tag does not exist, or the rows have media that the entry does not name.
    """
    if attr.formatting != "hound" and (not settings_state.is_ours() or attr.formatting not in _NEEDED):
        return
    first = next(iter(dataset), None)
    if first is None:
        raise DataError(f"dataset {attr.dataset_name!r}: expected rows, found none. Download it again.")
    if is_text_row(first):
        _check_named(dataset, attr)
        return
    entry = _Entry(attr, dict.fromkeys(dataset.column_names or first), 1)
    if attr.formatting == "hound":
        for key, column in _named(attr).items():
            if column not in entry.row:
                raise _missing(entry, key, column)
        return
    _check_needed(entry)
    for number, example in enumerate(_beginning(dataset, attr), 1):
        _check_values(_Entry(attr, row_of(example)[0], number))


def _named(attr: Any) -> dict[str, str]:
    """``key -> column`` of what the entry names; the host's own defaults are left out."""
    named = {key: getattr(attr, key, None) for key in _NAMED}
    return {key: column for key, column in named.items() if column and column != _DEFAULTS.get(key)}


def _check_named(dataset: Any, attr: Any) -> None:
    """For rows as text: each named column is in at least one row; the search ends once all are seen."""
    missing = _named(attr)
    first: _Entry | None = None
    for example in dataset if missing else ():
        try:
            row = json.loads(example[ROW])
        except (ValueError, RecursionError):
            continue  # refused by number when it is converted
        if not isinstance(row, dict):
            continue
        first = first or _Entry(attr, row, example[NUMBER], example[FILE])
        missing = {key: column for key, column in missing.items() if column not in row}
        if not missing:
            return
    if first is not None:
        raise _missing(first, *next(iter(missing.items())))


def _check_needed(entry: _Entry) -> None:
    attr = entry.attr
    needed = _NEEDED[attr.formatting] + (_PAIR if attr.ranking else ())
    if attr.formatting == "alpaca" and not attr.ranking:
        needed += ("response",)
    for key in needed:
        column = getattr(attr, key)
        if column not in entry.row if column else key in _PAIR or key == "messages":
            raise _missing(entry, key, column)


def _missing(entry: _Entry, key: str, column: str | None) -> DataError:
    named = f"no column `{column}`" if column else f"a column for `{key}`, which dataset_info.json does not name"
    near = entry.nearest(key, column)
    advice = [entry.hound]
    if near is not None and not (entry.attr.formatting == "alpaca" and entry.hound and near in _OURS):
        advice.append(f'"columns": {{"{key}": "{near}"}}')
    if not any(advice):
        advice.append(f'"columns": {{"{key}": ...}} with one of them')
    meant = f" Did you mean `{near}`?" if near and column and get_close_matches(column, [near], 1, 0.7) else ""
    state = f"there is {named} (for `{key}`" if column else f"the format needs {named} ("
    return DataError(
        f"{entry.where}: {state}, `formatting: {entry.attr.formatting}`); the rows have {entry.columns}.{meant} Write "
        f"{' or '.join(filter(None, advice))} into its entry of dataset_info.json."
    )


def _beginning(dataset: Any, attr: Any) -> Iterator[dict[str, Any]]:
    """The first rows, without columns of media, which would be decoded."""
    wanted = {attr.messages, attr.prompt, attr.query, *_LIKE["videos"], *_LIKE["images"]}
    columns = [name for name in dataset.column_names or () if name in wanted]
    yield from islice(dataset.select_columns(columns) if columns else dataset, _LOOKED_AT)


def _check_values(entry: _Entry) -> None:
    """The tags of a row's first message, and media that the entry does not name."""
    attr, row = entry.attr, entry.row
    if attr.formatting == "alpaca":
        text = f"{row.get(attr.prompt)} {row.get(attr.query)}"
    else:
        messages = row.get(attr.messages)
        if not isinstance(messages, list):
            raise DataError(
                f"{entry.where}: expected a list of messages in `{attr.messages}`, found {messages!r:.100}. Correct or "
                f"remove the row."
            )
        for message in messages[:1]:
            _check_tags(entry, message)
        text = " ".join(str(message.get(attr.content_tag)) for message in messages if isinstance(message, dict))
    for key in ("videos", "images"):
        column = next((name for name in _LIKE[key] if row.get(name)), None)
        if getattr(attr, key) is None and column is not None and f"<{key[:-1]}>" in text:
            raise DataError(
                f"{entry.where}: a question has <{key[:-1]}> and the row has `{column}`, but dataset_info.json names "
                f'no column for `{key}`. Write "columns": {{"{key}": "{column}"}}'
                + (f" or {entry.hound}" if entry.hound else "")
                + " into its entry."
            )


def _check_tags(entry: _Entry, message: Any) -> None:
    attr = entry.attr
    tags = (attr.role_tag, attr.content_tag)
    keys = ", ".join(f"`{key}`" for key in message) if isinstance(message, dict) else repr(message)[:100]
    missing = next((tag for tag in tags if not isinstance(message, dict) or tag not in message), None)
    roles = [attr.user_tag, attr.assistant_tag, attr.observation_tag, attr.function_tag, attr.system_tag]
    if missing is not None:
        problem = f"a message has {keys}, and no `{missing}`"
    elif entry.number == 1 and message[attr.role_tag] not in roles:
        problem = f"a message is of {message[attr.role_tag]!r}, not one of the tags {[r for r in roles if r]}"
    else:
        return
    role = next((tag for tag in _TAGS if isinstance(message, dict) and tag in message), "role")
    content, user, assistant = _TAGS[role]
    given = {"role_tag": role, "content_tag": content, "user_tag": user, "assistant_tag": assistant}
    raise DataError(
        f'{entry.where}: {problem}. Write "tags": {json.dumps({**given, "system_tag": "system"})} or '
        '"formatting": "hound" into its entry of dataset_info.json.'
    )
