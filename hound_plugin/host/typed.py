"""Typed media columns: records with images after a thousand with clips alone, and the other way round.

``Dataset.map`` takes the type of a column from the first rows that it writes. If none of them has an image, the column
is of the type "null", and the first image later on is an error ("Couldn't cast array of type list<item: string> to
null"). So the types are given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from datasets import Dataset, Features, Value

MEDIA = ("images", "videos", "audios")


class _TypedMap:
    """Stands in for a dataset where the host calls ``map`` on it, and adds the features."""

    def __init__(self, dataset: Dataset, features: Callable[[Any, bool], Features]) -> None:
        self._dataset = dataset
        self._features = features

    def __iter__(self) -> Iterator[Any]:
        return iter(self._dataset)

    def __len__(self) -> int:
        return len(self._dataset)

    def map(self, function: Any, batched: bool = False, **kwargs: Any) -> Dataset:
        """``Dataset.map`` with features; a data set whose first row is dropped keeps the host's way."""
        features = self._features(function, batched) if len(self._dataset) else None
        return self._dataset.map(function, batched=batched, features=features, **kwargs)


def typed_tokenisation(
    original: Callable[..., Any],
    dataset: Any,
    data_args: Any,
    training_args: Any,
    stage: str,
    template: Any,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """The host's ``_get_preprocessed_dataset`` for our template, passing the types of the media columns on."""
    from hound_plugin.host.template import LlavaHoundTemplate

    args = (data_args, training_args, stage, template, *args)
    typed = isinstance(dataset, Dataset) and any(_is_typed(dataset.features.get(f"_{name}")) for name in MEDIA)
    packs = stage == "pt" or data_args.packing  # one row does not show the columns' types then
    if not typed or packs or not isinstance(template, LlavaHoundTemplate):
        return original(dataset, *args, **kwargs)

    def features(function: Any, batched: bool) -> Features | None:
        columns = function(dataset[:1])
        if not columns:
            return None  # the host dropped the first row
        inferred = Dataset.from_dict(dict(columns)).features
        if any(not _is_typed(feature) for name, feature in inferred.items() if name not in MEDIA):
            return None
        for name in MEDIA:
            if name in inferred and _is_typed(dataset.features.get(f"_{name}")):
                inferred[name] = dataset.features[f"_{name}"]
        return inferred

    return original(_TypedMap(dataset, features), *args, **kwargs)


def _is_typed(feature: Any) -> bool:
    return feature is not None and feature != Value("null")
