"""What the answers in a folder are about, so that none is taken for the answer to another question or clip.

``asked.jsonl`` has a digest of the text and one of the clip's content for each question, written before it is asked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hound_plugin.errors import LedgerError
from hound_plugin.records.files import append_rows
from hound_plugin.records.jsonl import read_objects
from hound_plugin.records.media_identity import content_digest
from hound_plugin.records.run_folders import locked

ASKED = "asked.jsonl"
SHOWN = 3
_READERS = 8  # clips at a time
_DIGITS = 16


@dataclass(frozen=True)
class Asked:
    """One question as it is asked now.

    Attributes:
        id: unique in its folder.
        text: the question.
        media: the clip or image: a path, a list of frames, or None for a question on text alone.
    """

    id: str
    text: str
    media: str | list[str] | None


def bind_asked(
    folder: Path,
    asked: Sequence[Asked],
    answered: Collection[str],
    say: Callable[[str], None],
    instead: str,
    *,
    write: bool = True,
) -> None:
    """Compare questions with what the answers of a folder are about, then note those that are new.

    A clip is compared by its content (:func:`~hound_plugin.records.media_identity.content_digest`): it may be moved or
    copied. One that is not there cannot be compared, nor can answers that an earlier version wrote; from now on they
    are.

    Args:
        folder: of the answers.
        asked: the questions.
        answered: ids of those that have an answer; one without may have changed.
        say: receives a warning about answers that cannot be compared.
        instead: what to choose for other questions, such as ``another `name```.
        write: False for a command that writes nothing.

    Raises:
        LedgerError: an answer is about another question or clip of the same id.
    """
    with locked(folder, "asked") if write else nullcontext():
        before = {str(row["id"]): row for row in read_objects(folder / ASKED)}
        now = _notes(asked)
        changes = {row["id"]: _changes(before[row["id"]], row) for row in now if row["id"] in before}
        changed = [name for name, change in changes.items() if change and name in answered]
        if changed:
            listed = ", ".join(f"{name!r} (another {' and another '.join(changes[name])})" for name in changed[:SHOWN])
            more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
            raise LedgerError(
                f"{folder} has answers to {len(changed)} questions that have changed since they were asked: {listed}"
                f"{more}. Bring back what was asked, or choose {instead}: old answers must not be taken for answers "
                "to other questions or clips."
            )
        unknown = [row["id"] for row in now if row["id"] not in before and row["id"] in answered]
        if unknown:
            say(
                f"warning: {folder} has answers to {len(unknown)} questions, such as {unknown[0]!r}, from a version "
                "that did not note what was asked: they are taken to be about the questions and clips of now"
            )
        if write:
            append_rows(folder / ASKED, [row for row in now if _is_new(row, before.get(row["id"]))])


def _notes(asked: Sequence[Asked]) -> list[dict[str, Any]]:
    clips = {_name(item.media): item.media for item in asked if item.media}
    with ThreadPoolExecutor(_READERS) as readers:
        digests = dict(zip(clips, readers.map(content_digest, clips.values()), strict=True))
    return [
        {
            "id": item.id,
            "question": hashlib.sha256(item.text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS],
            "clip": (digests[_name(item.media)] or "")[:_DIGITS] or None if item.media else "",
        }
        for item in asked
    ]


def _name(media: str | list[str] | None) -> tuple[str, ...]:
    return tuple(media) if isinstance(media, list) else (str(media),)


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What is another one; a clip that was not there, or is not, is unknown."""
    names = ["question"] if before.get("question") != now["question"] else []
    return names + (["clip"] if None not in (before.get("clip"), now["clip"]) and before["clip"] != now["clip"] else [])


def _is_new(now: dict[str, Any], before: dict[str, Any] | None) -> bool:
    """Whether a note is worth writing: not of a clip that is gone."""
    return before is None or (now != before and not (now["clip"] is None and now["question"] == before.get("question")))
