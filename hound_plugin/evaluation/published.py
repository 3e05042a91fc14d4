"""Published numbers of LLaVA-Hound, as reference rows. They are other judges' numbers: see ``WARNING``.

Copied from the table in the authors' repository, which also links the predictions. The same predictions were
judged by three versions of one model there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

SOURCE = (
    "https://github.com/RifleZhang/LLaVA-Hound-DPO/blob/ec2381f6bd47e425674157e8f3754df26b0dc6d8/"
    "llava_hound_dpo/test/README.md"
)
WARNING = (
    "These numbers come from other judges, and from the original's prompt and parsers. The judge alone moves the "
    "accuracy of the same predictions by 8 to 15 points (LLaVA-Hound-DPO on MSVD-QA: 80.73 to 88.50; LLaVA-Hound-SFT "
    "on MSRVTT-QA: 58.73 to 73.85). They give the order of magnitude; they do not show that a model is better than "
    "another."
)
SUITE = "official"
SETS = ("msvd", "msrvtt", "tgif")
# judge -> model -> accuracy in % and mean score for each of SETS
_TABLE: dict[str, dict[str, tuple[float, ...]]] = {
    "gpt-3.5-turbo-0301": {
        "LLaVA-Hound-SFT": (85.65, 4.10, 73.85, 3.62, 64.98, 3.65),
        "LLaVA-Hound-DPO": (88.50, 4.20, 82.10, 3.84, 75.48, 3.81),
    },
    "gpt-3.5-turbo-0613": {
        "LLaVA-Hound-SFT": (75.70, 3.86, 58.73, 3.31, 53.51, 3.30),
        "LLaVA-Hound-DPO": (80.73, 4.07, 70.15, 3.66, 61.38, 3.46),
    },
    "gpt-3.5-turbo-1106": {
        "LLaVA-Hound-SFT": (81.09, 4.08, 64.13, 3.57, 58.05, 3.53),
        "LLaVA-Hound-DPO": (86.05, 4.23, 76.75, 3.85, 70.02, 3.71),
    },
}


@dataclass(frozen=True)
class PublishedRow:
    """One published number: ``accuracy`` from 0 to 1, ``score`` from 0 to 5."""

    set: str
    model: str
    judge: str
    accuracy: float
    score: float


def published_rows(suite: str) -> list[PublishedRow]:
    """What was published for a suite; empty for suites without verified numbers."""
    return list(_rows()) if suite == SUITE else []


def _rows() -> Iterator[PublishedRow]:
    for judge, models in _TABLE.items():
        for model, numbers in models.items():
            for index, name in enumerate(SETS):
                yield PublishedRow(name, model, judge, numbers[2 * index] / 100, numbers[2 * index + 1])
