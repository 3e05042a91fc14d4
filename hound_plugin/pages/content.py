"""What a page shows: plain values, from which the templates make HTML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Tone = Literal["good", "bad", "plain"]


@dataclass(frozen=True)
class Frame:
    """One frame as a picture.

    Attributes:
        data: JPEG.
        label: such as its number in the clip.
    """

    data: bytes
    label: str = ""


@dataclass(frozen=True)
class Strip:
    """The frames of one clip, or ``note`` saying why there are none; ``note`` may also explain the frames."""

    frames: tuple[Frame, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Answer:
    """One answer with its judgement.

    Attributes:
        label: whose it is, such as ``chosen``.
        text: the answer; None if there is none, and ``note`` says why.
        verdict: such as ``correct`` or ``not judged``; empty if the label says it all.
        score: in the judge's range, or None.
        tone: how it is coloured.
        reasons: of the judge, one for each judgement.
        raw: the judge's replies and other raw data, folded away: pairs of title and text.
        note: anything else worth knowing, such as that the answer was cut at the token limit.
        other: the text that this one is compared with; words that only one of both has are marked.
    """

    label: str
    text: str | None
    verdict: str = ""
    score: float | None = None
    tone: Tone = "plain"
    reasons: tuple[str, ...] = ()
    raw: tuple[tuple[str, str], ...] = ()
    note: str = ""
    other: str | None = None


@dataclass(frozen=True)
class Item:
    """One clip with a question and answers.

    Attributes:
        id: shown as the title.
        clip: which clip it is: items of the same clip share their frames in a file.
        strip: its frames.
        question: what was asked.
        texts: evidence by title, such as caption and reference; empty ones are left out.
        answers: one, or the two sides of a pair.
        tags: short facts by name, such as source and gap.
        values: what filters look at, by name of the filter.
    """

    id: str
    clip: str
    strip: Strip
    question: str
    texts: tuple[tuple[str, str], ...]
    answers: tuple[Answer, ...]
    tags: tuple[tuple[str, str], ...] = ()
    values: Mapping[str, str | float] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """A filter for one of several values; ``all`` is added in front. ``start`` is chosen at first."""

    name: str
    label: str
    options: tuple[str, ...]
    start: str = ""


@dataclass(frozen=True)
class Bound:
    """A filter for a number: ``side`` ``from`` keeps values of at least it, ``to`` of at most. Items without the value
    are kept.

    Attributes:
        name: of the value.
        label: shown.
        side: see above.
        start: the bound at first, which keeps everything.
        step: of the field.
    """

    name: str
    label: str
    side: Literal["from", "to"]
    start: float
    step: float = 0.5

    @property
    def lowest(self) -> float | None:
        """The lowest number that the field takes."""
        return self.start if self.side == "from" else None

    @property
    def highest(self) -> float | None:
        """The highest number that the field takes."""
        return self.start if self.side == "to" else None


Filter = Choice | Bound


@dataclass(frozen=True)
class Table:
    """A table; numbers are aligned to the right, None is shown as a dash."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    note: str = ""


def options_of(items: list[str]) -> tuple[str, ...]:
    """The different values, sorted, for a :class:`Choice`."""
    return tuple(sorted(set(items)))
