"""What an evaluation is made of: questions, predictions, judgements; one JSON object a line in the run's folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from hound_plugin.records.media_paths import clip_key, is_image_path
from hound_plugin.records.placeholders import VIDEO_TOKEN

JUDGED, UNREADABLE, FAILED, UNANSWERED = "judged", "unreadable", "failed", "unanswered"
CUT = "length"
"""``finish`` of an answer at the limit of tokens."""
STATUSES = (JUDGED, UNREADABLE, FAILED, UNANSWERED)
"""Of a judgement: it has a verdict or score; the judge's text could not be parsed; the judge failed for good; there is
no prediction to judge."""


@dataclass(frozen=True)
class Question:
    """One question of a suite.

    Attributes:
        id: unique in the run.
        set: the test set that it counts for, such as ``msrvtt``.
        clip: the clip as the record names it.
        media: what the model sees: paths of clips, frame folders or images, as the record gives them.
        prompt: the text for the model, with ``<video>`` or ``<image>`` where the medium stands.
        question: the text for the judge, without placeholders.
        reference: the right answer; empty where there is none.
        evidence: the clip's detailed caption, for judges that read it; empty where there is none.
        accepted: further answers that count as right, for the measures without a judge.
    """

    id: str
    set: str
    clip: str
    media: tuple[str, ...]
    prompt: str
    question: str
    reference: str = ""
    evidence: str = ""
    accepted: tuple[str, ...] = ()

    @property
    def shown(self) -> str | list[str] | None:
        """The clip or image as models take it: a path, a list of frames, or None for a question on text alone."""
        if not self.media:
            return None
        is_path = len(self.media) == 1 and not (is_image_path(self.media[0]) and VIDEO_TOKEN in self.prompt)
        return self.media[0] if is_path else list(self.media)

    @cached_property
    def cluster(self) -> tuple[str, ...]:
        """What questions about one clip have in common, however their rows write its path.

        They form a cluster in every interval.
        """
        return clip_key(self.media) or (self.clip,)

    def to_row(self) -> dict[str, Any]:
        """As a JSON object."""
        return {**asdict(self), "media": list(self.media), "accepted": list(self.accepted)}


@dataclass(frozen=True)
class Prediction:
    """A model's answer to one question.

    Attributes:
        id: the question's.
        text: the answer, or None.
        error: why there is none (a broken clip).
        finish: how it ended: ``stop``, ``length`` at the limit of tokens, or empty where that is unknown.
    """

    id: str
    text: str | None
    error: str = ""
    finish: str = ""

    @property
    def is_cut(self) -> bool:
        """Whether the answer reached the limit of tokens: its end is missing."""
        return self.finish == CUT

    def to_row(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Judgement:
    """A verdict on one prediction.

    Attributes:
        id: the question's.
        status: one of ``STATUSES``.
        correct: None unless the status is ``judged`` and the protocol gives a verdict.
        score: in the protocol's range, or None.
        reason, raw: the judge's words, without secrets.
        scores: further measures by name, such as ``exact_match`` or ``rouge_l``, each from 0 to 1.
    """

    id: str
    status: str
    correct: bool | None = None
    score: float | None = None
    reason: str = ""
    raw: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)

    def to_row(self) -> dict[str, Any]:
        """As a JSON object."""
        return {**asdict(self), "scores": dict(self.scores)}


def count_statuses(judgements: Iterable[Judgement]) -> dict[str, int]:
    """Number of judgements of every status, those that do not occur too."""
    found = Counter(judgement.status for judgement in judgements)
    return {status: found[status] for status in STATUSES}
