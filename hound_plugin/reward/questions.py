"""Questions with what a judge needs to know, and every check that can be made before the first request."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hound_plugin.errors import DataError, MediaNotFoundError
from hound_plugin.records.jsonl import read_objects
from hound_plugin.reward.storage import Row

_PLACEHOLDER = re.compile(r"\s*<(?:video|image)>\s*")
_HUMAN, _GPT = ("human", "user"), ("gpt", "assistant")
SHOWN = 5


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        id: unique in its file.
        medium: ``video``, ``image``, or empty for a question on text alone.
        media: as the record has it: a file, a folder of frames or a list of frames, relative to ``media_dir``.
        paths: where it lies; the same shape.
        text: the question without placeholder.
        caption: the detailed description that stands in for the clip, or empty.
        reference: an answer known to be good, or empty.
        source: where the record comes from, for tables.
    """

    id: str
    medium: str
    media: Any
    paths: Any
    text: str
    caption: str
    reference: str
    source: str

    @property
    def prompt(self) -> str:
        """The question as the host reads it, placeholder first."""
        return f"<{self.medium}>\n{self.text}" if self.medium else self.text

    def fields(self, answer: str, with_reference: bool = True) -> dict[str, str]:
        """The untrusted texts of a judgement on one answer."""
        reference = self.reference if with_reference else ""
        return {"caption": self.caption, "question": self.text, "reference": reference, "answer": answer}


def read_questions(path: str | Path, media_dir: str | None, limit: int | None = None) -> list[Question]:
    """Read and check a file of questions.

    A row has ``id``, ``video`` or ``image``, ``prompt`` or ``question`` (or ``conversations``, of which the first
    question and answer are taken), and where there are any ``caption``, ``reference`` (or ``answer``) and ``source``.

    Raises:
        DataError: no file, nothing in it, ids that are missing or twice, or empty questions.
        MediaNotFoundError: clips that are not there.
    """
    if not Path(path).is_file():
        raise DataError(f"questions: expected a JSONL file, there is none at {path}.")
    questions: list[Question] = []
    problems = Counter[str]()
    examples: dict[str, list[str]] = {}
    seen: set[str] = set()
    for number, row in enumerate(read_objects(path, complete=True), 1):
        if limit is not None and len(questions) >= limit:
            break
        problem = _problem(row, seen)
        if problem:
            problems[problem] += 1
            examples.setdefault(problem, []).append(f"row {number} (id {row.get('id')!r})")
            continue
        questions.append(_question(row, media_dir))
    if problems:
        lines = [f"{problems[what]} with {what}: {_some(examples[what])}" for what in problems]
        raise DataError(f"{path}: {'; '.join(lines)}. Correct or remove these rows.")
    if not questions:
        raise DataError(f"{path}: expected questions, one JSON object a line; it is empty.")
    _check_media(questions, media_dir)
    return questions


def _problem(row: Row, seen: set[str]) -> str:
    if not isinstance(row.get("id"), str | int) or row["id"] == "":
        return "no id"
    name = str(row["id"])
    if name in seen:
        return "an id that is there twice"
    seen.add(name)
    if not _asked(row)[0]:
        return "an empty question"
    return ""


def _asked(row: Row) -> tuple[str, str]:
    """Question without placeholder, and reference answer."""
    asked, reference = row.get("prompt", row.get("question")), row.get("reference", row.get("answer"))
    turns = row.get("conversations")
    if isinstance(turns, list):
        said = [(t.get("from", t.get("role")), t.get("value", t.get("content"))) for t in turns if isinstance(t, dict)]
        asked = asked or next((text for who, text in said if who in _HUMAN), None)
        reference = reference or next((text for who, text in said if who in _GPT), None)
    text = _PLACEHOLDER.sub(" ", asked).strip() if isinstance(asked, str) else ""
    return text, reference.strip() if isinstance(reference, str) else ""


def _question(row: Row, media_dir: str | None) -> Question:
    text, reference = _asked(row)
    medium = next((name for name in ("video", "image") if row.get(name)), "")
    media = row.get(medium) if medium else None
    caption = row.get("caption")
    return Question(
        id=str(row["id"]),
        medium=medium,
        media=media,
        paths=_find(media, media_dir),
        text=text,
        caption=caption.strip() if isinstance(caption, str) else "",
        reference=reference,
        source=str(row.get("source") or row.get("kind") or ""),
    )


def _find(media: Any, media_dir: str | None) -> Any:
    if isinstance(media, list):
        return [_find(item, media_dir) for item in media]
    if not isinstance(media, str):
        return media
    under = os.path.join(media_dir, media) if media_dir else media
    return under if os.path.exists(under) or not os.path.exists(media) else media


def media_files(paths: Any) -> list[str]:
    """All paths of one medium."""
    return [str(item) for item in (paths if isinstance(paths, list) else [paths]) if item is not None]


def _check_media(questions: Iterable[Question], media_dir: str | None) -> None:
    gone = [q for q in questions if not all(os.path.exists(path) for path in media_files(q.paths))]
    if gone:
        first = next(path for path in media_files(gone[0].paths) if not os.path.exists(path))
        raise MediaNotFoundError(
            f"{len(gone)} questions show clips that are not there: {_some([q.id for q in gone])}; first missing path "
            f"{first}. Set `media_dir` (now {media_dir}) to the folder that the paths begin in.",
            first,
        )


def check_fields(questions: Sequence[Question], needed: Iterable[str], who: str) -> None:
    """Refuse questions that lack what a judge reads.

    Raises:
        DataError: with the number of questions and the first ids.
    """
    for name in needed:
        if name in ("question", "answer"):
            continue
        lacking = [q.id for q in questions if not getattr(q, name)]
        if lacking:
            raise DataError(
                f"{len(lacking)} of {len(questions)} questions have no `{name}`, which {who} reads: {_some(lacking)}. "
                f"Add it, or use a judge that needs none."
            )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def make_seed(*parts: Any) -> int:
    """A seed in 0 .. 2^31 - 1 that depends on nothing but these parts."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1
