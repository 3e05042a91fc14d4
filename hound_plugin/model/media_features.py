"""What the towers made of a batch's media, and whether it fills the placeholders of the text."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from hound_plugin.errors import PlaceholderError


@dataclass
class TowerRuns:
    """What the towers made of the media of a batch, so that a second model does not run its own.

    Attributes:
        features: ``image`` and ``video``: ``[N, tokens, channels]``, before the projector.
        given: they came from outside, and no tower runs.
        kept: they are kept for others.
    """

    features: dict[str, torch.Tensor] = field(default_factory=dict)
    given: bool = False
    kept: bool = False

    def for_others(self) -> dict[str, torch.Tensor] | None:
        """The features without their history, if they are kept."""
        return {name: value.detach() for name, value in self.features.items()} if self.kept else None


def is_encoded(media: torch.Tensor) -> bool:
    """Whether media are features of a tower, ``[N, tokens, channels]``, and not pixels, which have more axes."""
    return media.dim() == 3


def check_count(name: str, places: torch.Tensor, features: int) -> None:
    """Raise unless there are as many placeholders as feature vectors."""
    count = int(places.sum())
    if count != features:
        raise PlaceholderError(
            f"The input has {count} <{name}> placeholder tokens, but the {name}s give {features} feature vectors. "
            "Each clip or image needs exactly one placeholder in the text, and no truncation may cut it "
            "(raise `cutoff_len`)."
        )
